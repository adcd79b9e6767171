package edge_test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/consumer/quarantine"
	"github.com/tidegate/tidegate/edge"
	"github.com/tidegate/tidegate/internal/testenv"
)

// quarantined is all that is in the quarantine.
func (w *world) quarantined() []quarantine.Event {
	w.Helper()
	js := testenv.Must(jetstream.New(w.Connect(w)))
	return testenv.Must(quarantine.Open(js).List(w.Context(), 0, 1000))
}

// recordOf is a record of LiteLLM's: a call of 100 tokens of that team.
func recordOf(team, more string) string {
	at := float64(time.Now().UnixMilli()) / 1000
	return fmt.Sprintf(`{"id":"chatcmpl-1","call_type":"acompletion","status":"success","custom_llm_provider":"openai","model":"gpt-5-mini","prompt_tokens":70,"completion_tokens":30,"total_tokens":100,
"startTime":%f,"endTime":%f,"end_user":"ada","metadata":{"user_api_key_team_id":%q},"messages":[{"role":"user","content":"a secret"}]%s}`, at-1, at, team, more)
}

// What LiteLLM posts is counted, skipped because it cost nothing, or kept in the quarantine.
func testLiteLLM(w *world) {
	post := func(token, query, body string, header ...string) answer {
		w.Helper()
		return w.do(request{method: "POST", path: "/v1/integrations/litellm" + query, token: token, body: body, header: header})
	}
	line := func(record string) string { return strings.ReplaceAll(record, "\n", "") }

	// An array, lines that say they are JSON, lines, one record; each sent again, as LiteLLM does when a connection breaks.
	array := "[" + recordOf("ll-1", "") + "," + recordOf("ll-1", `,"id":"b"`) + "," + recordOf("ll-1", `,"cache_hit":true`) + "]"
	lines := line(recordOf("ll-1", `,"id":"c"`)) + "\n" + line(recordOf("ll-1", `,"id":"d"`))
	one := recordOf("ll-1", `,"id":"e"`)
	for range 2 {
		if a := post(w.all, "?port=team_id", zip(array), "Content-Encoding", "gzip").want(w, 200); a.body.Accepted != 2 || !strings.Contains(a.text, `"skipped":1`) || !strings.Contains(a.text, `"reason":"cache_hit"`) {
			w.Errorf("an array: %s", a.text)
		}
		post(w.all, "?port=team_id", lines).want(w, 200)
		w.do(request{method: "POST", path: "/v1/integrations/litellm?port=team_id", token: w.all, kind: "application/x-ndjson", body: lines}).want(w, 200)
		post(w.all, "?port=team_id", one).want(w, 200)
	}
	w.wantBooked("ll-1", 5, 500)

	// What cannot be mapped is kept, with the reason, and holds back no other. Nothing says what was asked.
	mixed := post(w.all, "?port=team_id", "["+recordOf("ll-2", "")+","+recordOf("Sales Team", "")+","+recordOf("ll-2", `,"prompt_tokens":"many"`)+",null]").want(w, 207)
	if mixed.body.Accepted != 1 || !strings.Contains(mixed.text, `"quarantined":3`) {
		w.Errorf("good records among bad ones: %s", mixed.text)
	}
	broken := post(w.all, "?port=team_id", line(recordOf("ll-2", `,"id":"f"`))+"\n{\"id\":\"g").want(w, 207)
	if broken.body.Accepted != 1 {
		w.Errorf("a good line before a broken one: %s", broken.text)
	}
	w.wantBooked("ll-2", 2, 200)

	// A tenant's token reports for its own port only: what names another is kept, and can never be booked for it.
	onlyA := w.Token(w, []string{"ll-a"}, edge.PermissionReport)
	two := w.Token(w, []string{"ll-a", "ll-b"}, edge.PermissionReport)
	post(onlyA, "", recordOf("ll-c", "")).want(w, 200) // no port in the mapping: the token's
	w.wantBooked("ll-a", 1, 100)
	for _, a := range []answer{post(onlyA, "?port=team_id", recordOf("ll-c", `,"id":"x"`)), post(two, "?port=team_id", "["+recordOf("ll-c", `,"id":"y"`)+"]")} {
		if !strings.Contains(a.want(w, 207).text, `"reason":"port_not_allowed"`) {
			w.Errorf("a record of another port: %s", a.text)
		}
	}
	post(two, "?port=team_id", recordOf("ll-b", "")).want(w, 200)
	post(two, "", recordOf("ll-b", `,"id":"z"`)).want(w, 207) // of two ports none is meant
	w.wantBooked("ll-b", 1, 100)
	post(w.reserveA, "", one).wantProblem(w, 403, "missing-permission", "usage.report")
	post("", "", one).wantProblem(w, 401, "unauthenticated", "")

	reasons := map[string]int{}
	testenv.Eventually(w, "what cannot be booked is in the quarantine", func() bool {
		clear(reasons)
		for _, q := range w.quarantined() {
			if strings.Contains(q.Text, `"otel":{`) {
				continue
			}
			reasons[string(q.Reason)+" "+q.Subject]++
			if strings.Contains(q.Text, "secret") || !strings.Contains(q.Text, `"litellm":{`) {
				w.Errorf("in the quarantine: %s", q.Text)
			}
		}
		return len(reasons) > 0 && reasons["port_mismatch ai.usage.ll-a"] == 2 && reasons["invalid_field ai.usage.ll-a"]+reasons["invalid_field ai.usage"] == 2 &&
			reasons["malformed ai.usage.ll-2"] == 1 && reasons["malformed ai.usage"] == 2
	})
	if rows, _ := w.booked("ll-c"); rows != 0 {
		w.Errorf("%d events of a port whose token nobody has", rows)
	}

	post(w.all, "?prt=team_id", one).wantProblem(w, 422, "invalid-field", "port, feature, user or run")
	post(w.all, "?port=end_user", one).wantProblem(w, 422, "invalid-field", "team_id, team_alias, key_alias, org_id")
	post(w.all, "", "["+one).wantProblem(w, 400, "malformed-body", "no JSON array")
	post(w.all, "", " ").wantProblem(w, 400, "malformed-body", "is empty")
	post(w.all, "", "["+strings.Repeat("0,", 5000)+"0]").wantProblem(w, 413, "too-large", "5000")
	post(w.all, "", zip("["+strings.Repeat(" ", 8<<20)+"]"), "Content-Encoding", "gzip").wantProblem(w, 413, "body-too-large", "8388608")
	post(w.all, "?port=team_id", recordOf("ll-3", `,"x":"`+strings.Repeat("x", 2<<20)+`"`)).want(w, 200) // its prompts are not counted
	w.wantBooked("ll-3", 1, 100)
	w.litellmPage()
}

// litellmPage does what docs/integrations/litellm.md says.
func (w *world) litellmPage() {
	configuration := testenv.Snippets(w, "docs/integrations/litellm.md", "yaml")[0]
	endpoint := regexp.MustCompile(`endpoint: http://127.0.0.1:8080(/\S+)`).FindStringSubmatch(configuration)
	if endpoint == nil {
		w.Fatal("the page names no endpoint")
	}
	w.do(request{method: "POST", path: endpoint[1], token: w.all, body: recordOf("ll-4", `,"request_tags":["feature:ocr"]`)}).want(w, 200)
	w.wantBooked("ll-4", 1, 100)
	var feature, user string
	if err := w.DB.QueryRow(w.Context(), "select feature, user_id from ai_usage_ledger where port_id = 'll-4'").Scan(&feature, &user); err != nil || feature != "ocr" || user != "ada" {
		w.Errorf("feature %q and user %q, %v: want ocr and ada", feature, user, err)
	}
	cmd := exec.CommandContext(w.Context(), "bash", "-c", testenv.Snippets(w, "docs/integrations/litellm.md", "sh")[0])
	cmd.Env = append(os.Environ(), "TIDEGATE="+w.url, "TOKEN="+w.all)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), `"accepted":1`) {
		w.Errorf("curl says %s, %v", out, err)
	}
}
