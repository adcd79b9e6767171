package edge

import (
	"encoding/hex"
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/tidegate/tidegate/identity"
)

// MadeSpan is a span to be posted.
type MadeSpan struct {
	Trace, ID  string // in hexadecimal
	Start, End time.Time
	Failed     bool
	Attributes map[string]any
}

func (s MadeSpan) proto() *tracepb.Span {
	trace, _ := hex.DecodeString(s.Trace)
	id, _ := hex.DecodeString(s.ID)
	made := &tracepb.Span{TraceId: trace, SpanId: id, Name: "chat", Kind: tracepb.Span_SPAN_KIND_CLIENT, StartTimeUnixNano: nanoseconds(s.Start), EndTimeUnixNano: nanoseconds(s.End), Attributes: protoAttributes(s.Attributes)}
	if s.Failed {
		made.Status = &tracepb.Status{Message: "failed", Code: tracepb.Status_STATUS_CODE_ERROR}
	}
	return made
}

func nanoseconds(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixNano())
}

func protoAttributes(of map[string]any) (list []*commonpb.KeyValue) {
	for _, key := range slices.Sorted(maps.Keys(of)) {
		value := &commonpb.AnyValue{}
		switch v := of[key].(type) {
		case string:
			value.Value = &commonpb.AnyValue_StringValue{StringValue: v}
		case int:
			value.Value = &commonpb.AnyValue_IntValue{IntValue: int64(v)}
		case float64:
			value.Value = &commonpb.AnyValue_DoubleValue{DoubleValue: v}
		case bool:
			value.Value = &commonpb.AnyValue_BoolValue{BoolValue: v}
		case []string:
			value.Value = &commonpb.AnyValue_ArrayValue{ArrayValue: &commonpb.ArrayValue{}}
		}
		list = append(list, &commonpb.KeyValue{Key: key, Value: value})
	}
	return list
}

// Protobuf is a body with spans of one resource, as exporters post it.
func Protobuf(resource map[string]any, spans ...MadeSpan) []byte {
	scope := &tracepb.ScopeSpans{}
	for _, s := range spans {
		scope.Spans = append(scope.Spans, s.proto())
	}
	body, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{Resource: &resourcepb.Resource{Attributes: protoAttributes(resource)}, ScopeSpans: []*tracepb.ScopeSpans{scope}}}})
	if err != nil {
		panic(err)
	}
	return body
}

// JSON is the same in JSON.
func JSON(resource map[string]any, spans ...MadeSpan) []byte {
	list := []any{}
	for _, s := range spans {
		one := map[string]any{"traceId": s.Trace, "spanId": s.ID, "kind": 3, "startTimeUnixNano": strconv.FormatUint(nanoseconds(s.Start), 10), "endTimeUnixNano": strconv.FormatUint(nanoseconds(s.End), 10),
			"attributes": jsonAttributesOf(s.Attributes), "status": map[string]any{}}
		if s.Failed {
			one["status"] = map[string]any{"code": 2, "message": "failed"}
		}
		list = append(list, one)
	}
	body, err := json.Marshal(map[string]any{"resourceSpans": []any{map[string]any{
		"scopeSpans": []any{map[string]any{"spans": list}}, "resource": map[string]any{"attributes": jsonAttributesOf(resource)}, "schemaUrl": "x"}}})
	if err != nil {
		panic(err)
	}
	return body
}

func jsonAttributesOf(of map[string]any) []any {
	list := []any{}
	for _, key := range slices.Sorted(maps.Keys(of)) {
		value := map[string]any{}
		switch v := of[key].(type) {
		case string:
			value["stringValue"] = v
		case int:
			value["intValue"] = strconv.Itoa(v)
		case float64:
			value["doubleValue"] = v
		case bool:
			value["boolValue"] = v
		case []string:
			value["arrayValue"] = map[string]any{}
		}
		list = append(list, map[string]any{"key": key, "value": value})
	}
	return list
}

// seen is a span as a reader shows it.
type seen struct {
	Trace, ID     string
	Start, End    uint64
	Failed        bool
	Own, Resource attributes
}

func collect(wanted map[string]bool, read func(*spanReader) error) (list []seen, err error) {
	err = read(newSpanReader(wanted, func(s *span) error {
		list = append(list, seen{s.trace, s.id, s.start, s.end, s.failed, maps.Clone(s.own), maps.Clone(s.resource)})
		return nil
	}))
	return list, err
}

// libraryReads is what the library of OpenTelemetry's own reads.
func libraryReads(wanted map[string]bool, body []byte) (list []seen, err error) {
	var data tracepb.TracesData
	if err := proto.Unmarshal(body, &data); err != nil {
		return nil, err
	}
	read := func(of []*commonpb.KeyValue) attributes {
		found := attributes{}
		for _, a := range of {
			if !wanted[a.GetKey()] {
				continue
			}
			found[a.GetKey()] = nil
			switch v := a.GetValue().GetValue().(type) {
			case *commonpb.AnyValue_StringValue:
				found[a.GetKey()] = v.StringValue
			case *commonpb.AnyValue_BoolValue:
				found[a.GetKey()] = v.BoolValue
			case *commonpb.AnyValue_IntValue:
				found[a.GetKey()] = v.IntValue
			case *commonpb.AnyValue_DoubleValue:
				found[a.GetKey()] = v.DoubleValue
			}
		}
		return found
	}
	for _, r := range data.GetResourceSpans() {
		for _, scope := range r.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				list = append(list, seen{hex.EncodeToString(s.GetTraceId()), hex.EncodeToString(s.GetSpanId()), s.GetStartTimeUnixNano(), s.GetEndTimeUnixNano(),
					s.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR, read(s.GetAttributes()), read(r.GetResource().GetAttributes())})
			}
		}
	}
	return list, nil
}

var sameSpans = cmp.Options{cmp.Comparer(func(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) })}

// Both encodings say the same, of several resources in one body, too.
func TestSpanReader(t *testing.T) {
	of := func(attributes map[string]any) MadeSpan {
		return MadeSpan{Trace: "5b8efff798038103d269b633813fc60c", ID: "eee19b7ec3c1b174", Start: time.Unix(1, 5), End: time.Unix(1764000001, 500_000_001), Attributes: attributes}
	}
	first := of(map[string]any{"text": "ä", "whole": -7, "half": 0.5, "yes": true, "list": []string{}, "other": "not asked for"})
	second := of(map[string]any{"text": ""})
	second.Failed = true
	resource := map[string]any{"service.name": "shop", "whole": math.MaxInt64}
	wanted := map[string]bool{"text": true, "whole": true, "half": true, "yes": true, "list": true, "service.name": true}
	inProtobuf := slices.Concat(Protobuf(resource, first, second), Protobuf(nil, second))
	one, two := string(JSON(resource, first, second)), string(JSON(nil, second))
	inJSON := strings.TrimSuffix(one, "]}") + "," + strings.TrimPrefix(two, `{"resourceSpans":[`)

	want, err := libraryReads(wanted, inProtobuf)
	if err != nil || len(want) != 3 || len(want[0].Own) != 5 || want[0].Own["whole"] != int64(-7) || want[2].Resource["service.name"] != nil {
		t.Fatalf("the library reads %+v, %v", want, err)
	}
	for name, read := range map[string]func(*spanReader) error{
		"protobuf": func(r *spanReader) error { return r.protobuf(inProtobuf) }, "JSON": func(r *spanReader) error { return r.json([]byte(inJSON)) },
	} {
		got, err := collect(wanted, read)
		if diff := cmp.Diff(want, got, sameSpans); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
	}
	for _, body := range []string{`{"resourceSpans":{}}`, `{"resourceSpans":[{"scopeSpans":[{"spans":["x"]}]}]}`, `{"resourceSpans":[{`, "[]", `"x"`, ""} {
		if got, err := collect(wanted, func(r *spanReader) error { return r.json([]byte(body)) }); err == nil || !strings.Contains(err.Error(), "nothing was reported") {
			t.Errorf("%s: got %+v, %v", body, got, err)
		}
	}
	for cut := range inProtobuf[:len(Protobuf(resource, first, second))-1] {
		if _, err := collect(wanted, func(r *spanReader) error { return r.protobuf(inProtobuf[:cut]) }); err == nil && cut > 0 {
			t.Errorf("%d of %d bytes are read as if they were all", cut, len(inProtobuf))
		}
	}
}

// FuzzTraces finds no body that is read otherwise than OpenTelemetry's own library reads it, none
// with which a token of port a reports for another, and no call that is neither counted nor kept.
func FuzzTraces(f *testing.F) {
	resource := map[string]any{"service.name": "shop", "tenant": "b"}
	spans := []MadeSpan{chatSpan(nil), chatSpan(map[string]any{"gen_ai.usage.input_tokens": "many"}), chatSpan(map[string]any{"gen_ai.operation.name": "invoke_agent"})}
	for _, query := range []string{"", "port=tenant", "feature=gen_ai.usage.input_tokens&user=&run=x"} {
		f.Add(Protobuf(resource, spans...), false, query)
		f.Add(JSON(resource, spans...), true, query)
	}
	f.Add([]byte(strings.Repeat("\x0a\x00", 100)), false, "")
	f.Add([]byte("\x0a\x04\x12\x02\x12\x00\x0b\x0c"), false, "")
	f.Fuzz(func(t *testing.T, body []byte, inJSON bool, query string) {
		m, err := newSpanMapping(query)
		if err != nil {
			return
		}
		r := tracesReport{mappedReport: mappedReport{report: report{call: &call{caller: identity.Caller{Permissions: []string{PermissionReport}, Ports: []string{"a"}}}, now: time.Now()}}, mapping: m, responses: map[[2]string]bool{}}
		if reader := newSpanReader(m.wanted(), r.take); inJSON {
			err = reader.json(body)
		} else {
			want, known := libraryReads(m.wanted(), body)
			got, ours := collect(m.wanted(), func(r *spanReader) error { return r.protobuf(body) })
			if diff := cmp.Diff(want, got, sameSpans); known == nil && (ours != nil || diff != "") {
				t.Errorf("%v (-library +got):\n%s", ours, diff)
			}
			err = reader.protobuf(body)
		}
		if err != nil {
			return
		}
		if told, _ := strconv.Atoi(r.reply.PartialSuccess.RejectedSpans); len(r.good)+len(r.refused) != r.calls || len(r.refused) != told {
			t.Fatalf("%d calls: %d good, %d refused, %+v", r.calls, len(r.good), len(r.refused), r.reply)
		}
		checkMapped(t, &r.mappedReport)
		if _, err := json.Marshal(r.reply); err != nil || !strings.HasPrefix(string(r.reply.protobuf()), "\x0a") && len(r.refused) > 0 {
			t.Errorf("%q, %v", r.reply, err)
		}
	})
}
