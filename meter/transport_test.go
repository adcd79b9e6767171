package meter_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/meter"
)

const (
	chatReply   = `{"id":"chatcmpl-1","model":"m","choices":[{"message":{"content":"12345678"}}],"usage":{"prompt_tokens":10,"completion_tokens":5}}`
	chatRequest = `{"model":"m","messages":[{"role":"user","content":"hello"}],"max_tokens":100}`
)

func chatChunk(text string) string {
	return `data: {"id":"c","model":"m","choices":[{"delta":{"content":"` + text + `"}}]}` + "\n\n"
}

func post(t *testing.T, ctx context.Context, client *http.Client, url, body string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func row(in, out int64, by events.MeasuredBy, status events.Status) events.Usage {
	return events.Usage{Provider: "openai", Model: "m", RequestID: "req_1", ResponseID: "chatcmpl-1", InputTokens: in, OutputTokens: out, MeasuredBy: by, Status: status}
}

func TestContextSaysForWhom(t *testing.T) {
	server := newStand(t, says("application/json", chatReply))
	client, l, _ := metered(t, nil)
	ctx := meter.WithFeature(meter.WithUser(meter.WithPort(t.Context(), "p9"), ""), "summary")
	resp := post(t, ctx, client, server.URL, chatRequest)
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	want := row(10, 5, events.MeasuredByProvider, events.StatusOK)
	want.PortID, want.Feature = "p9", "summary"
	wantRows(t, l, []events.Usage{want})
}

func TestReadPartlyThenClosed(t *testing.T) {
	server := newStand(t, says("text/event-stream", chatChunk("12345678")+chatChunk("12345678")+"data: [DONE]\n\n"))
	client, l, transport := metered(t, nil)
	resp := post(t, t.Context(), client, server.URL, chatRequest)
	io.ReadFull(resp.Body, make([]byte, len(chatChunk("12345678"))+5))
	resp.Body.Close()
	resp.Body.Close()
	u := row(20, 2, "", "")
	u.ResponseID = "c"
	wantRows(t, l, expect(u, events.MeasuredByPartial, events.StatusPartial))
	if got := transport.Stats(); got != (meter.Stats{Recorded: 1, Estimated: 1, Partial: 1}) {
		t.Errorf("stats = %+v", got)
	}
}

// TestCutStreamCountsWhatCame: Anthropic's first event says that 2 tokens were
// generated, and then the text says how many more.
func TestCutStreamCountsWhatCame(t *testing.T) {
	const begin = `data: {"type":"message_start","message":{"id":"msg_1","model":"claude-x","usage":{"input_tokens":7,"output_tokens":2}}}` + "\n\n"
	text := `data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"` + strings.Repeat("x", 400) + `"}}` + "\n\n"
	server := newStand(t, stallsAfter("text/event-stream", begin+text))
	client, l, _ := metered(t, nil)
	resp, err := client.Post(server.URL+"/v1/messages", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	io.ReadFull(resp.Body, make([]byte, len(begin+text)))
	resp.Body.Close()
	wantRows(t, l, expect(events.Usage{Provider: "anthropic", Model: "claude-x", RequestID: "req_1", ResponseID: "msg_1", InputTokens: 7, OutputTokens: 100},
		events.MeasuredByPartial, events.StatusPartial))
}

func TestNeverReadNorClosed(t *testing.T) {
	server := newStand(t, says("application/json", chatReply))
	client, l, _ := metered(t, nil)
	post(t, t.Context(), client, server.URL, chatRequest)
	for deadline := time.Now().Add(10 * time.Second); len(l.all()) == 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		runtime.GC()
	}
	onePartial(t, l)
}

func TestSuccessWithoutUsageIsEstimated(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		want       events.Usage
		stats      meter.Stats
	}{
		{"no usage", `{"id":"chatcmpl-1","model":"m","choices":[{"message":{"content":"12345678"}}]}`,
			row(20, 2, "", ""), meter.Stats{Recorded: 1, Estimated: 1}},
		{"usage that makes no sense", `{"id":"chatcmpl-1","model":"m","choices":[{"message":{"content":"12345678"}}],"usage":{"prompt_tokens":-4,"completion_tokens":1}}`,
			row(20, 2, "", ""), meter.Stats{Recorded: 1, Estimated: 1, Unreadable: 1}},
		{"nothing that can be read: the request's limit counts", `thank you`,
			events.Usage{Provider: "openai", Model: "m", RequestID: "req_1", InputTokens: 20, OutputTokens: 100}, meter.Stats{Recorded: 1, Estimated: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := newStand(t, says("application/json", tt.body))
			client, l, transport := metered(t, nil)
			resp := post(t, t.Context(), client, server.URL, chatRequest)
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			wantRows(t, l, expect(tt.want, events.MeasuredByEstimate, events.StatusOK))
			if got := transport.Stats(); got != tt.stats {
				t.Errorf("stats = %+v, want %+v", got, tt.stats)
			}
		})
	}
}

// TestClientSeesWhatTheServerSent: bytes, headers, status and errors alike.
func TestClientSeesWhatTheServerSent(t *testing.T) {
	abort := func(w http.ResponseWriter, r *http.Request) {
		says("text/event-stream", chatChunk("12345678"))(w, r)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	compress := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		io.WriteString(z, chatReply)
		z.Close()
	}
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		rows   int
	}{
		{"a reply", says("application/json", chatReply), 1},
		{"garbage", says("application/json", "\x00\xff{[\"data:"), 1},
		{"nothing", says("application/json", ""), 1},
		{"an error status", fails, 0},
		{"a connection that breaks", abort, 1},
		{"a compressed reply that the client wants compressed", compress, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := newStand(t, tt.answer)
			client, l, _ := metered(t, nil)
			fetch := func(client *http.Client) (status int, h http.Header, body string, length int64, err string) {
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/v1/chat/completions", strings.NewReader(chatRequest))
				req.Header.Set("Accept-Encoding", "gzip")
				resp, e := client.Do(req)
				if e != nil {
					t.Fatal(e)
				}
				defer resp.Body.Close()
				b, e := io.ReadAll(resp.Body)
				if e != nil {
					err = e.Error()
				}
				h = resp.Header.Clone()
				h.Del("Date")
				return resp.StatusCode, h, string(b), resp.ContentLength, err
			}
			s1, h1, b1, l1, e1 := fetch(server.Client())
			s2, h2, b2, l2, e2 := fetch(client)
			if diff := cmp.Diff([]any{s1, h1, b1, l1, e1}, []any{s2, h2, b2, l2, e2}); diff != "" {
				t.Errorf("bare (-) against metered (+):\n%s", diff)
			}
			if rows := l.all(); len(rows) != tt.rows {
				t.Errorf("recorded %+v, want %d rows", rows, tt.rows)
			}
			if tt.name == "a compressed reply that the client wants compressed" && len(l.all()) == 1 && l.all()[0].InputTokens != 10 {
				t.Errorf("recorded %+v, want the provider's figures", l.all()[0])
			}
		})
	}
}

// roundTripper is a base transport that tests look into.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestOtherRequestsPassUntouched(t *testing.T) {
	var seen *http.Request
	answer := &http.Response{StatusCode: 200, Body: http.NoBody}
	transport := meter.NewTransport(meter.Config{
		Port: "p1", Recorder: new(ledger), Gate: &gate{refuseFrom: 1},
		Base: roundTripper(func(r *http.Request) (*http.Response, error) { seen = r; return answer, nil }),
	})
	for _, target := range []string{"GET /v1/chat/completions", "POST /v1/models", "POST /v1/messages/count_tokens", "POST /v1/messages/batches", "POST /v1/threads/t/messages", "POST /v1beta/models/g:countTokens", "POST /v1/responses/resp_1/cancel", "POST /compact", "POST /"} {
		method, path, _ := strings.Cut(target, " ")
		req := httptest.NewRequest(method, "https://api.openai.com"+path, strings.NewReader("{}"))
		resp, err := transport.RoundTrip(req)
		if seen != req || resp != answer || resp.Body != http.NoBody || err != nil {
			t.Errorf("%s was touched", target)
		}
	}
}

func TestDetect(t *testing.T) {
	for url, want := range map[string]meter.Call{
		"https://api.openai.com/v1/chat/completions":                                                                  {API: meter.ChatCompletions, Provider: "openai"},
		"http://localhost:11434/v1/chat/completions/":                                                                 {API: meter.ChatCompletions, Provider: "openai"},
		"https://api.openai.com/v1/completions":                                                                       {API: meter.Completions, Provider: "openai"},
		"https://api.openai.com/v1/embeddings":                                                                        {API: meter.Embeddings, Provider: "openai"},
		"https://api.openai.com/v1/responses":                                                                         {API: meter.Responses, Provider: "openai"},
		"https://api.openai.com/v1/responses/compact":                                                                 {API: meter.Responses, Provider: "openai"},
		"https://x.openai.azure.com/openai/deployments/my%20gpt/chat/completions?api-version=1":                       {API: meter.ChatCompletions, Provider: "azure.openai", Model: "my gpt"},
		"https://X.OpenAI.Azure.com/openai/v1/responses":                                                              {API: meter.Responses, Provider: "azure.openai"},
		"https://proxy.example/azure/openai/deployments/emb/embeddings":                                               {API: meter.Embeddings, Provider: "azure.openai", Model: "emb"},
		"https://api.anthropic.com/v1/messages?beta=true":                                                             {API: meter.Messages, Provider: "anthropic"},
		"https://x.services.ai.azure.com/anthropic/v1/messages":                                                       {API: meter.Messages, Provider: "anthropic"},
		"https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-pro:generateContent":                      {API: meter.GenerateContent, Provider: "google", Model: "gemini-2.5-pro"},
		"https://eu-aiplatform.googleapis.com/v1/projects/p/publishers/google/models/g:streamGenerateContent?alt=sse": {API: meter.GenerateContent, Provider: "google", Model: "g"},
		"https://bedrock-runtime.us-east-1.amazonaws.com/model/us.anthropic.claude-v1%3A0/converse":                   {API: meter.Converse, Provider: "aws.bedrock", Model: "us.anthropic.claude-v1:0"},
		"https://bedrock-runtime.us-east-1.amazonaws.com/model/arn%3Aaws%3Abedrock%2Fx/converse-stream":               {API: meter.Converse, Provider: "aws.bedrock", Model: "arn:aws:bedrock/x"},
	} {
		req, err := http.NewRequest(http.MethodPost, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := meter.Detect(req); !ok || got != want {
			t.Errorf("%s: %+v, %t, want %+v", url, got, ok, want)
		}
	}
}

func TestHoldsAreSettledOrReleased(t *testing.T) {
	lost := errors.New("connection refused")
	respond := func(status int, body string) roundTripper {
		return func(r *http.Request) (*http.Response, error) {
			io.Copy(io.Discard, r.Body)
			return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
		}
	}
	for _, tt := range []struct {
		name     string
		base     roundTripper
		settled  string
		released []string
	}{
		{"a success names the hold", respond(200, chatReply), "hold-1", nil},
		{"a success without usage too", respond(201, `{}`), "hold-1", nil},
		{"an error status gives it back", respond(429, `{}`), "", []string{"p1 hold-1"}},
		{"no connection gives it back", func(*http.Request) (*http.Response, error) { return nil, lost }, "", []string{"p1 hold-1"}},
		{"a connection lost after sending gives it back: the SDK will retry", func(r *http.Request) (*http.Response, error) {
			io.Copy(io.Discard, r.Body)
			return nil, lost
		}, "", []string{"p1 hold-1"}},
		{"a timeout after sending keeps it", func(r *http.Request) (*http.Response, error) {
			io.Copy(io.Discard, r.Body)
			return nil, context.DeadlineExceeded
		}, "hold-1", nil},
		{"a stream that starts with an error gives it back", respond(200, "data: {\"error\":{\"message\":\"overloaded\"}}\n\n"), "", []string{"p1 hold-1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, g := new(ledger), &gate{holds: true}
			transport := meter.NewTransport(meter.Config{Port: "p1", Recorder: l, Reserver: g, HoldTTL: 90 * time.Second, Base: tt.base})
			resp, err := transport.RoundTrip(httptest.NewRequest("POST", "https://h/v1/chat/completions", strings.NewReader(chatRequest)))
			if err == nil {
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			var settled string
			for _, u := range l.all() {
				settled += u.ReservationID
			}
			if settled != tt.settled {
				t.Errorf("settled %q, want %q", settled, tt.settled)
			}
			if diff := cmp.Diff(tt.released, g.released); diff != "" {
				t.Errorf("released: want (-), got (+):\n%s", diff)
			}
			want := events.CheckRequest{PortID: "p1", Feature: "unnamed", EstimatedTokens: 20 + 100}
			if g.ttl != 90 {
				t.Errorf("the hold lives %d s, want 90", g.ttl)
			}
			if diff := cmp.Diff([]events.CheckRequest{want}, g.asked); diff != "" {
				t.Errorf("asked: want (-), got (+):\n%s", diff)
			}
		})
	}
}

// TestGateThatFails: whatever the error is, the verdict is acted on.
func TestGateThatFails(t *testing.T) {
	silent := errors.New("no gate answered")
	for _, tt := range []struct {
		name string
		gate *gate
		rows int
	}{
		{"fail open", &gate{err: silent}, 1},
		{"fail closed", &gate{err: silent, closed: true}, 0},
		{"fail open, reserving", &gate{err: silent, holds: true}, 1},
		{"fail closed, reserving", &gate{err: silent, holds: true, closed: true}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := newStand(t, says("application/json", chatReply))
			client, l, transport := metered(t, tt.gate)
			resp := post(t, t.Context(), client, server.URL, chatRequest)
			_, err := io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if len(l.all()) != tt.rows || server.requests.Load() != int64(tt.rows) || transport.Stats().GateErrors != 1 {
				t.Errorf("%d rows, %d requests, stats %+v; want %d rows and one error counted", len(l.all()), server.requests.Load(), transport.Stats(), tt.rows)
			}
			if refused := errors.Is(err, silent); refused != tt.gate.closed {
				t.Errorf("reading says %v", err)
			}
		})
	}
}

// TestCancelledWhileAsking: the caller gave up; that is no refusal.
func TestCancelledWhileAsking(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	g := &gate{holds: true}
	asking := gateFunc(func(ctx context.Context, r events.ReserveRequest) (*events.Reservation, error) {
		cancel()
		return g.Reserve(ctx, r)
	})
	transport := meter.NewTransport(meter.Config{Port: "p1", Reserver: struct {
		gateFunc
		releaser
	}{asking, g}})
	req := httptest.NewRequest("POST", "https://h/v1/chat/completions", strings.NewReader(chatRequest)).WithContext(ctx)
	if _, err := transport.RoundTrip(req); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v, want context.Canceled", err)
	}
	if diff := cmp.Diff([]string{"p1 hold-1"}, g.released); diff != "" {
		t.Errorf("released: want (-), got (+):\n%s", diff)
	}
}

type gateFunc func(context.Context, events.ReserveRequest) (*events.Reservation, error)

func (f gateFunc) Reserve(ctx context.Context, r events.ReserveRequest) (*events.Reservation, error) {
	return f(ctx, r)
}

type releaser interface {
	Release(ctx context.Context, port, reservationID string) error
}

func TestRefusedWithoutAnSDK(t *testing.T) {
	server := newStand(t, says("application/json", chatReply))
	client, _, _ := metered(t, &gate{refuseFrom: 1})
	client.Timeout = time.Minute // makes http.Client wrap bodies
	resp := post(t, t.Context(), client, server.URL, chatRequest)
	defer resp.Body.Close()
	refused, ok := meter.Refused(resp)
	if !ok || resp.StatusCode != http.StatusPaymentRequired || resp.Header.Get("X-Should-Retry") != "false" {
		t.Fatalf("response %v is not marked as refused", resp)
	}
	const want = "meter: port p1: call of about 120 tokens refused: hard_cap_reached (1000 used and 0 held of 1000)"
	if refused.Error() != want {
		t.Errorf("error %q, want %q", refused, want)
	}

	other := post(t, t.Context(), server.Client(), server.URL, chatRequest)
	defer other.Body.Close()
	if _, ok := meter.Refused(other); ok {
		t.Error("a response of the provider's counts as refused")
	}
}

func TestStreamStopsAtTheHardCap(t *testing.T) {
	forty := strings.Repeat("x", 160) // tokens
	ended := make(chan struct{}, 2)
	endless := func(w http.ResponseWriter, r *http.Request) {
		defer func() { ended <- struct{}{} }()
		w.Header().Set("Content-Type", "text/event-stream")
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, chatChunk(forty)); err != nil {
				return
			}
			w.(http.Flusher).Flush()
		}
	}
	for _, tt := range []struct {
		name  string
		holds bool
		asks  []int64 // the estimates in the questions
	}{
		{"checked", false, []int64{120, 20 + 80, 20 + 160}},
		{"reserved: asked only for what the hold does not cover", true, []int64{120, 20 + 160 - 120, 20 + 240 - 120}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := newStand(t, endless)
			l, g := new(ledger), &gate{refuseFrom: 3, holds: tt.holds}
			base := http.DefaultTransport.(*http.Transport).Clone()
			defer base.CloseIdleConnections()
			cfg := meter.Config{Base: base, Port: "p1", Feature: "chat", User: "u1", Recorder: l, Gate: g, RecheckTokens: 80}
			if tt.holds {
				cfg.Reserver = g
			}
			client := &http.Client{Transport: meter.NewTransport(cfg)}
			resp := post(t, t.Context(), client, server.URL, chatRequest)
			defer resp.Body.Close()
			// One event at a time, so that the questions come at known places.
			buf := make([]byte, len(chatChunk(forty)))
			var err error
			var read int64
			for err == nil {
				if _, err = io.ReadFull(resp.Body, buf); err == nil {
					read++
				}
			}
			var refused *meter.RefusedError
			if !errors.As(err, &refused) || !refused.Streaming {
				t.Fatalf("err = %v, want a RefusedError while streaming", err)
			}
			select {
			case <-ended: // although nobody has closed the body
			case <-time.After(10 * time.Second):
				t.Error("the provider goes on generating")
			}
			if _, again := resp.Body.Read(buf); !errors.Is(again, refused) {
				t.Errorf("reading on says %v, want the same error", again)
			}
			var asked []int64
			for _, r := range g.asked {
				asked = append(asked, r.EstimatedTokens)
			}
			if diff := cmp.Diff(tt.asks, asked); diff != "" {
				t.Errorf("asked: want (-), got (+):\n%s", diff)
			}
			rows := l.all()
			if len(rows) != 1 || rows[0].Status != events.StatusPartial || rows[0].OutputTokens != 40*read {
				t.Errorf("recorded %+v, want one partial row with %d output tokens", rows, 40*read)
			}
		})
	}
}

type panicking struct{}

func (panicking) Record(events.Usage) { panic("recorder") }
func (panicking) Check(context.Context, events.CheckRequest) (events.Verdict, error) {
	panic("gate")
}

func TestPanicsDoNotEscape(t *testing.T) {
	server := newStand(t, says("application/json", chatReply))
	base := http.DefaultTransport.(*http.Transport).Clone()
	defer base.CloseIdleConnections()
	var logged bytes.Buffer
	transport := meter.NewTransport(meter.Config{Base: base, Port: "p1", Recorder: panicking{}, Gate: panicking{}, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	resp := post(t, t.Context(), &http.Client{Transport: transport}, server.URL, chatRequest)
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(body) != chatReply || err != nil {
		t.Errorf("the reply is %q, %v", body, err)
	}
	if got := transport.Stats(); got.Failures != 2 || got.Recorded != 0 {
		t.Errorf("stats = %+v, want two failures", got)
	}
	if !strings.Contains(logged.String(), "gate") {
		t.Errorf("logged %q, want the panic", &logged)
	}
}

func TestNobodyToCountFor(t *testing.T) {
	server := newStand(t, says("application/json", chatReply))
	base := http.DefaultTransport.(*http.Transport).Clone()
	defer base.CloseIdleConnections()
	l, g := new(ledger), &gate{refuseFrom: 1}
	transport := meter.NewTransport(meter.Config{Base: base, Recorder: l, Gate: g, Logger: slog.New(slog.DiscardHandler)})
	client := &http.Client{Transport: transport}
	for _, ctx := range []context.Context{t.Context(), meter.WithPort(t.Context(), "not a port")} {
		resp := post(t, ctx, client, server.URL, chatRequest)
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	if got := transport.Stats(); got != (meter.Stats{Unattributed: 2}) || len(l.all())+len(g.asked) != 0 {
		t.Errorf("stats = %+v, %d rows, %d questions; want two unattributed calls and nothing else", got, len(l.all()), len(g.asked))
	}
}

func TestZeroAndNilTransport(t *testing.T) {
	server := newStand(t, says("application/json", chatReply))
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	for name, transport := range map[string]*meter.Transport{"nil": nil, "zero config": meter.NewTransport(meter.Config{Port: "p1"})} {
		resp := post(t, t.Context(), &http.Client{Transport: transport}, server.URL, chatRequest)
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(body) != chatReply || err != nil {
			t.Errorf("%s: the reply is %q, %v", name, body, err)
		}
		if got := transport.Stats(); got != (meter.Stats{}) {
			t.Errorf("%s: stats = %+v", name, got)
		}
	}
}

// TestRequestArrivesWhole: whatever the body is made of.
func TestRequestArrivesWhole(t *testing.T) {
	var got string
	base := roundTripper(func(r *http.Request) (*http.Response, error) {
		b, err := io.ReadAll(r.Body)
		got = string(b)
		r.Body.Close()
		return &http.Response{StatusCode: 500, Body: http.NoBody}, err
	})
	transport := meter.NewTransport(meter.Config{Port: "p1", Base: base})
	shared := bytes.NewReader([]byte(chatRequest))
	rewind := func() (io.ReadCloser, error) {
		_, err := shared.Seek(0, io.SeekStart)
		return io.NopCloser(shared), err
	}
	for name, body := range map[string]func(*http.Request){
		"a body that cannot be had twice": func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader(chatRequest)) },
		"one reader that is rewound":      func(r *http.Request) { r.Body, r.GetBody = io.NopCloser(shared), rewind },
	} {
		req := httptest.NewRequest("POST", "https://h/v1/chat/completions", nil)
		body(req)
		before := *req
		if _, err := transport.RoundTrip(req); err != nil || got != chatRequest {
			t.Errorf("%s: the base transport read %q, %v", name, got, err)
		}
		if req.Body != before.Body || req.URL != before.URL {
			t.Errorf("%s: the caller's request was changed", name)
		}
	}

	torn := errors.New("torn")
	closed := false
	req := httptest.NewRequest("POST", "https://h/v1/chat/completions", nil)
	req.Body = closer{io.MultiReader(strings.NewReader("{"), failing{torn}), func() { closed = true }}
	if _, err := transport.RoundTrip(req); !errors.Is(err, torn) || !closed {
		t.Errorf("a body that fails: err = %v, closed = %t", err, closed)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

type closer struct {
	io.Reader
	close func()
}

func (c closer) Close() error { c.close(); return nil }

// TestNamesThatEventsCannotCarry: the tokens matter more than the names.
func TestNamesThatEventsCannotCarry(t *testing.T) {
	server := newStand(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", strings.Repeat("r", 300))
		io.WriteString(w, `{"id":"a\u0000b","model":"`+strings.Repeat("m", 200)+`","usage":{"prompt_tokens":10,"completion_tokens":5}}`)
	})
	client, l, _ := metered(t, nil)
	resp := post(t, t.Context(), client, server.URL, chatRequest)
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	wantRows(t, l, expect(events.Usage{Provider: "openai", Model: "unknown", InputTokens: 10, OutputTokens: 5}, events.MeasuredByProvider, events.StatusOK))
	for _, u := range l.all() {
		if err := u.Validate(); err != nil {
			t.Error(err)
		}
	}
}

// TestManyAtOnce: one connection pool, many calls, each booked once.
func TestManyAtOnce(t *testing.T) {
	server := newStand(t, says("application/json", chatReply))
	client, l, _ := metered(t, &gate{holds: true})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				resp := post(t, t.Context(), client, server.URL, chatRequest)
				wg.Go(func() { resp.Body.Close() }) // beside the reading
				io.Copy(io.Discard, resp.Body)
			}
		})
	}
	wg.Wait()
	if n := len(l.all()); n != 400 {
		t.Errorf("recorded %d rows, want 400", n)
	}
}

func TestConnectionsAreReused(t *testing.T) {
	var connections atomic.Int64
	server := httptest.NewUnstartedServer(says("application/json", chatReply))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	client, l, _ := metered(t, nil)
	for range 20 {
		resp := post(t, t.Context(), client, server.URL, chatRequest)
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	if connections.Load() != 1 || len(l.all()) != 20 {
		t.Errorf("%d connections and %d rows for 20 calls, want 1 and 20", connections.Load(), len(l.all()))
	}
}
