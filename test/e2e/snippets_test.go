package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/internal/testenv"
)

// terminal is where somebody types what the pages say, who has started the system.
type terminal struct {
	t    *testing.T
	dir  string // as the repository's, with what was built and the data directory
	nats string
	here *strings.Replacer // addresses and ports of this test
}

// openTerminal is for the system of that process. The commands are without the race detector: so
// many of them take a while. shown and meant alternate.
func openTerminal(t *testing.T, p *process, data, nats string, shownAndMeant ...string) *terminal {
	t.Helper()
	x := &terminal{t: t, dir: t.TempDir(), nats: nats}
	for name, target := range map[string]string{"bin/tidegate": testenv.Killable(t), "bin/nats": testenv.NATSCLI(t), "data": data, "clients": testenv.Must(filepath.Abs("../../clients"))} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(x.dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(x.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	x.here = strings.NewReplacer(append(shownAndMeant, "http://127.0.0.1:8080", "http://"+p.http, "/tmp/try", filepath.Join(x.dir, "try"))...)
	return x
}

// run types it, line by line, and returns what is printed. Each command must succeed. make runs
// nothing, and npm finds installed what it is asked for.
func (x *terminal) run(snippets []string, env ...string) string {
	x.t.Helper()
	modules := testenv.NodeModules(x.t, "../../proxy/testdata/node")
	cmd := exec.CommandContext(x.t.Context(), "bash", "-euo", "pipefail", "-c", `trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
make() { command make --directory "$REPOSITORY" --dry-run "$@" >/dev/null; }
npm() { [[ "$1 $2" = "install --prefix" ]] && mkdir -p "$3" && ln -sfn "$NODE_MODULES" "$3/node_modules" && ls "$3/node_modules/$4/package.json"; }
`+x.here.Replace(strings.Join(snippets, "")))
	cmd.Dir = x.dir
	cmd.Env = append(append(os.Environ(), "REPOSITORY="+testenv.Must(filepath.Abs("../..")), "NODE_MODULES="+modules, "PYTHONDONTWRITEBYTECODE=1", "NATS_URL="+x.nats), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		x.t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// wantPrinted wants these, one after the other.
func wantPrinted(t *testing.T, page, out string, want ...string) {
	t.Helper()
	rest := out
	for _, w := range want {
		_, after, found := strings.Cut(rest, w)
		if !found {
			t.Errorf("%s: %q is not printed, or not after what stands before it:\n%s", page, w, out)
			return
		}
		rest = after
	}
}

// readmeWorks does what README.md says. The port that make run's demo would have must be there.
func readmeWorks(t *testing.T, p *process, data, nats string) {
	t.Helper()
	proxy := testenv.FreeAddr(t)
	x := openTerminal(t, p, data, nats, "127.0.0.1:8090", proxy)
	out := x.run(testenv.Snippets(t, "README.md", "sh"), "TIDEGATE_PROXY_LISTEN="+proxy, "OPENAI_API_KEY=")
	wantPrinted(t, "README.md", out, `"accepted":1`, `"allowed":false,"reason":"estimate_exceeds_hard_cap"`,
		"429 Tidegate refuses this call (estimate_exceeds_hard_cap): port demo-capped", "False estimate_exceeds_hard_cap 8")
}

// pagesWork does what the other pages say about commands, and about HTTP, through a proxy that asks
// for tokens at that address, and whose OpenAI is the one given.
func pagesWork(t *testing.T, p *process, data, nats, proxy string) {
	t.Helper()
	x := openTerminal(t, p, data, nats, "p1", "page-1", "p2", "page-2", "127.0.0.1:8090", proxy)
	wantPrinted(t, "docs/cli.md", x.run(testenv.Snippets(t, "docs/cli.md", "sh")), "Published", "ai-budget-gate", "ocr", "each-user", "hard_cap_tokens: 1,000 → 1,000,000")
	wantPrinted(t, "docs/http.md", x.run(testenv.Snippets(t, "docs/http.md", "sh")), `"accepted":1`, `"accepted":2`)
	wantPrinted(t, "docs/proxy.md", x.run(testenv.Snippets(t, "docs/proxy.md", "sh"), "OPENAI_API_KEY=sk-1"), "A harbour.")
	var report struct {
		UsedTokens int64 `json:"used_tokens"`
	}
	testenv.Eventually(t, "what the pages report is booked", func() bool {
		err := json.Unmarshal([]byte(x.run([]string{"bin/tidegate usage p1 --json"})), &report)
		return err == nil && report.UsedTokens == 900+1565+900+812+24
	})
}

// harbour is a provider that always says the same, for 24 tokens.
func harbour(t *testing.T) string {
	t.Helper()
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"id":"chatcmpl-1","object":"chat.completion","model":"gpt-5-mini","choices":[{"index":0,"message":{"role":"assistant","content":"A harbour."},"finish_reason":"stop"}],"usage":{"prompt_tokens":20,"completion_tokens":4,"total_tokens":24}}`)
	}))
	t.Cleanup(provider.Close)
	return provider.URL
}
