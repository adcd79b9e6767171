package consumer

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/tidegate/tidegate/events"
)

// headed is a message of which only the headers are looked at.
type headed struct {
	jetstream.Msg
	header nats.Header
}

func (h headed) Headers() nats.Header { return h.header }

// A booking is a part of its caller's span, or names those of several callers, but not more than are kept.
func TestConsumer_TracesCallers(t *testing.T) {
	parent := func(n int, flags string) string {
		return fmt.Sprintf("00-4bf92f3577b34da6a3ce929d0e0e4736-%016x-%s", n, flags)
	}
	of := func(headers ...nats.Header) (part []delivery) {
		for _, h := range headers {
			m := &message{Msg: headed{header: h}}
			part = append(part, delivery{msg: m}, delivery{msg: m})
		}
		return part
	}
	var many []nats.Header
	for i := range 100 {
		many = append(many, nats.Header{events.TraceHeader: {parent(2*i+1, "01"), parent(2*i+2, "01")}})
	}
	flood := nats.Header{}
	for i := range 50 {
		flood.Add(events.TraceHeader, parent(i+1, "01"))
	}
	for name, c := range map[string]struct {
		part   []delivery
		parent bool
		links  int
	}{
		"nobody traces":                   {part: of(nil, nats.Header{"X": {"y"}})},
		"nobody whose span is sampled":    {part: of(nats.Header{events.TraceHeader: {parent(1, "00")}})},
		"nonsense":                        {part: of(nats.Header{events.TraceHeader: {"00-x", ""}})},
		"one caller":                      {part: of(nil, nats.Header{events.TraceHeader: {parent(1, "01")}}, nats.Header{"Traceparent": {parent(1, "01")}}), parent: true},
		"two callers":                     {part: of(nats.Header{events.TraceHeader: {parent(1, "01")}}, nats.Header{"Traceparent": {parent(2, "01")}}), links: 2},
		"two hundred":                     {part: of(many...), links: maxLinks},
		"more than publishers of ours do": {part: of(flood), links: events.MaxTraces},
	} {
		spans := tracetest.NewSpanRecorder()
		traced := &Consumer{cfg: Config{Tracer: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("")}}
		_, span := traced.trace(t.Context(), c.part)
		span.End()
		got := spans.Ended()[0]
		if got.Parent().IsValid() != c.parent || len(got.Links()) != c.links {
			t.Errorf("%s: the parent is %v, and there are %d links", name, got.Parent().SpanID(), len(got.Links()))
		}
	}
	ctx, span := (&Consumer{}).trace(t.Context(), of(many...))
	if ctx != t.Context() || span.IsRecording() {
		t.Error("without a tracer there is a span")
	}
}
