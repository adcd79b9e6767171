package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/internal/room"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/proxy"
)

const chat = "/openai/v1/chat/completions"

// TestProxy is one system for all cases; each has ports of its own.
func TestProxy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, test := range []struct {
		name string
		run  func(*world)
	}{
		{"a call", testCall}, {"a stream", testStream}, {"refused", testRefused}, {"limits", testLimits}, {"tokens", testTokens}, {"addresses", testAddresses}, {"unmetered", testUnmetered},
		{"one machine", testOneMachine}, {"bounds", testBounds}, {"gone", testGone}, {"too long", testTooLong}, {"stop", testStop}, {"provider away", testProviderAway},
		{"Node", testNode}, {"page", testPage}, {"NATS away", testNATSAway},
	} {
		t.Run(test.name, func(t *testing.T) {
			of := *w
			of.TB = t
			test.run(&of)
		})
	}
	log := w.log.String()
	for _, secret := range append(*w.secrets, providerKey) {
		if strings.Contains(log, secret) {
			t.Errorf("%s is in the log:\n%s", secret, log)
		}
	}
	if !strings.Contains(log, "a call was not made") {
		t.Errorf("nothing was logged, so nothing was proven:\n%s", log)
	}
}

// What is Tidegate's does not leave, all else does; the answer comes back as it was.
func testCall(w *world) {
	metrics := prometheus.NewRegistry()
	s := w.serve("call", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Echo", string(body))
		w.Header().Set("X-Request-Id", "req_1")
		says("application/json", reply)(w, r)
	}, func(c *proxy.Config) { c.Registerer = metrics })
	a := s.post(chat+"?api-version=7", question, "X-Tidegate-Feature", "ocr", "X-Tidegate-User", "ada", "X-Tidegate-Run", "run-1", "X-Tidegate-Anything", "x", "Accept-Encoding", "br",
		"OpenAI-Organization", "org", "Expect", "100-continue", "Connection", "X-Hop", "X-Hop", "x", "Proxy-Authorization", "x")
	a.want(w, 200)
	if a.text != reply || a.Header.Get("X-Echo") != question || a.Header.Get("X-Request-Id") != "req_1" {
		w.Errorf("the answer %v %s, want the provider's", a.Header, a.text)
	}
	r := s.requests()[0]
	if r.URL.Path != "/openai/v1/chat/completions" || r.URL.RawQuery != "api-version=7" || r.Host != strings.TrimPrefix(s.URL, "http://") {
		w.Errorf("the provider got %s at %s", r.URL, r.Host)
	}
	if r.Header.Get("Authorization") != "Bearer "+providerKey || r.Header.Get("Openai-Organization") != "org" {
		w.Errorf("the provider's own headers are lost: %v", r.Header)
	}
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Tidegate-") || slices.Contains([]string{"Accept-Encoding", "Expect", "X-Hop", "Proxy-Authorization", "X-Forwarded-For"}, name) {
			w.Errorf("the provider got the header %s", name)
		}
	}
	s.post(chat, question).want(w, 200)
	s.post("/compatible/local/v1/chat/completions", question).want(w, 200)
	s.post("/azure/res-1/openai/deployments/mini/chat/completions", question).want(w, 200)
	w.wantBooked("call", "ocr ada openai gpt-5-2025 20 4 provider ok", "unnamed openai gpt-5-2025 20 4 provider ok",
		"unnamed local gpt-5-2025 20 4 provider ok", "unnamed azure.openai gpt-5-2025 20 4 provider ok")
	var run string
	if err := w.DB.QueryRow(w.Context(), "select run_id from ai_usage_ledger where port_id = 'call' and run_id is not null").Scan(&run); err != nil || run != "run-1" {
		w.Errorf("run %q, %v", run, err)
	}
	if got := s.requests()[2].URL.Path; got != "/base/v1/chat/completions" {
		w.Errorf("the configured address' path is not kept: %s", got)
	}
	if got := s.requests()[3].URL.Path; got != "/res-1/openai/deployments/mini/chat/completions" {
		w.Errorf("Azure's resource: %s", got)
	}
	s.do(http.MethodGet, "/openai/v1/models", nil).want(w, 200)
	s.post("/nowhere", question).want(w, 404)
	for _, want := range []string{`tidegate_proxy_requests_total{outcome="forwarded",upstream="openai"} 3`, `tidegate_proxy_requests_total{outcome="forwarded",upstream="local"} 1`,
		`tidegate_proxy_requests_total{outcome="not found",upstream="unknown"} 1`, "tidegate_proxy_in_flight 0", `tidegate_meter_recorded_total{service="proxy"} 4`} {
		if text := scrape(metrics); !strings.Contains(text, want+"\n") {
			w.Errorf("%s is not in\n%s", want, text)
		}
	}
}

func scrape(metrics *prometheus.Registry) string {
	rec := httptest.NewRecorder()
	promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}).ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return rec.Body.String()
}

// A stream tells its usage, though its client did not ask for it, and each chunk comes when it is sent.
func testStream(w *world) {
	got := make(chan bool)
	s := w.serve("stream", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if !strings.Contains(string(body), `"include_usage":true`) {
			fmt.Fprint(w, "data: nobody asked for the usage\n\n")
		}
		w.Header().Set("Content-Type", "text/event-stream")
		chunk := `data: {"id":"c","object":"chat.completion.chunk","model":"gpt-5-2025","choices":[{"index":0,"delta":{"content":"A"},"finish_reason":null}],"usage":null}` + "\n\n"
		for range 3 {
			fmt.Fprint(w, chunk)
			w.(http.Flusher).Flush()
			<-got // the next one only once this one has arrived
		}
		fmt.Fprint(w, `data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}`+"\n\n"+`data: {"id":"c","model":"gpt-5-2025","choices":[],"usage":{"prompt_tokens":30,"completion_tokens":3,"total_tokens":33}}`+"\n\ndata: [DONE]\n\n")
	}, nil)
	req := testenv.Must(http.NewRequestWithContext(w.Context(), http.MethodPost, s.web.URL+chat, strings.NewReader(strings.Replace(question, "{", `{"stream":true,`, 1))))
	req.Header.Set("Accept-Encoding", "gzip, deflate, br") // as Python's and Node's SDKs do
	resp := testenv.Must(http.DefaultClient.Do(req))
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	lines, seen := bufio.NewScanner(resp.Body), 0
	for lines.Scan() {
		if strings.Contains(lines.Text(), `"content":"A"`) {
			seen++
			got <- true
		}
		if strings.Contains(lines.Text(), "nobody asked") || strings.Contains(lines.Text(), "prompt_tokens") {
			w.Errorf("a client that did not ask sees %s", lines.Text())
		}
	}
	if seen != 3 || lines.Err() != nil {
		w.Errorf("%d chunks, %v", seen, lines.Err())
	}
	w.wantBooked("stream", "unnamed openai gpt-5-2025 30 3 provider ok")
}

// At the cap each provider's client is told so in its own words, and nothing leaves.
func testRefused(w *world) {
	w.setBudget("refused", 100)
	s := w.serve("refused", says("application/json", reply), nil)
	const words = `"port":"refused"`
	for _, one := range []struct {
		path   string
		status int
		words  []string
	}{
		{chat, 429, []string{`"code":"insufficient_quota"`, `"type":"insufficient_quota"`, `"param":null`}},
		{"/azure/res/openai/deployments/mini/chat/completions", 429, []string{`"code":"insufficient_quota"`}},
		{"/compatible/local/chat/completions", 429, []string{`"code":"insufficient_quota"`}},
		{"/anthropic/v1/messages", 429, []string{`"type":"error"`, `"type":"rate_limit_error"`}},
		{"/gemini/v1beta/models/gemini-2.5-flash:generateContent", 429, []string{`"status":"RESOURCE_EXHAUSTED"`, `"code":429`, "google.rpc.ErrorInfo"}},
		{"/bedrock/eu-north-1/model/eu.anthropic.claude-x-v1%3A0/converse", 400, nil},
	} {
		a := s.post(one.path, question)
		a.want(w, one.status, append(one.words, words, `"limit":"port"`, `"remaining_tokens":100`, `"hard_cap_tokens":100`, `"resets_at":"20`, "estimate_exceeds_hard_cap", "100 tokens remain of 100")...)
		if one.path == chat {
			testenv.WantFields(w, testenv.Snippets(w, "docs/proxy.md", "json")[0], a.text)
		}
		if a.Header.Get("X-Should-Retry") != "false" || a.Header.Get("Retry-After") != "" {
			w.Errorf("%s: a client may try again: %v", one.path, a.Header)
		}
		if aws := a.Header.Get("X-Amzn-Errortype"); (aws == "ServiceQuotaExceededException") != (one.status == 400) {
			w.Errorf("%s: X-Amzn-Errortype: %s", one.path, aws)
		}
	}
	if n := len(s.requests()); n != 0 {
		w.Errorf("%d requests left", n)
	}
	w.wantBooked("refused")
}

// A limit that refuses is named, and a hold is gone once its call failed.
func testLimits(w *world) {
	hard := int64(50)
	if _, err := w.Budgets.Set(w.Context(), events.SetRequest{PortID: "limits", Enabled: true, Limits: []events.Limit{{Name: "each-user", Per: "user_id", Window: "hour", Hard: &hard}}}); err != nil {
		w.Fatal(err)
	}
	s := w.serve("limits", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "{}", http.StatusTeapot) }, nil)
	s.post(chat, question, "X-Tidegate-User", "ada").want(w, 429, `"limit":"each-user"`, `"limit_value":"ada"`, `limit each-user for \"ada\"`)
	s.post(chat, `{"model":"gpt-5","max_tokens":5,"messages":[{"role":"user","content":"?"}]}`, "X-Tidegate-User", "ada").want(w, http.StatusTeapot)
	w.wantBooked("limits")
}

// Who may not, may not, whatever the provider.
func testTokens(w *world) {
	s := w.serve("", says("application/json", reply), nil)
	onlyA, both, all := w.token([]string{"a"}, report, reserve), w.token([]string{"a", "b"}, report, reserve), w.token(nil, report, reserve)
	asks, admin := w.token([]string{"a"}, reserve), w.token(nil, "admin.manage_settings")
	with := func(token string, more ...string) []string {
		return append([]string{"X-Tidegate-Token", token}, more...)
	}
	for _, one := range []struct {
		what   string
		header []string
		status int
		word   string
	}{
		{"no token", nil, 401, "X-Tidegate-Token"},
		{"no token, but a port", []string{"X-Tidegate-Port", "a"}, 401, "X-Tidegate-Token"},
		{"the provider's key", with(providerKey), 401, "not a whole API token"},
		{"a token twice", with(onlyA, "X-Tidegate-Token", onlyA), 400, "must be given once"},
		{"a changed token", with(onlyA[:20] + "a" + onlyA[21:]), 401, "not accepted"},
		{"its own port", with(onlyA), 200, ""},
		{"its own port, named", with(onlyA, "X-Tidegate-Port", "a"), 200, ""},
		{"another's port", with(onlyA, "X-Tidegate-Port", "b"), 403, `may not spend what port \"b\" has`},
		{"no port of two", with(both), 400, "X-Tidegate-Port"},
		{"one of two", with(both, "X-Tidegate-Port", "b"), 200, ""},
		{"no port of all", with(all), 400, "X-Tidegate-Port"},
		{"any of all", with(all, "X-Tidegate-Port", "c"), 200, ""},
		{"no legal port", with(all, "X-Tidegate-Port", "c.>"), 400, "X-Tidegate-Port"},
		{"no permission to report", with(asks), 403, report},
		{"an admin's token", with(admin, "X-Tidegate-Port", "a"), 403, "permission"},
		{"a long feature", with(onlyA, "X-Tidegate-Feature", strings.Repeat("x", 65)), 400, "X-Tidegate-Feature"},
	} {
		before := len(s.requests())
		a := s.post(chat, question, one.header...)
		a.want(w, one.status, one.word)
		if left := len(s.requests()) - before; (left == 1) != (one.status == 200) {
			w.Errorf("%s: %d requests left", one.what, left)
		}
	}
	for path, word := range map[string]string{"/anthropic/v1/messages": `"authentication_error"`, "/gemini/v1beta/models/m:generateContent": `"UNAUTHENTICATED"`, "/bedrock/eu-north-1/model/m/converse": "X-Tidegate-Token", chat: `"invalid_api_key"`} {
		s.post(path, question).want(w, 401, word)
	}
	revoked := w.token([]string{"a"}, report, reserve)
	id := strings.Split(revoked, "_")[1]
	if err := identity.NewTokens(w.Store, nil).Revoke(w.Context(), id, "test"); err != nil {
		w.Fatal(err)
	}
	s.post(chat, question, with(revoked)...).want(w, 401, "revoked")
	away := w.serve("", says("application/json", reply), func(c *proxy.Config) { c.Tokens = noStore{w.Store} })
	away.post(chat, question, with(onlyA)...).want(w, 503, `"server_error"`, "looked up")
	w.wantBooked("b", "unnamed openai gpt-5-2025 20 4 provider ok")
	w.wantBooked("c", "unnamed openai gpt-5-2025 20 4 provider ok")
	w.wantBooked("a", "unnamed openai gpt-5-2025 20 4 provider ok", "unnamed openai gpt-5-2025 20 4 provider ok")
}

// noStore is a store of tokens that does not answer.
type noStore struct{ identity.TokenStore }

func (noStore) TokenByID(context.Context, string) (identity.Token, error) {
	return identity.Token{}, errors.New("outage")
}

// Only what is configured can be reached.
func testAddresses(w *world) {
	elsewhere := w.provider(says("application/json", "{}"))
	s := w.serve("addresses", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	}, nil)
	host := strings.TrimPrefix(elsewhere.URL, "http://")
	for path, status := range map[string]int{
		"/": 404, "/v1/chat/completions": 404, "/nowhere/v1/chat/completions": 404, "/compatible/nowhere/v1": 404, "/local/v1": 404, "/compatible": 404, "//" + host + "/v1": 404, "/" + elsewhere.URL: 404,
		"/azure/" + host + "/x": 400, "/azure/a.b/x": 400, "/azure/a%2Fb/x": 400, "/azure/-/x": 400, "/azure/": 400, "/azure/UP/x": 400, "/azure/a@b/x": 400,
		"/bedrock/eu-north-1.evil.com/x": 400, "/bedrock/evil/x": 400, "/bedrock/x": 400,
		"/openai/../x": 400, "/compatible/local/../../x": 400, "/compatible/local/%2e%2e/x": 400, "/compatible/local/a%2F..%2Fx": 400,
	} {
		s.post(path, question).want(w, status, "message")
	}
	if n := len(s.requests()) + len(elsewhere.requests()); n != 0 {
		w.Errorf("%d requests left", n)
	}
	s.post(chat, question).want(w, 502, "redirect")
	if n := len(elsewhere.requests()); n != 0 {
		w.Errorf("a redirect was followed")
	}
	// The target of an open proxy's request names a host: here it is none of our names.
	if line := s.raw("POST http://evil.example" + chat + " HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 2\r\n\r\n{}"); !strings.Contains(line, " 403 ") {
		w.Errorf("an absolute address: %s", line)
	}
	s.post(chat, question, "Upgrade", "websocket", "Connection", "Upgrade").want(w, 403, "WebSocket")
	s.do(http.MethodGet, "/openai/v1/realtime", nil, "Upgrade", "WebSocket", "Connection", "Upgrade").want(w, 403, "WebSocket")
	w.wantBooked("addresses")
	for _, bad := range []map[string]string{{"x": "ftp://h"}, {"x": "https://u:p@h"}, {"x": "https://h?q"}, {"x": "h"}, {"X": "https://h"}, {"a/b": "https://h"}, {"azure": "https://h"}, {"x": ""}} {
		if _, err := proxy.New(proxy.Config{Conn: w.Connect(w), Port: "p", Upstreams: bad}); err == nil {
			w.Errorf("%v is taken", bad)
		}
	}
}

// What nobody can meter is not made, unless the operator says so.
func testUnmetered(w *world) {
	s := w.serve("unmetered", says("application/json", "{}"), nil)
	for _, path := range []string{"/openai/v1/videos", "/compatible/local/v1/whatever"} {
		s.post(path, `{"seconds":5}`).want(w, 403, "cannot meter")
		s.post(path, "x", "Content-Type", "multipart/form-data").want(w, 403, "cannot meter")
	}
	if n := len(s.requests()); n != 0 {
		w.Errorf("%d requests left", n)
	}
	s.post("/anthropic/v1/messages/count_tokens", question).want(w, 200)
	s.do(http.MethodDelete, "/openai/v1/files/f", nil).want(w, 200)
	passing := w.serve("unmetered", says("application/json", "{}"), func(c *proxy.Config) { c.PassUnmetered = true })
	passing.post("/openai/v1/videos", `{"seconds":5}`).want(w, 200)
	w.wantBooked("unmetered")
}

// Without tokens, only programs of this machine may spend: no page, whatever name leads here.
func testOneMachine(w *world) {
	s := w.serve("machine", says("application/json", reply), nil)
	for _, header := range [][]string{{"Host", "evil.example"}, {"Origin", "https://evil.example"}, {"Sec-Fetch-Site", "cross-site"}, {"X-Tidegate-Port", "other"}} {
		s.post(chat, question, header...).want(w, 403, `"permission_denied"`)
	}
	s.post(chat, question, "X-Tidegate-Token", w.token(nil, report, reserve)).want(w, 401, "checks no tokens")
	s.post(chat, question, "Host", "localhost:8090").want(w, 200)
	s.post(chat, question, "X-Tidegate-Port", "machine").want(w, 200)
	s.post("/bedrock/eu-north-1/model/m/converse", question, "Authorization", "x").want(w, 200)
	signed := testenv.Must(http.NewRequest(http.MethodPost, s.web.URL+"/bedrock/eu-north-1/model/m/converse", strings.NewReader(question)))
	signed.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=x")
	resp := testenv.Must(http.DefaultClient.Do(signed))
	defer resp.Body.Close()
	if text := string(testenv.Must(io.ReadAll(resp.Body))); resp.StatusCode != 400 || !strings.Contains(text, "AWS_BEARER_TOKEN_BEDROCK") || resp.Header.Get("X-Amzn-Errortype") != "ValidationException" {
		w.Errorf("a signed request: %d %s", resp.StatusCode, text)
	}
}

func testBounds(w *world) {
	hold, arrived := make(chan struct{}), make(chan struct{}, 9)
	s := w.serve("bounds", func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-hold
		says("application/json", reply)(w, r)
	}, func(c *proxy.Config) { c.Room = room.New(3, 256<<20) })
	if line := s.raw("POST " + chat + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 33554433\r\n\r\n"); !strings.Contains(line, " 413 ") { // at once, though nothing of it came
		w.Errorf("a large body that is announced: %s", line)
	}
	done := make(chan struct{}, 2)
	for range 2 {
		go func() {
			s.post(chat, question)
			done <- struct{}{}
		}()
		<-arrived
	}
	s.post(chat, question).want(w, 429, "rate_limit_exceeded")
	close(hold)
	<-done
	<-done
	s.post(chat, question).want(w, 200)
	w.wantBooked("bounds", slices.Repeat([]string{"unnamed openai gpt-5-2025 20 4 provider ok"}, 3)...)
}

// halfStream sends the beginning of a stream, and waits for its client to go.
func halfStream(w http.ResponseWriter, r *http.Request) {
	says("text/event-stream", `data: {"id":"c","model":"gpt-5-2025","choices":[{"index":0,"delta":{"content":"A harbour."}}]}`+"\n\n")(w, r)
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}

// begin makes a call that does not end, and returns once its first chunk is here.
func (s *served) begin() (cancel func()) {
	s.Helper()
	ctx, end := context.WithCancel(s.Context())
	resp, err := http.DefaultClient.Do(testenv.Must(http.NewRequestWithContext(ctx, http.MethodPost, s.web.URL+chat, strings.NewReader(question))))
	if err != nil {
		s.Fatal(err)
	}
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil || !strings.Contains(line, "A harbour.") {
		s.Fatalf("the stream begins with %s, %v", line, err)
	}
	return func() { end(); resp.Body.Close() }
}

// raw sends bytes and returns the first line of the answer.
func (s *served) raw(request string) string {
	s.Helper()
	conn := testenv.Must(net.Dial("tcp", strings.TrimPrefix(s.web.URL, "http://")))
	defer conn.Close()
	_, _ = io.WriteString(conn, request)
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		s.Error(err)
	}
	return line
}

// Who goes away has spent what came until then, and the provider is told to stop.
func testGone(w *world) {
	s := w.serve("gone", halfStream, nil)
	s.begin()()
	w.wantBooked("gone", fmt.Sprintf("unnamed openai gpt-5-2025 %d 3 partial partial", (len(question)+3)/4))
}

// A call that takes too long is ended, before its hold is.
func testTooLong(w *world) {
	s := w.serve("long", func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}, func(c *proxy.Config) { c.MaxCall = 2 * time.Second })
	s.post(chat, question).want(w, 504, "max-call")
	w.wantBooked("long", fmt.Sprintf("unnamed openai gpt-5 %d 0 partial partial", (len(question)+3)/4))
}

// What is cut off at a stop is recorded before Close returns.
func testStop(w *world) {
	s := w.serve("stop", halfStream, nil)
	defer s.begin()()
	s.web.CloseClientConnections()
	if err := s.proxy.Close(w.Context()); err != nil {
		w.Error(err)
	}
	if got := s.proxy.Stats(); got.Published != 1 || got.Pending != 0 {
		w.Errorf("after Close: %+v, want the call in the stream", got)
	}
	w.wantBooked("stop", fmt.Sprintf("unnamed openai gpt-5-2025 %d 3 partial partial", (len(question)+3)/4))
}

// A provider that cannot be reached has cost nothing.
func testProviderAway(w *world) {
	s := w.serve("away", nil, nil)
	s.provider.Close()
	s.post(chat, question).want(w, 502, "cannot be reached")
	w.wantBooked("away")
}

// Nothing is spent that nobody has checked.
func testNATSAway(w *world) {
	s := w.serve("nats", says("application/json", reply), nil)
	s.post(chat, question).want(w, 200)
	w.wantBooked("nats", "unnamed openai gpt-5-2025 20 4 provider ok")
	w.server.Shutdown()
	for path, word := range map[string]string{chat: `"server_error"`, "/anthropic/v1/messages": `"api_error"`} {
		a := s.post(path, question)
		a.want(w, 503, word, "gate_unavailable")
		if a.Header.Get("Retry-After") == "" {
			w.Errorf("a 503 without Retry-After")
		}
	}
	if n := len(s.requests()); n != 1 {
		w.Errorf("%d requests left", n)
	}
}
