package consumer

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/tracing"
)

// maxLinks is how many callers' spans a booking names: as many as OpenTelemetry's SDK keeps.
const maxLinks = 128

// trace begins the span of a booking. It is a part of the caller's, if its events come of one;
// of several it names them.
func (c *Consumer) trace(ctx context.Context, part []delivery) (context.Context, trace.Span) {
	if c.cfg.Tracer == nil {
		return ctx, tracing.None
	}
	var callers []trace.Link
	known := map[trace.SpanID]bool{}
	var last *message
	for i := range part {
		if part[i].msg == last || len(callers) == maxLinks {
			continue
		}
		last = part[i].msg
		for _, parent := range tracing.Parents(last.Headers()) {
			if !known[parent.SpanID()] && len(callers) < maxLinks {
				known[parent.SpanID()] = true
				callers = append(callers, trace.Link{SpanContext: parent})
			}
		}
	}
	if len(callers) == 1 {
		ctx, callers = trace.ContextWithRemoteSpanContext(ctx, callers[0].SpanContext), nil
	}
	return c.cfg.Tracer.Start(ctx, "book "+events.UsageStream, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithLinks(callers...), trace.WithAttributes(
		attribute.String("messaging.system", "nats"), attribute.String("messaging.operation.type", "process"), attribute.String("messaging.operation.name", "book"),
		attribute.String("messaging.destination.name", events.UsageStream), attribute.Int("tidegate.events", len(part))))
}
