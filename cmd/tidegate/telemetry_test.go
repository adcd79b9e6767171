package main

import (
	"strings"
	"testing"
)

func TestExports(t *testing.T) {
	for env, want := range map[string]string{
		"": "nothing", "OTEL_SERVICE_NAME=x": "nothing",
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://c":                                             "traces metrics",
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://c OTEL_SDK_DISABLED=TRUE":                      "nothing",
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://c OTEL_METRICS_EXPORTER=none":                  "traces",
		"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=http://c":                                     "metrics",
		"OTEL_TRACES_EXPORTER=otlp":                                                        "traces",
		"OTEL_TRACES_EXPORTER=console":                                                     "OTEL_TRACES_EXPORTER=console",
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://c OTEL_EXPORTER_OTLP_PROTOCOL=grpc":            "http/protobuf",
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://c OTEL_EXPORTER_OTLP_METRICS_PROTOCOL=grpc":    "http/protobuf",
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://c OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf":   "traces metrics",
		"OTEL_EXPORTER_OTLP_PROTOCOL=grpc OTEL_TRACES_EXPORTER=none":                       "nothing",
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://c OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=x": "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
	} {
		given := func(name string) string {
			for variable := range strings.FieldsSeq(env) {
				if value, ok := strings.CutPrefix(variable, name+"="); ok {
					return value
				}
			}
			return ""
		}
		traces, err := exports("TRACES", given)
		metrics, err2 := exports("METRICS", given)
		got := ""
		switch {
		case err != nil:
			got = err.Error()
		case err2 != nil:
			got = err2.Error()
		case traces && metrics:
			got = "traces metrics"
		case traces:
			got = "traces"
		case metrics:
			got = "metrics"
		default:
			got = "nothing"
		}
		if !strings.Contains(got, want) || err == nil && err2 == nil && got != want {
			t.Errorf("%q: got %s, want %s", env, got, want)
		}
	}
}
