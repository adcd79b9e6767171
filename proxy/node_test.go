package proxy_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/tidegate/tidegate/internal/testenv"
)

// node is a folder of programs for Node that has the official SDKs.
func (w *world) node() (folder string, run func(program string, env ...string) string) {
	w.Helper()
	folder = w.TempDir()
	if err := os.Symlink(testenv.NodeModules(w, "testdata/node"), filepath.Join(folder, "node_modules")); err != nil {
		w.Fatal(err)
	}
	return folder, func(program string, env ...string) string {
		w.Helper()
		ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
		defer cancel()
		node := exec.CommandContext(ctx, "node", program)
		node.Dir, node.Env = folder, append(os.Environ(), env...)
		out, err := node.CombinedOutput()
		if err != nil {
			w.Fatalf("node %s: %v\n%s", program, err, out)
		}
		return strings.TrimSpace(string(out))
	}
}

func (w *world) write(file string, text string) {
	w.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		w.Fatal(err)
	}
}

// The official SDK for Node gets its answer, its stream, and at the cap its own error, once.
func testNode(w *world) {
	folder, run := w.node()
	w.write(filepath.Join(folder, "call.mjs"), string(testenv.Must(os.ReadFile("testdata/node/call.mjs"))))
	s := w.serve("", func(rw http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); !strings.Contains(string(body), `"stream":true`) {
			says("application/json", reply)(rw, r)
			return
		}
		says("text/event-stream", `data: {"id":"c","model":"gpt-5-2025","choices":[{"index":0,"delta":{"content":"A harbour."},"finish_reason":"stop"}]}`+"\n\n"+
			`data: {"id":"c","model":"gpt-5-2025","choices":[],"usage":{"prompt_tokens":20,"completion_tokens":4,"total_tokens":24}}`+"\n\ndata: [DONE]\n\n")(rw, r)
	}, nil)
	call := func() string {
		w.Helper()
		return run("call.mjs", "BASE_URL="+s.web.URL+"/openai/v1", "TOKEN="+w.token([]string{"node"}, report, reserve))
	}
	if got := call(); got != `[{"text":"A harbour.","requests":1},{"text":"A harbour.","requests":1}]` {
		w.Errorf("a call and a stream: %s", got)
	}
	w.wantBooked("node", "node openai gpt-5-2025 20 4 provider ok", "node openai gpt-5-2025 20 4 provider ok")
	w.setBudget("node", 50)
	const refused = `{"error":"RateLimitError","status":429,"code":"insufficient_quota","remaining":2,"requests":1}`
	if got := call(); got != "["+refused+","+refused+"]" {
		w.Errorf("at the cap: %s", got)
	}
}

// What docs/integrations/sdks.md shows goes through, one call an SDK, and each is told what the page says at the cap.
func testPage(w *world) {
	folder, run := w.node()
	all := "import \"openai\";\nimport \"@anthropic-ai/sdk\";\nimport \"@google/genai\";\n" // a connection that idles while the next loads would be closed
	for i, program := range testenv.Snippets(w, "docs/integrations/sdks.md", "js") {
		w.write(filepath.Join(folder, fmt.Sprintf("%d.mjs", i)), program)
		all += fmt.Sprintf("await import(\"./%d.mjs\");\n", i)
	}
	w.write(filepath.Join(folder, "all.mjs"), all)
	s := w.serve("", func(rw http.ResponseWriter, r *http.Request) {
		said := reply
		switch {
		case strings.HasSuffix(r.URL.Path, "/messages"):
			said = `{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-5","content":[{"type":"text","text":"A harbour."}],"stop_reason":"end_turn","usage":{"input_tokens":20,"output_tokens":4}}`
		case strings.HasSuffix(r.URL.Path, ":generateContent"):
			said = `{"responseId":"g1","modelVersion":"gemini-3-flash","candidates":[{"content":{"role":"model","parts":[{"text":"A harbour."}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":20,"candidatesTokenCount":4,"totalTokenCount":24}}`
		}
		says("application/json", said)(rw, r)
	}, nil)
	ask := func() string {
		w.Helper()
		return run("all.mjs", "TIDEGATE_PROXY="+s.web.URL, "TIDEGATE_TOKEN="+w.token([]string{"sdks"}, report, reserve), "OPENAI_API_KEY="+providerKey, "ANTHROPIC_API_KEY="+providerKey, "GEMINI_API_KEY="+providerKey)
	}
	if got := ask(); got != "A harbour.\nA harbour.\nA harbour." {
		w.Errorf("the programs print:\n%s", got)
	}
	w.wantBooked("sdks", "chat ada openai gpt-5-2025 20 4 provider ok", "chat anthropic claude-sonnet-5 20 4 provider ok", "chat google gemini-3-flash 20 4 provider ok")
	w.setBudget("sdks", 100)
	const no, told = "the budget says no: ", "the budget says no: estimate_exceeds_hard_cap, it resets at 20"
	if got := ask(); strings.Count(got, told) != 2 || strings.Count(got, no+"Tidegate refuses this call (estimate_exceeds_hard_cap)") != 1 {
		w.Errorf("at the cap they print:\n%s", got)
	}
	if n := len(s.requests()); n != 3 {
		w.Errorf("%d requests reached the providers, want 3", n)
	}
}
