package edge_test

import (
	"encoding/hex"
	"maps"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/tidegate/tidegate/edge"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

// spanOf is a span of an operation that took 100 tokens; more are further attributes.
func spanOf(operation, response string, more map[string]any) edge.MadeSpan {
	id := events.NewUUIDv7(time.Now())
	attributes := map[string]any{"gen_ai.operation.name": operation, "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-5-mini",
		"gen_ai.usage.input_tokens": 70, "gen_ai.usage.output_tokens": 30, "gen_ai.input.messages": "a secret", "user.id": "ada"}
	if response != "" {
		attributes["gen_ai.response.id"] = response
	}
	maps.Copy(attributes, more)
	return edge.MadeSpan{Trace: "5b8efff798038103d269b633813fc60c", ID: hex.EncodeToString(id[8:]), Start: time.Now().Add(-time.Second), End: time.Now(), Attributes: attributes}
}

// What OpenTelemetry's exporters post is counted if it is a call of a model, or kept in the quarantine.
func testOpenTelemetry(w *world) {
	post := func(token, query string, body []byte, header ...string) answer {
		w.Helper()
		kind := "application/x-protobuf"
		if len(body) > 0 && body[0] == '{' {
			kind = "application/json"
		}
		return w.do(request{method: "POST", path: "/v1/traces" + query, token: token, kind: kind, body: string(body), header: header})
	}
	of := func(tenant string) map[string]any { return map[string]any{"service.name": "shop", "tenant": tenant} }

	// An agent's run: an SDK's span, its framework's of the same call, the agent's own, which repeats both, a tool and
	// a request. Exporters send again what was not answered, and a collector may turn protobuf into JSON.
	run := []edge.MadeSpan{spanOf("chat", "chatcmpl-1", nil), spanOf("chat", "chatcmpl-1", nil), spanOf("embeddings", "", nil), spanOf("invoke_agent", "", nil), spanOf("execute_tool", "", nil), {Trace: "aa", ID: "bb"}}
	run[1].End = run[1].End.Add(5 * time.Millisecond)
	for range 2 {
		if a := post(w.all, "?port=tenant", []byte(zip(string(edge.Protobuf(of("ot-1"), run...)))), "Content-Encoding", "gzip").want(w, 200); a.text != "" || a.Header.Get("Content-Type") != "application/x-protobuf" {
			w.Errorf("protobuf is answered with %q of %s", a.text, a.Header.Get("Content-Type"))
		}
		if a := post(w.all, "?port=tenant", edge.JSON(of("ot-1"), run...)).want(w, 200); a.text != "{}\n" {
			w.Errorf("JSON is answered with %s", a.text)
		}
	}
	w.wantBooked("ot-1", 2, 200)
	var feature, user string
	if err := w.DB.QueryRow(w.Context(), "select distinct feature, user_id from ai_usage_ledger where port_id = 'ot-1'").Scan(&feature, &user); err != nil || feature != "shop" || user != "ada" {
		w.Errorf("feature %q and user %q, %v: want shop and ada", feature, user, err)
	}

	// What cannot be mapped is kept, and holds back no other. Nothing says what was asked.
	mixed := []edge.MadeSpan{spanOf("chat", "", nil), spanOf("chat", "", map[string]any{"gen_ai.usage.input_tokens": "many"})}
	if a := post(w.all, "?port=tenant", edge.JSON(of("ot-2"), mixed...)).want(w, 200); !strings.Contains(a.text, `"rejectedSpans":"1"`) || !strings.Contains(a.text, "input_tokens") || !strings.Contains(a.text, mixed[1].ID) {
		w.Errorf("a good span and a bad one: %s", a.text)
	}
	if a := post(w.all, "?port=tenant", edge.Protobuf(of("ot-2"), mixed...)).want(w, 200); !strings.HasPrefix(a.text, "\x0a") || !strings.Contains(a.text, "\x08\x01\x12") || !strings.Contains(a.text, "input_tokens") {
		w.Errorf("the same in protobuf: %q", a.text)
	}
	w.wantBooked("ot-2", 1, 100)

	// A tenant's token reports for its own port only, and whatever a span says it is never booked for another.
	onlyA := w.Token(w, []string{"ot-a"}, edge.PermissionReport)
	two := w.Token(w, []string{"ot-a", "ot-b"}, edge.PermissionReport)
	post(onlyA, "", edge.Protobuf(of("ot-c"), spanOf("chat", "", nil))).want(w, 200) // no port in the mapping: the token's
	w.wantBooked("ot-a", 1, 100)
	for _, token := range []string{onlyA, two} {
		for _, body := range [][]byte{edge.Protobuf(of("ot-c"), spanOf("chat", "", nil)), edge.JSON(of("ot-c"), spanOf("chat", "", nil))} {
			if a := post(token, "?port=tenant", body).want(w, 200); !strings.Contains(a.text, "may report for") {
				w.Errorf("a span of another port: %q", a.text)
			}
		}
	}
	post(w.reserveA, "", nil).wantProblem(w, 403, "missing-permission", "usage.report")
	post("", "", nil).wantProblem(w, 401, "unauthenticated", "")
	kept := map[string]int{}
	testenv.Eventually(w, "what cannot be booked is in the quarantine", func() bool {
		clear(kept)
		for _, q := range w.quarantined() {
			if !strings.Contains(q.Text, `"otel":{`) {
				continue
			}
			kept[string(q.Reason)+" "+q.Subject]++
			if strings.Contains(q.Text, "secret") || !strings.Contains(q.Text, `"span_id"`) {
				w.Errorf("in the quarantine: %s", q.Text)
			}
		}
		return kept["port_mismatch ai.usage.ot-a"] == 4 && kept["malformed ai.usage.ot-2"] == 2
	})
	if rows, _ := w.booked("ot-c"); rows != 0 {
		w.Errorf("%d events of a port whose token nobody has", rows)
	}

	// Errors are told in the words of who asks.
	status := func(query string, body []byte, code int, detail string, header ...string) {
		w.Helper()
		if a := post(w.all, query, body, header...).want(w, code); a.Header.Get("Content-Type") != "application/x-protobuf" || a.text[0] != 2<<3|2 || !strings.Contains(a.text, detail) {
			w.Errorf("got %q of %s, want a Status with …%s…", a.text, a.Header.Get("Content-Type"), detail)
		}
	}
	status("?prt=tenant", nil, 422, "port, feature, user or run")
	status("", []byte("\x0a\xff"), 400, "no ExportTraceServiceRequest")
	status("", []byte("\x0a\x04\x12\x02\x12\xff"), 400, "no ExportTraceServiceRequest")
	status("", []byte(zip(strings.Repeat("\x0a\x00", 1<<20))), 413, "1048576", "Content-Encoding", "gzip")
	post(w.all, "", []byte(`{"resourceSpans":5}`)).wantProblem(w, 400, "malformed-body", "array")
	post(w.all, "", []byte(`{"resourceSpans":[`)).wantProblem(w, 400, "malformed-body", "no ExportTraceServiceRequest")
	w.do(request{method: "POST", path: "/v1/traces", token: w.all, kind: "application/x-ndjson", body: "{}"}).wantProblem(w, 415, "content-type", "application/x-protobuf or application/json")
	calls := strings.TrimSuffix(strings.Repeat(`{"traceId":"a","spanId":"b","attributes":[{"key":"gen_ai.operation.name","value":{"stringValue":"chat"}}]},`, 5001), ",")
	post(w.all, "?port=tenant", []byte(`{"resourceSpans":[{"scopeSpans":[{"spans":[`+calls+`]}]}]}`)).wantProblem(w, 413, "too-large", "5000")
	post(w.all, "", []byte(strings.Repeat("\x0a\x02\x12\x00", 1<<12))).want(w, 200) // empty messages
	w.tracesPage()
}

// tracesPage does what docs/integrations/opentelemetry.md says.
func (w *world) tracesPage() {
	var collector struct {
		Exporters map[string]struct {
			Endpoint string            `yaml:"traces_endpoint"`
			Headers  map[string]string `yaml:"headers"`
		}
		Processors map[string]any
		Service    struct {
			Pipelines map[string]struct{ Processors, Exporters []string }
		}
	}
	if err := yaml.Unmarshal([]byte(testenv.Snippets(w, "docs/integrations/opentelemetry.md", "yaml")[0]), &collector); err != nil {
		w.Fatal(err)
	}
	for name, pipeline := range collector.Service.Pipelines {
		for _, used := range pipeline.Processors {
			if _, ok := collector.Processors[used]; !ok {
				w.Errorf("the collector's pipeline %s has no processor %s", name, used)
			}
		}
		exporter := collector.Exporters[pipeline.Exporters[0]]
		path := strings.TrimPrefix(exporter.Endpoint, "http://127.0.0.1:8080")
		token, ok := strings.CutPrefix(exporter.Headers["Authorization"], "Bearer ")
		if !ok || token != "${env:TIDEGATE_TOKEN}" {
			w.Errorf("the collector's exporter says Authorization: %s", exporter.Headers["Authorization"])
		}
		w.do(request{method: "POST", path: path, token: w.all, kind: "application/x-protobuf", body: string(edge.Protobuf(map[string]any{"tenant.id": "ot-4"}, spanOf("chat", "", nil)))}).want(w, 200)
	}
	w.wantBooked("ot-4", 1, 100)
	token := w.Token(w, []string{"ot-5"}, edge.PermissionReport)
	cmd := exec.CommandContext(w.Context(), "bash", "-c", strings.Join(append(testenv.Snippets(w, "docs/integrations/opentelemetry.md", "sh"), "env"), "\n"))
	cmd.Env = append(os.Environ(), "TIDEGATE="+w.url, "TOKEN="+token)
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Contains(string(out), "rejected") {
		w.Errorf("the shell says %s, %v", out, err)
	}
	w.wantBooked("ot-5", 1, 100)
	for _, set := range []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=" + w.url + "/v1/traces\n", "OTEL_EXPORTER_OTLP_TRACES_HEADERS=Authorization=Bearer%20" + token + "\n"} {
		if !strings.Contains(string(out), set) {
			w.Errorf("an SDK is not told %s", set)
		}
	}
}
