package proxy_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/dev"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/internal/testenv/system"
	"github.com/tidegate/tidegate/proxy"
)

const (
	report, reserve = "usage.report", "budget.reserve"
	providerKey     = "sk-the-providers-own-key" // must never be in a log
	question        = `{"model":"gpt-5","max_completion_tokens":100,"messages":[{"role":"user","content":"What is a marina?"}]}`
	reply           = `{"id":"chatcmpl-1","object":"chat.completion","model":"gpt-5-2025","choices":[{"index":0,"message":{"role":"assistant","content":"A harbour."},"finish_reason":"stop"}],"usage":{"prompt_tokens":20,"completion_tokens":4,"total_tokens":24}}`
)

// world is the whole system but for the proxy, of which each test has its own.
type world struct {
	testing.TB
	*system.System
	server  *dev.NATS
	log     *testenv.Buffer // of all proxies
	secrets *[]string       // tokens, which must never be in a log
}

func newWorld(t testing.TB) *world {
	t.Helper()
	server := testenv.NATS(t)
	return &world{TB: t, System: system.Start(t, server.ClientURL()), server: server, log: new(testenv.Buffer), secrets: new([]string)}
}

func (w *world) token(ports []string, permissions ...string) string {
	w.Helper()
	shown := w.Token(w, ports, permissions...)
	*w.secrets = append(*w.secrets, shown)
	return shown
}

func (w *world) setBudget(port string, hard int64) {
	w.Helper()
	w.SetBudget(w, port, hard)
}

// wantBooked waits until the ledger has these calls of a port, and nothing is held.
func (w *world) wantBooked(port string, want ...string) {
	w.Helper()
	var got []string
	testenv.Eventually(w, "calls of "+port+" are booked, and nothing is held", func() bool {
		var held int64
		got = nil
		err := w.DB.QueryRow(w.Context(), `select coalesce(array_agg(concat_ws(' ', feature, user_id, provider, model, input_tokens, output_tokens, measured_by, status) order by created_at), '{}'),
			(select coalesce(sum(tokens), 0)::bigint from ai_held_tokens where port_id = $1) from ai_usage_ledger where port_id = $1`, port).Scan(&got, &held)
		if err != nil {
			w.Fatal(err)
		}
		return len(got) >= len(want) && held == 0
	})
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		w.Errorf("booked of %s: got %q, want %q", port, got, want)
	}
}

// provider is a fake one, and what reached it.
type provider struct {
	*httptest.Server
	mu   sync.Mutex
	seen []*http.Request
}

func (f *provider) requests() []*http.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*http.Request(nil), f.seen...)
}

func (w *world) provider(answer http.HandlerFunc) *provider {
	f := new(provider)
	f.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.seen = append(f.seen, r)
		f.mu.Unlock()
		answer(rw, r)
	}))
	w.Cleanup(f.Close)
	return f
}

// served is a proxy whose upstreams are all one fake provider.
type served struct {
	*world
	*provider
	proxy *proxy.Proxy
	web   *httptest.Server
}

// says is a provider that always answers so.
func says(kind, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", kind)
		_, _ = io.WriteString(w, body)
	}
}

// serve runs a proxy that pays from port, or by token if that is empty.
func (w *world) serve(port string, answer http.HandlerFunc, change func(*proxy.Config)) *served {
	w.Helper()
	s := &served{world: w, provider: w.provider(answer)}
	cfg := proxy.Config{Conn: w.Connect(w), Port: port, Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.NewJSONHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Upstreams: map[string]string{"openai": s.URL + "/openai", "anthropic": s.URL, "gemini": s.URL, "azure": s.URL + "/{resource}", "bedrock": s.URL + "/{region}", "local": s.URL + "/base/"}}
	if port == "" {
		cfg.Tokens, cfg.Permissions = w.Store, []string{report, reserve}
	}
	if change != nil {
		change(&cfg)
	}
	s.proxy = testenv.Must(proxy.New(cfg))
	s.web = httptest.NewUnstartedServer(s.proxy)
	s.web.Config.ReadTimeout, s.web.Config.WriteTimeout = impatience, impatience
	s.web.Start()
	w.Cleanup(func() { s.stop() })
	return s
}

func (s *served) stop() {
	s.web.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = s.proxy.Close(ctx)
}

// impatience is what a server waits for requests and answers unless the proxy says otherwise. In production it is longer,
// and shorter than calls are, too.
const impatience = time.Second

// answer is what a client without an SDK sees.
type answer struct {
	*http.Response
	text string
}

// post sends a question, or another body, with headers: name, value, ….
func (s *served) post(path, body string, header ...string) answer {
	s.Helper()
	return s.do(http.MethodPost, path, strings.NewReader(body), header...)
}

func (s *served) do(method, path string, body io.Reader, header ...string) answer {
	s.Helper()
	req := testenv.Must(http.NewRequestWithContext(s.Context(), method, s.web.URL+path, body))
	req.Header.Set("Authorization", "Bearer "+providerKey)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Add(header[i], header[i+1])
	}
	client := &http.Client{Transport: &http.Transport{}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	return answer{resp, string(testenv.Must(io.ReadAll(resp.Body)))}
}

// want wants a status, and words in the answer, which is JSON.
func (a answer) want(t testing.TB, status int, words ...string) {
	t.Helper()
	if a.StatusCode != status || !json.Valid([]byte(a.text)) {
		t.Errorf("%s: got %d, want %d: %s", a.Request.URL.Path, a.StatusCode, status, a.text)
	}
	for _, word := range words {
		if !strings.Contains(a.text, word) {
			t.Errorf("%s: %s is not in %s", a.Request.URL.Path, word, a.text)
		}
	}
}
