package meterprom_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/meter"
	"github.com/tidegate/tidegate/meter/meterprom"
)

type discard struct{}

func (discard) Record(events.Usage) {}

// TestCollector: what passes unmetered is what a scrape shows.
func TestCollector(t *testing.T) {
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, map[string]string{
			"/v1/chat/completions": `{"id":"c1","object":"chat.completion","model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}`,
			"/v1/new":              `{"model":"m","answer":42}`,
		}[r.URL.Path])
	}))
	defer provider.Close()
	transport := meter.NewTransport(meter.Config{Port: "p1", Feature: "chat", Recorder: discard{}})
	client := &http.Client{Transport: transport}
	for _, path := range []string{"/v1/chat/completions", "/v1/new", "/v1/new"} {
		resp, err := client.Post(provider.URL+path, "application/json", strings.NewReader(`{"model":"m","messages":[{"role":"user","content":"hi"}]}`))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}

	registry := prometheus.NewRegistry()
	registry.MustRegister(meterprom.NewCollector(transport, prometheus.Labels{"service": "s1"}))
	scrape := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(scrape, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	text := scrape.Body.String()
	for _, line := range []string{
		`tidegate_meter_recorded_total{service="s1"} 1`,
		`tidegate_meter_passed_total{service="s1"} 2`,
		`tidegate_meter_refused_total{service="s1"} 0`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("the scrape has no %s:\n%s", line, text)
		}
	}
	if got, want := strings.Count(text, "# TYPE"), reflect.TypeFor[meter.Stats]().NumField(); got != want {
		t.Errorf("%d metrics for the %d figures of meter.Stats", got, want)
	}
	client.CloseIdleConnections()
}
