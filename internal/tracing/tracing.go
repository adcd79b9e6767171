// Package tracing is what Tidegate's own spans have in common: whose they are part of.
package tracing

import (
	"context"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/tidegate/tidegate/events"
)

// Parents are the sampled spans that a header names. Of what a caller wrote there, no more is
// looked at than Tidegate's own publishers write.
func Parents(header nats.Header) (list []trace.SpanContext) {
	for _, key := range []string{events.TraceHeader, "Traceparent"} { // NATS does not fold them
		values := header[key]
		for _, value := range values[:min(len(values), events.MaxTraces)] {
			ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{events.TraceHeader: value})
			if parent := trace.SpanContextFromContext(ctx); parent.IsSampled() {
				list = append(list, parent)
			}
		}
	}
	return list
}

// None does nothing. It is where nobody traces.
var None = trace.SpanFromContext(context.Background())
