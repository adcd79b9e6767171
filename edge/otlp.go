package edge

import (
	"encoding/hex"
	"iter"
	"math"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/protobuf/encoding/protowire"
)

// span is what is read of a span in OTLP. It is good until the next one.
type span struct {
	trace, id  string // in hexadecimal
	start, end uint64 // nanoseconds since 1970
	failed     bool
	own        attributes
	resource   attributes
}

// attributes are those that somebody asked for: a string, int64, float64, bool, or nil for what
// is none of these.
type attributes map[string]any

// spanReader goes through a body span by span and keeps nothing: decoded as a whole, a body of
// empty messages takes 150 times its size.
type spanReader struct {
	wanted map[string]bool // the names of attributes
	span   span
	visit  func(*span) error
}

func newSpanReader(wanted map[string]bool, visit func(*span) error) *spanReader {
	return &spanReader{wanted: wanted, visit: visit, span: span{own: attributes{}, resource: attributes{}}}
}

// next is the span to be read, of the same resource as the one before.
func (r *spanReader) next() *span {
	clear(r.span.own)
	r.span = span{own: r.span.own, resource: r.span.resource}
	return &r.span
}

// protobuf reads an ExportTraceServiceRequest. The numbers are those of
// opentelemetry/proto/trace/v1/trace.proto and common/v1/common.proto.
func (r *spanReader) protobuf(body []byte) error {
	for f, err := range fields(body) {
		if err != nil {
			return err
		}
		if f.is(1, protowire.BytesType) {
			if err := r.resourceSpans(f.bytes); err != nil {
				return err
			}
		}
	}
	return nil
}

// resourceSpans reads the resource before the spans, wherever it stands.
func (r *spanReader) resourceSpans(message []byte) error {
	clear(r.span.resource)
	for f, err := range within(message, 1, 1) {
		if err != nil {
			return err
		}
		if err := r.attribute(f.bytes, r.span.resource); err != nil {
			return err
		}
	}
	for f, err := range within(message, 2, 2) {
		if err != nil {
			return err
		}
		s := r.next()
		if err := r.read(f.bytes, s); err != nil {
			return err
		}
		if err := r.visit(s); err != nil {
			return err
		}
	}
	return nil
}

func (r *spanReader) read(message []byte, s *span) error {
	for f, err := range fields(message) {
		if err != nil {
			return err
		}
		switch {
		case f.is(1, protowire.BytesType):
			s.trace = hex.EncodeToString(f.bytes)
		case f.is(2, protowire.BytesType):
			s.id = hex.EncodeToString(f.bytes)
		case f.is(7, protowire.Fixed64Type):
			s.start = f.number64
		case f.is(8, protowire.Fixed64Type):
			s.end = f.number64
		case f.is(9, protowire.BytesType):
			err = r.attribute(f.bytes, s.own)
		case f.is(15, protowire.BytesType):
			for code, err := range fields(f.bytes) {
				if err != nil {
					return err
				}
				if code.is(3, protowire.VarintType) {
					s.failed = int32(code.number64) == statusError
				}
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// statusError is a span's status code.
const statusError = 2

// attribute reads a KeyValue.
func (r *spanReader) attribute(message []byte, into attributes) error {
	var key []byte
	var value any
	for f, err := range fields(message) {
		if err != nil {
			return err
		}
		switch {
		case f.is(1, protowire.BytesType):
			key = f.bytes
		case f.is(2, protowire.BytesType):
			for v, err := range fields(f.bytes) {
				if err != nil {
					return err
				}
				switch {
				case v.is(1, protowire.BytesType):
					value = v.bytes // a string only if somebody wants it
				case v.is(2, protowire.VarintType):
					value = protowire.DecodeBool(v.number64)
				case v.is(3, protowire.VarintType):
					value = int64(v.number64)
				case v.is(4, protowire.Fixed64Type):
					value = math.Float64frombits(v.number64)
				case v.is(5, protowire.BytesType), v.is(6, protowire.BytesType), v.is(7, protowire.BytesType): // array, list, bytes
					value = nil
				}
			}
		}
	}
	if r.wanted[string(key)] {
		if text, ok := value.([]byte); ok {
			value = string(text)
		}
		into[string(key)] = value
	}
	return nil
}

// field is one of a message in protobuf's wire format.
type field struct {
	protowire.Number
	kind     protowire.Type
	bytes    []byte // of a message, string or bytes
	number64 uint64 // of a varint or a fixed64
}

func (f field) is(number protowire.Number, kind protowire.Type) bool {
	return f.Number == number && f.kind == kind
}

func fields(message []byte) iter.Seq2[field, error] {
	return func(yield func(field, error) bool) {
		for len(message) > 0 {
			number, kind, n := protowire.ConsumeTag(message)
			var size int
			if n > 0 {
				size = protowire.ConsumeFieldValue(number, kind, message[n:])
			}
			if err := protowire.ParseError(min(n, size)); err != nil {
				yield(field{}, malformed("nothing was reported; it is no ExportTraceServiceRequest in protobuf: "+err.Error()))
				return
			}
			f, value := field{Number: number, kind: kind}, message[n:n+size]
			switch kind {
			case protowire.BytesType:
				f.bytes, _ = protowire.ConsumeBytes(value)
			case protowire.VarintType:
				f.number64, _ = protowire.ConsumeVarint(value)
			case protowire.Fixed64Type:
				f.number64, _ = protowire.ConsumeFixed64(value)
			}
			if !yield(f, nil) {
				return
			}
			message = message[n+size:]
		}
	}
}

// within are the messages of that number within those of the first number.
func within(message []byte, first, second protowire.Number) iter.Seq2[field, error] {
	return func(yield func(field, error) bool) {
		for outer, err := range fields(message) {
			if err != nil {
				yield(field{}, err)
				return
			}
			if !outer.is(first, protowire.BytesType) {
				continue
			}
			for inner, err := range fields(outer.bytes) {
				if (err != nil || inner.is(second, protowire.BytesType)) && !yield(inner, err) {
					return
				}
			}
		}
	}
}

// What is read of OTLP's JSON: https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
type (
	otlpTraces struct {
		ResourceSpans jsontext.Value `json:"resourceSpans,omitempty" doc:"As in opentelemetry/proto/trace/v1/trace.proto: an array."`
	}
	jsonResourceSpans struct {
		Resource   jsonAttributes `json:"resource"`
		ScopeSpans jsontext.Value `json:"scopeSpans"`
	}
	jsonScopeSpans struct {
		Spans jsontext.Value `json:"spans"`
	}
	jsonSpan struct {
		jsonAttributes
		TraceID string         `json:"traceId"`
		SpanID  string         `json:"spanId"`
		Start   jsontext.Value `json:"startTimeUnixNano"`
		End     jsontext.Value `json:"endTimeUnixNano"`
		Status  struct {
			Code jsontext.Value `json:"code"`
		} `json:"status"`
	}
	jsonAttributes struct {
		Attributes jsontext.Value `json:"attributes"`
	}
	jsonAttribute struct {
		Key   string `json:"key"`
		Value struct {
			String jsontext.Value `json:"stringValue"`
			Bool   jsontext.Value `json:"boolValue"`
			Int    jsontext.Value `json:"intValue"`
			Double jsontext.Value `json:"doubleValue"`
		} `json:"value"`
	}
)

// json reads the same in JSON.
func (r *spanReader) json(body []byte) error {
	var traces otlpTraces
	if err := readJSON(body, &traces); err != nil {
		return err
	}
	return each(traces.ResourceSpans, func(of *jsonResourceSpans) error {
		clear(r.span.resource)
		if err := r.jsonAttributes(of.Resource, r.span.resource); err != nil {
			return err
		}
		return each(of.ScopeSpans, func(scope *jsonScopeSpans) error {
			return each(scope.Spans, func(given *jsonSpan) error {
				s := r.next()
				s.trace, s.id = strings.ToLower(given.TraceID), strings.ToLower(given.SpanID)
				s.start, _ = strconv.ParseUint(text(given.Start), 10, 64) // 0: as if it were missing
				s.end, _ = strconv.ParseUint(text(given.End), 10, 64)
				code := text(given.Status.Code)
				s.failed = code == strconv.Itoa(statusError) || code == "STATUS_CODE_ERROR"
				if err := r.jsonAttributes(given.jsonAttributes, s.own); err != nil {
					return err
				}
				return r.visit(s)
			})
		})
	})
}

func (r *spanReader) jsonAttributes(of jsonAttributes, into attributes) error {
	return each(of.Attributes, func(a *jsonAttribute) error {
		if !r.wanted[a.Key] {
			return nil
		}
		var value any
		switch v := a.Value; {
		case len(v.String) > 0:
			value = text(v.String)
		case len(v.Bool) > 0:
			value = text(v.Bool) == "true"
		case len(v.Int) > 0:
			value = text(v.Int) // which is a number within a string
			if n, err := strconv.ParseInt(text(v.Int), 10, 64); err == nil {
				value = n
			}
		case len(v.Double) > 0:
			value = text(v.Double) // NaN, for one
			if f, ok := number(v.Double); ok {
				value = f
			}
		}
		into[a.Key] = value
		return nil
	})
}

// each reads an array's elements one after the other. What is left out has none.
func each[T any](array jsontext.Value, visit func(*T) error) error {
	switch {
	case len(array) == 0 || array.Kind() == 'n':
		return nil
	case array.Kind() != '[':
		return malformed("nothing was reported; where OTLP has an array there is " + quoted(string(array[:min(len(array), 60)])))
	}
	for element, err := range elements(array) {
		var one T
		if err == nil {
			err = readJSON(element, &one)
		}
		if err == nil {
			err = visit(&one)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func readJSON(text []byte, into any) error {
	if err := json.Unmarshal(text, into, lenient); err != nil {
		return malformed("nothing was reported; it is no ExportTraceServiceRequest in JSON: " + err.Error())
	}
	return nil
}
