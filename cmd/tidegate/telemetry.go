package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	prometheusbridge "go.opentelemetry.io/contrib/bridges/prometheus"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// telemetry sends this process's spans and metrics where OpenTelemetry's variables say. Without
// them it is empty and costs nothing.
type telemetry struct {
	spans   *sdktrace.TracerProvider
	metrics *sdkmetric.MeterProvider
}

// exports says whether the environment wants a signal, TRACES or METRICS, to be sent.
func exports(signal string, env func(string) string) (bool, error) {
	exporter := env("OTEL_" + signal + "_EXPORTER")
	addressed := env("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || env("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT") != ""
	switch {
	case strings.EqualFold(env("OTEL_SDK_DISABLED"), "true"), exporter == "none", exporter == "" && !addressed:
		return false, nil
	case exporter != "" && exporter != "otlp":
		return false, fmt.Errorf("OTEL_%s_EXPORTER=%s: Tidegate knows otlp and none", signal, exporter)
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_" + signal + "_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		if protocol := env(name); protocol == "http/protobuf" {
			break // the first wins
		} else if protocol != "" {
			return false, fmt.Errorf("%s=%s: Tidegate speaks http/protobuf", name, protocol)
		}
	}
	return true, nil
}

// startTelemetry reads the environment. Nothing is sent before there is something to send.
func (s *system) startTelemetry(ctx context.Context) error {
	traces, err := exports("TRACES", os.Getenv)
	if err != nil {
		return err
	}
	metrics, err := exports("METRICS", os.Getenv)
	if err != nil || !traces && !metrics {
		return err
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { s.log.Warn("OpenTelemetry cannot be told", "error", err) }))
	of, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithHost(), resource.WithAttributes(attribute.String("service.name", "tidegate"), attribute.String("service.version", version)),
		resource.WithFromEnv()) // which wins
	if err != nil {
		return fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	if traces {
		exporter, err := otlptracehttp.New(ctx)
		if err != nil {
			return fmt.Errorf("OpenTelemetry's traces: %w", err)
		}
		s.telemetry.spans = sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(of))
		otel.SetTextMapPropagator(propagation.TraceContext{})
	}
	if metrics {
		exporter, err := otlpmetrichttp.New(ctx)
		if err != nil {
			return fmt.Errorf("OpenTelemetry's metrics: %w", err)
		}
		reader := sdkmetric.NewPeriodicReader(exporter, sdkmetric.WithProducer(prometheusbridge.NewMetricProducer(prometheusbridge.WithGatherer(s.metrics))))
		s.telemetry.metrics = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader), sdkmetric.WithResource(of))
	}
	return nil
}

// tracer is nil if nobody wants spans.
func (t *telemetry) tracer() trace.Tracer {
	if t.spans == nil {
		return nil
	}
	return t.spans.Tracer("github.com/tidegate/tidegate", trace.WithInstrumentationVersion(version))
}

// requests makes a span of each request that a handler answers, if somebody wants spans.
func (t *telemetry) requests(handler http.Handler) http.Handler {
	if t.spans == nil {
		return handler
	}
	return otelhttp.NewHandler(handler, "HTTP", otelhttp.WithTracerProvider(t.spans), otelhttp.WithPropagators(propagation.TraceContext{}), otelhttp.WithMeterProvider(metricnoop.NewMeterProvider()))
}

// stop sends what is left.
func (t *telemetry) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var err error
	if t.spans != nil {
		err = t.spans.Shutdown(ctx)
	}
	if t.metrics != nil {
		err = errors.Join(err, t.metrics.Shutdown(ctx))
	}
	return err
}
