package gate

import (
	"context"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/tracing"
)

// trace begins the span of a request, in the trace of its caller. Without one there is none:
// gates answer tens of thousands a second.
func (g *Gate) trace(req micro.Request, name string) trace.Span {
	if g.cfg.Tracer == nil {
		return tracing.None
	}
	callers := tracing.Parents(nats.Header(req.Headers()))
	if len(callers) == 0 {
		return tracing.None
	}
	_, span := g.cfg.Tracer.Start(trace.ContextWithRemoteSpanContext(context.Background(), callers[0]), "budget "+name, trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attribute.String("rpc.system", "nats"), attribute.String("rpc.service", events.GateService), attribute.String("rpc.method", name)))
	return span
}

// describe says in the span of a request what it was answered.
func describe(span trace.Span, v *events.Verdict) {
	if span.IsRecording() {
		span.SetAttributes(attribute.Bool("tidegate.allowed", v.Allowed), attribute.String("tidegate.reason", string(v.Reason)))
	}
}

// endTrace ends the span of a request that failed with err, or did not.
func endTrace(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}
