package events

import (
	"context"
	"slices"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// TraceHeader is the header in which requests and messages name the callers' spans, as the W3C's
// Trace Context says. A message of several events has it several times, [MaxTraces] at most.
const TraceHeader = "traceparent"

// MaxTraces is how many spans a message names at most.
const MaxTraces = 8

// TraceParent names the span of ctx, for [Usage.TraceParent]. It is "" unless the span is sampled
// and a propagator is set (otel.SetTextMapPropagator).
func TraceParent(ctx context.Context) string {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return ""
	}
	carrier := propagation.MapCarrier{}
	otel.GetTextMapPropagator().Inject(ctx, carrier)
	return carrier[TraceHeader]
}

// addTrace names a span in a header, if there is room. What is none does not get there.
func addTrace(header nats.Header, parent string) nats.Header {
	if parent == "" || len(header[TraceHeader]) == MaxTraces || slices.Contains(header[TraceHeader], parent) || !isTraceParent(parent) {
		return header
	}
	if header == nil {
		header = nats.Header{}
	}
	header[TraceHeader] = append(header[TraceHeader], parent)
	return header
}

// isTraceParent accepts version 00 and those that begin as it does, but none with more behind it.
func isTraceParent(s string) bool {
	if len(s) != len("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01") {
		return false
	}
	for i := range len(s) {
		dash := i == 2 || i == 35 || i == 52
		hex := '0' <= s[i] && s[i] <= '9' || 'a' <= s[i] && s[i] <= 'f'
		if dash != (s[i] == '-') || !dash && !hex {
			return false
		}
	}
	return true
}
