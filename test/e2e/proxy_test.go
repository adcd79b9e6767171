package e2e

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime/types"
	ollama "github.com/ollama/ollama/api"
	"github.com/openai/openai-go/v3"
	"github.com/sourcegraph/conc/pool"
	"google.golang.org/genai"

	"github.com/tidegate/tidegate/edge"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/internal/testenv"
)

// proxied is how each SDK's base URL continues, and how it says that a quota is used up.
var proxied = map[string]struct {
	base  string
	quota func(error) bool
}{
	"chat":      {"/openai", openAIQuota},
	"responses": {"/openai", openAIQuota},
	"anthropic": {"/anthropic", func(err error) bool {
		var e *anthropic.Error
		return errors.As(err, &e) && e.StatusCode == 429 && e.Type() == "rate_limit_error"
	}},
	"genai": {"/gemini", func(err error) bool {
		var e genai.APIError
		return errors.As(err, &e) && e.Code == 429 && e.Status == "RESOURCE_EXHAUSTED"
	}},
	"invoke":   {"/bedrock/eu-north-1", awsQuota},
	"converse": {"/bedrock/eu-north-1", awsQuota},
	"ollama": {"/compatible/ollama", func(err error) bool {
		var e ollama.StatusError
		return errors.As(err, &e) && e.StatusCode == 429
	}},
}

func openAIQuota(err error) bool {
	var e *openai.Error
	return errors.As(err, &e) && e.StatusCode == 429 && e.Code == "insufficient_quota"
}

func awsQuota(err error) bool {
	var modeled *types.ServiceQuotaExceededException
	var e interface{ ErrorCode() string }
	return errors.As(err, &modeled) || errors.As(err, &e) && e.ErrorCode() == "ServiceQuotaExceededException"
}

// viaProxy is what an application adds to its SDK: headers.
type viaProxy struct {
	http.Header
	base     http.RoundTripper
	requests int
}

func (v *viaProxy) RoundTrip(r *http.Request) (*http.Response, error) {
	v.requests++
	r = r.Clone(r.Context())
	for name, values := range v.Header {
		r.Header[name] = values
	}
	return v.base.RoundTrip(r)
}

// doThrough makes the call through the proxy, and says how many requests the SDK made.
func (c *aiCall) doThrough(t *testing.T, address, token string) (text string, requests int, err error) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	base := &http.Transport{}
	defer base.CloseIdleConnections()
	via := &viaProxy{base: base, Header: http.Header{"X-Tidegate-Token": {token}, "X-Tidegate-Port": {c.port}, "X-Tidegate-Feature": {"reply_draft"}, "X-Tidegate-User": {"u1"}, "X-Call": {c.port}}}
	if strings.HasPrefix(proxied[c.name].base, "/bedrock") { // no signature passes a proxy, and Go's SDK sends an API key to https only
		via.Header["Authorization"] = []string{"Bearer k"}
	}
	if c.fate == "cancelled" {
		via.base = &halfway{base: base, left: len(c.before), cancel: cancel}
	}
	text, err = c.call(ctx, &http.Client{Transport: via}, address+proxied[c.name].base, c.streaming)
	return text, via.requests, err
}

// TestEverySDKThroughTheProxy is TestEverySDKCallIsOneLedgerRow, with applications that have no meter in them: whole,
// retried and cancelled calls are one row each, and at the cap each SDK has its own error, at once.
func TestEverySDKThroughTheProxy(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	token, _, err := identity.NewTokens(s.tokens, nil).Create(t.Context(), identity.TokenRequest{Name: "test", Permissions: []string{edge.PermissionReport, edge.PermissionReserve}, CreatedBy: "test"})
	if err != nil {
		t.Fatal(err)
	}
	var calls []*aiCall
	byPort := map[string]*aiCall{}
	for _, sdk := range slices.Concat(sdks, moreSDKs) {
		for _, fate := range []string{"whole", "retried", "cancelled"} {
			for how, streaming := range map[string]bool{"json": false, "stream": true} {
				c := &aiCall{sdk: sdk, port: sdk.name + "-" + how + "-" + fate, fate: fate, streaming: streaming}
				c.before, c.after, _ = strings.Cut(map[bool]string{false: c.json, true: c.stream}[streaming], "✂")
				s.setBudget(c.port, -1, 1_000_000, events.PeriodMonth)
				calls, byPort[c.port] = append(calls, c), c
			}
		}
	}
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { byPort[r.Header.Get("X-Call")].serve(s, t, w, r) }))
	defer provider.Close()
	listen := testenv.FreeAddr(t)
	args := []string{"--nats-url", s.nats.ClientURL(), "--database-url", s.url, "--roles", "proxy", "--proxy-listen", listen}
	for _, upstream := range []string{"openai=", "anthropic=", "gemini=", "ollama=", "bedrock={region}/"} {
		name, hole, _ := strings.Cut(upstream, "=")
		args = append(args, "--proxy-upstream", name+"="+provider.URL+"/"+hole)
	}
	p := spawn(t, testenv.Binary(t, "cmd/tidegate"), nil, args...)
	p.awaitReady()

	together := pool.New().WithMaxGoroutines(8)
	for _, c := range calls {
		together.Go(func() {
			text, _, err := c.doThrough(t, "http://"+listen, token)
			if n, cancelled := c.requests.Load(), errors.Is(err, context.Canceled); cancelled != (c.fate == "cancelled") || !cancelled && (err != nil || text != "A harbour.") || n == 2 != (c.fate == "retried") {
				t.Errorf("%s: the SDK says %q, %v after %d requests", c.port, text, err, n)
			}
		})
	}
	together.Wait()
	testenv.Eventually(t, "all is booked and nothing held", func() bool {
		var held int64
		return s.rows() == len(calls) && s.db.QueryRow(t.Context(), "select coalesce(sum(tokens), 0)::bigint from ai_held_tokens").Scan(&held) == nil && held == 0
	})
	s.mustHoldExactly(calls)
	for _, c := range calls {
		if c.fate != "whole" {
			continue
		}
		used, before := s.booked(c.port), c.requests.Load()
		s.setBudget(c.port, -1, used, events.PeriodMonth)
		text, asked, err := c.doThrough(t, "http://"+listen, token)
		if !proxied[c.name].quota(err) || c.requests.Load() != before {
			t.Errorf("%s at its hard cap: the SDK says %q, %v, after %d requests; want its own quota error and none", c.port, text, err, c.requests.Load()-before)
		}
		if asked != 1 && c.name != "genai" { // whose caller has asked it to try 429 again
			t.Errorf("%s at its hard cap: the SDK asked %d times, want once", c.port, asked)
		}
	}
	s.mustHoldExactly(calls)
	p.signal(syscall.SIGTERM)
	if !p.wait(15*time.Second) || p.cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("a stop: %v", p.cmd.ProcessState)
	}
	if out := p.out.String(); strings.Contains(out, token) || strings.Contains(out, "DATA RACE") {
		t.Errorf("the token is in the log, or there is a race:\n%s", out)
	}
}

// TestProxyCommand is the proxy on one's own machine: it finds NATS by the data directory, and pays from one port.
func TestProxyCommand(t *testing.T) {
	t.Parallel()
	binary, data, listen := testenv.Binary(t, "cmd/tidegate"), t.TempDir()+"/data", testenv.FreeAddr(t)
	system := spawn(t, binary, nil, "--data", data, "--nats-addr", testenv.FreeAddr(t))
	system.awaitReady()
	if out, err := exec.Command(binary, "budget", "set", "p1", "--hard", "1000", "--data", data).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, wrong := range []struct{ args, want string }{
		{"--listen 0.0.0.0:0", "loopback"}, {"--upstream x=ftp://h", "upstream x"}, {"--port p.1", "port_id"}, {"--max-call 2h", "MaxCall"},
	} {
		out, err := exec.Command(binary, append([]string{"proxy", "--port", "p1", "--data", data, "--listen", listen}, strings.Fields(wrong.args)...)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), wrong.want) {
			t.Errorf("%s: %v: %s", wrong.args, err, out)
		}
	}
	if out, err := exec.Command(binary, "run", "--proxy-listen", listen).CombinedOutput(); err == nil || !strings.Contains(string(out), "--proxy-listen needs the role proxy") {
		t.Errorf("a flag of a role that is not run: %v: %s", err, out)
	}
	var out testenv.Buffer
	proxy := exec.Command(binary, "proxy", "--port", "p1", "--feature", "chat", "--data", data, "--listen", listen)
	proxy.Env, proxy.Stdout, proxy.Stderr = append(os.Environ(), "TIDEGATE_PROXY_UPSTREAM=openai="+"http://127.0.0.1:9"), &out, &out
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	var ended sync.WaitGroup
	ended.Go(func() { _ = proxy.Wait() })
	t.Cleanup(func() { _ = proxy.Process.Kill(); ended.Wait() })
	testenv.Eventually(t, "it listens", func() bool {
		return strings.Contains(out.String(), "port p1 pays for calls through http://"+listen+"/openai/v1")
	})
	resp, err := http.Post("http://"+listen+"/openai/v1/chat/completions", "application/json", strings.NewReader(`{"model":"gpt-5","messages":[{"role":"user","content":"Hi"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("over the cap: %d\n%s", resp.StatusCode, out.String())
	}
	_ = proxy.Process.Signal(syscall.SIGTERM)
	ended.Wait()
	if code := proxy.ProcessState.ExitCode(); code != 0 {
		t.Errorf("a stop ends it with %d:\n%s", code, out.String())
	}
}
