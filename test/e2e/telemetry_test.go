package e2e

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"

	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/tidegate/tidegate/internal/testenv"
)

// collector takes what OpenTelemetry's exporters send.
type collector struct {
	url     string
	mu      sync.Mutex
	spans   []*tracepb.Span
	metrics map[string]bool // by name
	service string
}

func startCollector(t *testing.T) *collector {
	c := &collector{metrics: map[string]bool{}}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		c.mu.Lock()
		defer c.mu.Unlock()
		switch {
		case err != nil:
		case r.URL.Path == "/v1/traces":
			var traces tracepb.TracesData
			err = proto.Unmarshal(body, &traces)
			for _, of := range traces.GetResourceSpans() {
				for _, a := range of.GetResource().GetAttributes() {
					if a.GetKey() == "service.name" {
						c.service = a.GetValue().GetStringValue()
					}
				}
				for _, scope := range of.GetScopeSpans() {
					c.spans = append(c.spans, scope.GetSpans()...)
				}
			}
		case r.URL.Path == "/v1/metrics":
			var metrics metricspb.MetricsData
			err = proto.Unmarshal(body, &metrics)
			for _, of := range metrics.GetResourceMetrics() {
				for _, scope := range of.GetScopeMetrics() {
					for _, m := range scope.GetMetrics() {
						c.metrics[m.GetName()] = true
					}
				}
			}
		}
		if err != nil {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(web.Close)
	c.url = web.URL
	return c
}

// traced reports usage and reserves over HTTP, in the trace of a caller, and waits until it is booked.
func traced(t *testing.T, p *process, created string) {
	t.Helper()
	token := regexp.MustCompile(`tg_\S+`).FindString(created)
	post := func(path, body string) string {
		req := testenv.Must(http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+p.http+path, strings.NewReader(body)))
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("traceparent", "00-"+traceOfCaller+"-"+spanOfCaller+"-01")
		resp := testenv.Must(http.DefaultClient.Do(req))
		defer resp.Body.Close()
		text := string(testenv.Must(io.ReadAll(resp.Body)))
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s %s", path, resp.Status, text)
		}
		return text
	}
	post("/v1/usage", `{"feature":"ocr","provider":"openai","model":"gpt-5-mini","input_tokens":7}`)
	post("/v1/ports/traced/reserve", `{"feature":"ocr","estimated_tokens":1}`)
	testenv.Eventually(t, "the usage is booked", func() bool {
		return strings.Contains(post("/v1/ports/traced/check", ""), `"used_tokens":7`)
	})
}

const traceOfCaller, spanOfCaller = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"

// want wants the caller's trace to lead through the edge to the booking and to the gate.
func (c *collector) want(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	parents, names := map[string]string{}, map[string]string{spanOfCaller: "the caller"}
	for _, s := range c.spans {
		if hex.EncodeToString(s.GetTraceId()) == traceOfCaller {
			parents[s.GetName()] = hex.EncodeToString(s.GetParentSpanId())
			names[hex.EncodeToString(s.GetSpanId())] = s.GetName()
		}
	}
	for span, parent := range map[string]string{
		"POST /v1/usage": "the caller", "book AI_USAGE": "POST /v1/usage",
		"POST /v1/ports/{port}/reserve": "the caller", "budget reserve": "POST /v1/ports/{port}/reserve", "budget check": "POST /v1/ports/{port}/check",
	} {
		if got := names[parents[span]]; got != parent {
			t.Errorf("the span %q is part of %q, want %q", span, got, parent)
		}
	}
	for _, name := range []string{"tidegate_events_booked_total", "tidegate_gate_answer_seconds", "tidegate_build_info"} {
		if !c.metrics[name] {
			t.Errorf("the metric %s was not sent, only %d others", name, len(c.metrics))
		}
	}
	if c.service != "tidegate" {
		t.Errorf("the spans are those of service %q", c.service)
	}
}
