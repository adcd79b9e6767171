package meter_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anthropics/anthropic-sdk-go"
	anthropicoption "github.com/anthropics/anthropic-sdk-go/option"
	"github.com/google/go-cmp/cmp"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/responses"
	"google.golang.org/genai"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/meter"
)

// ledger collects what a Transport records.
type ledger struct {
	mu   sync.Mutex
	rows []events.Usage
}

func (l *ledger) Record(u events.Usage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rows = append(l.rows, u)
}

func (l *ledger) all() []events.Usage {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]events.Usage(nil), l.rows...)
}

// stand plays a provider: the n-th request gets the n-th answer, the last one for ever.
type stand struct {
	*httptest.Server
	requests atomic.Int64
	answers  []http.HandlerFunc
}

func newStand(t *testing.T, answers ...http.HandlerFunc) *stand {
	s := &stand{answers: answers}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		n := int(s.requests.Add(1))
		s.answers[min(n, len(s.answers))-1](w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// says answers with body at once.
func says(contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("X-Request-Id", "req_1")
		w.Header().Set("Request-Id", "req_1")
		io.WriteString(w, body)
	}
}

// stallsAfter answers with the beginning of a body and then waits for the client
// to go away.
func stallsAfter(contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		says(contentType, body)(w, r)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
}

func stalls(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func fails(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Retry-After-Ms", "1")
	http.Error(w, `{"error":{"message":"down","type":"server_error"}}`, http.StatusInternalServerError)
}

// sdk is one official client, as a service would use it. client gets the
// Transport; stream calls each for every event, until that returns false.
type sdk struct {
	name    string
	reply   string
	events  []string
	want    events.Usage // but for port, user, feature, measure and status
	wantCut events.Usage // of the first event of the stream alone
	call    func(ctx context.Context, client *http.Client, url string) (text string, err error)
	stream  func(ctx context.Context, client *http.Client, url string, each func() bool) error
}

const question = "What is a marina?"

var sdks = []sdk{
	{
		name:  "openai chat",
		reply: `{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-5-2025","choices":[{"index":0,"message":{"role":"assistant","content":"A harbour."},"finish_reason":"stop"}],"usage":{"prompt_tokens":100,"completion_tokens":40,"total_tokens":140,"prompt_tokens_details":{"cached_tokens":64},"completion_tokens_details":{"reasoning_tokens":32}}}`,
		events: []string{
			`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-5-2025","choices":[{"index":0,"delta":{"role":"assistant","content":"A harbour."},"finish_reason":null}],"usage":null}`,
			`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-5-2025","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}`,
			`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-5-2025","choices":[],"usage":{"prompt_tokens":100,"completion_tokens":40,"total_tokens":140,"prompt_tokens_details":{"cached_tokens":64},"completion_tokens_details":{"reasoning_tokens":32}}}`,
			`data: [DONE]`,
		},
		want: events.Usage{Provider: "openai", Model: "gpt-5-2025", RequestID: "req_1", ResponseID: "chatcmpl-1", InputTokens: 100, OutputTokens: 40,
			Details: events.Details{CacheReadInputTokens: 64, ReasoningOutputTokens: 32}},
		wantCut: events.Usage{Provider: "openai", Model: "gpt-5-2025", RequestID: "req_1", ResponseID: "chatcmpl-1", InputTokens: 33, OutputTokens: 3},
		call: func(ctx context.Context, client *http.Client, url string) (string, error) {
			c, err := openAI(client, url).Chat.Completions.New(ctx, chatParams())
			if err != nil {
				return "", err
			}
			return c.Choices[0].Message.Content, nil
		},
		stream: func(ctx context.Context, client *http.Client, url string, each func() bool) error {
			params := chatParams()
			params.StreamOptions = openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
			s := openAI(client, url).Chat.Completions.NewStreaming(ctx, params)
			defer s.Close()
			for s.Next() && each() {
			}
			return s.Err()
		},
	},
	{
		name:  "openai responses",
		reply: `{"id":"resp_1","object":"response","created_at":1,"status":"completed","error":null,"model":"gpt-5-2025","output":[{"id":"msg_1","type":"message","role":"assistant","status":"completed","content":[{"type":"output_text","text":"A harbour.","annotations":[]}]}],"usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":4,"cache_write_tokens":3},"output_tokens":7,"output_tokens_details":{"reasoning_tokens":5},"total_tokens":16}}`,
		events: []string{
			"event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\",\"status\":\"in_progress\",\"model\":\"gpt-5-2025\",\"output\":[],\"usage\":null}}",
			"event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"item_id\":\"msg_1\",\"delta\":\"A harbour.\"}",
			"event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"resp_1\",\"status\":\"completed\",\"model\":\"gpt-5-2025\",\"output\":[],\"usage\":{\"input_tokens\":9,\"input_tokens_details\":{\"cached_tokens\":4,\"cache_write_tokens\":3},\"output_tokens\":7,\"output_tokens_details\":{\"reasoning_tokens\":5},\"total_tokens\":16}}}",
		},
		want: events.Usage{Provider: "openai", Model: "gpt-5-2025", RequestID: "req_1", ResponseID: "resp_1", InputTokens: 9, OutputTokens: 7,
			Details: events.Details{CacheReadInputTokens: 4, CacheWriteInputTokens: 3, ReasoningOutputTokens: 5}},
		wantCut: events.Usage{Provider: "openai", Model: "gpt-5-2025", RequestID: "req_1", ResponseID: "resp_1", InputTokens: 15},
		call: func(ctx context.Context, client *http.Client, url string) (string, error) {
			r, err := openAI(client, url).Responses.New(ctx, responsesParams())
			if err != nil {
				return "", err
			}
			return r.OutputText(), nil
		},
		stream: func(ctx context.Context, client *http.Client, url string, each func() bool) error {
			s := openAI(client, url).Responses.NewStreaming(ctx, responsesParams())
			defer s.Close()
			for s.Next() && each() {
			}
			return s.Err()
		},
	},
	{
		name:  "anthropic",
		reply: `{"id":"msg_1","type":"message","role":"assistant","model":"claude-x","content":[{"type":"text","text":"A harbour."}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":10,"cache_creation_input_tokens":200,"cache_read_input_tokens":3000,"output_tokens":50,"output_tokens_details":{"thinking_tokens":20}}}`,
		events: []string{
			"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-x\",\"content\":[],\"stop_reason\":null,\"usage\":{\"input_tokens\":10,\"cache_creation_input_tokens\":200,\"cache_read_input_tokens\":3000,\"output_tokens\":2}}}",
			"event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}",
			"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"A harbour.\"}}",
			"event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}",
			"event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":50,\"output_tokens_details\":{\"thinking_tokens\":20}}}",
			"event: message_stop\ndata: {\"type\":\"message_stop\"}",
		},
		want: events.Usage{Provider: "anthropic", Model: "claude-x", RequestID: "req_1", ResponseID: "msg_1", InputTokens: 3210, OutputTokens: 50,
			Details: events.Details{CacheReadInputTokens: 3000, CacheWriteInputTokens: 200, ReasoningOutputTokens: 20}},
		wantCut: events.Usage{Provider: "anthropic", Model: "claude-x", RequestID: "req_1", ResponseID: "msg_1", InputTokens: 3210, OutputTokens: 2,
			Details: events.Details{CacheReadInputTokens: 3000, CacheWriteInputTokens: 200}},
		call: func(ctx context.Context, client *http.Client, url string) (string, error) {
			c := anthropic.NewClient(anthropicoption.WithAPIKey("k"), anthropicoption.WithBaseURL(url), anthropicoption.WithHTTPClient(client))
			m, err := c.Messages.New(ctx, messageParams())
			if err != nil {
				return "", err
			}
			return m.Content[0].Text, nil
		},
		stream: func(ctx context.Context, client *http.Client, url string, each func() bool) error {
			c := anthropic.NewClient(anthropicoption.WithAPIKey("k"), anthropicoption.WithBaseURL(url), anthropicoption.WithHTTPClient(client))
			s := c.Messages.NewStreaming(ctx, messageParams())
			defer s.Close()
			for s.Next() && each() {
			}
			return s.Err()
		},
	},
	{
		name:  "genai",
		reply: `{"candidates":[{"content":{"parts":[{"text":"A harbour."}],"role":"model"},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":30,"cachedContentTokenCount":20,"toolUsePromptTokenCount":7,"candidatesTokenCount":5,"thoughtsTokenCount":11,"totalTokenCount":53},"modelVersion":"gemini-2.5-flash-001","responseId":"r1"}`,
		events: []string{
			`data: {"candidates":[{"content":{"parts":[{"text":"A"}],"role":"model"}}],"usageMetadata":{"promptTokenCount":30,"cachedContentTokenCount":20,"thoughtsTokenCount":11,"totalTokenCount":41},"modelVersion":"gemini-2.5-flash-001","responseId":"r1"}`,
			`data: {"candidates":[{"content":{"parts":[{"text":" harbour."}],"role":"model"},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":30,"cachedContentTokenCount":20,"toolUsePromptTokenCount":7,"candidatesTokenCount":5,"thoughtsTokenCount":11,"totalTokenCount":53},"modelVersion":"gemini-2.5-flash-001","responseId":"r1"}`,
		},
		want: events.Usage{Provider: "google", Model: "gemini-2.5-flash-001", ResponseID: "r1", InputTokens: 37, OutputTokens: 16,
			Details: events.Details{CacheReadInputTokens: 20, ReasoningOutputTokens: 11}},
		wantCut: events.Usage{Provider: "google", Model: "gemini-2.5-flash-001", ResponseID: "r1", InputTokens: 30, OutputTokens: 11,
			Details: events.Details{CacheReadInputTokens: 20, ReasoningOutputTokens: 11}},
		call: func(ctx context.Context, client *http.Client, url string) (string, error) {
			c, err := gemini(ctx, client, url)
			if err != nil {
				return "", err
			}
			r, err := c.Models.GenerateContent(ctx, "gemini-2.5-flash", genai.Text(question), nil)
			if err != nil {
				return "", err
			}
			return r.Text(), nil
		},
		stream: func(ctx context.Context, client *http.Client, url string, each func() bool) error {
			c, err := gemini(ctx, client, url)
			if err != nil {
				return err
			}
			for _, err := range c.Models.GenerateContentStream(ctx, "gemini-2.5-flash", genai.Text(question), nil) {
				if err != nil {
					return err
				}
				if !each() {
					break
				}
			}
			return nil
		},
	},
}

func openAI(client *http.Client, url string) *openai.Client {
	c := openai.NewClient(option.WithAPIKey("k"), option.WithBaseURL(url+"/v1"), option.WithHTTPClient(client))
	return &c
}

func chatParams() openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{Model: "gpt-5", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(question)}}
}

func responsesParams() responses.ResponseNewParams {
	return responses.ResponseNewParams{Model: "gpt-5", Input: responses.ResponseNewParamsInputUnion{OfString: openai.String(question)}}
}

func messageParams() anthropic.MessageNewParams {
	return anthropic.MessageNewParams{Model: "claude-x", MaxTokens: 1024, Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock(question))}}
}

func gemini(ctx context.Context, client *http.Client, url string) (*genai.Client, error) {
	return genai.NewClient(ctx, &genai.ClientConfig{
		APIKey: "k", Backend: genai.BackendGeminiAPI, HTTPClient: client,
		HTTPOptions: genai.HTTPOptions{BaseURL: url, RetryOptions: &genai.HTTPRetryOptions{InitialDelay: new(0.001), MaxDelay: new(0.002)}},
	})
}

func (s sdk) streamBody(n int) string { return strings.Join(s.events[:n], "\n\n") + "\n\n" }

// metered is a client whose calls are metered into a fresh ledger.
func metered(t *testing.T, g *gate) (*http.Client, *ledger, *meter.Transport) {
	l := new(ledger)
	base := http.DefaultTransport.(*http.Transport).Clone()
	t.Cleanup(base.CloseIdleConnections)
	cfg := meter.Config{Base: base, Port: "p1", User: "u1", Feature: "chat", Recorder: l}
	if g != nil {
		cfg.Gate = g
		if g.holds {
			cfg.Reserver = g
		}
	}
	transport := meter.NewTransport(cfg)
	return &http.Client{Transport: transport}, l, transport
}

func expect(u events.Usage, by events.MeasuredBy, status events.Status) []events.Usage {
	u.PortID, u.UserID, u.Feature, u.MeasuredBy, u.Status = "p1", "u1", "chat", by, status
	return []events.Usage{u}
}

func wantRows(t *testing.T, l *ledger, want []events.Usage) {
	t.Helper()
	if diff := cmp.Diff(want, l.all()); diff != "" {
		t.Errorf("recorded: want (-), got (+):\n%s", diff)
	}
}

func TestOneCallIsOneUsage(t *testing.T) {
	for _, s := range sdks {
		t.Run(s.name, func(t *testing.T) {
			server := newStand(t, says("application/json", s.reply))
			client, l, _ := metered(t, nil)
			text, err := s.call(t.Context(), client, server.URL)
			if err != nil || text != "A harbour." {
				t.Errorf("the SDK says %q, %v", text, err)
			}
			wantRows(t, l, expect(s.want, events.MeasuredByProvider, events.StatusOK))
		})
		t.Run(s.name+" streaming", func(t *testing.T) {
			server := newStand(t, says("text/event-stream", s.streamBody(len(s.events))))
			client, l, _ := metered(t, nil)
			if err := s.stream(t.Context(), client, server.URL, func() bool { return true }); err != nil {
				t.Error(err)
			}
			wantRows(t, l, expect(s.want, events.MeasuredByProvider, events.StatusOK))
		})
	}
}

func TestCancelledHalfWayIsOnePartial(t *testing.T) {
	for _, s := range sdks {
		t.Run(s.name+" streaming", func(t *testing.T) {
			server := newStand(t, stallsAfter("text/event-stream", s.streamBody(1)))
			client, l, _ := metered(t, nil)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s.stream(ctx, client, server.URL, func() bool { cancel(); return true })
			wantRows(t, l, expect(s.wantCut, events.MeasuredByPartial, events.StatusPartial))
		})
		t.Run(s.name+" streaming, closed by its reader", func(t *testing.T) {
			server := newStand(t, stallsAfter("text/event-stream", s.streamBody(1)))
			client, l, _ := metered(t, nil)
			s.stream(t.Context(), client, server.URL, func() bool { return false })
			wantRows(t, l, expect(s.wantCut, events.MeasuredByPartial, events.StatusPartial))
		})
		t.Run(s.name+" before an answer", func(t *testing.T) {
			arrived := make(chan struct{})
			server := newStand(t, func(w http.ResponseWriter, r *http.Request) { close(arrived); stalls(w, r) })
			client, l, _ := metered(t, nil)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() { <-arrived; cancel() }()
			if _, err := s.call(ctx, client, server.URL); !errors.Is(err, context.Canceled) {
				t.Errorf("err = %v, want context.Canceled", err)
			}
			onePartial(t, l)
		})
		t.Run(s.name+" in the middle of the JSON", func(t *testing.T) {
			server := newStand(t, stallsAfter("application/json", s.reply[:len(s.reply)/2]))
			client, l, _ := metered(t, nil)
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if _, err := s.call(ctx, client, server.URL); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("err = %v, want context.DeadlineExceeded", err)
			}
			onePartial(t, l)
		})
	}
}

func onePartial(t *testing.T, l *ledger) {
	t.Helper()
	rows := l.all()
	if len(rows) != 1 || rows[0].Status != events.StatusPartial || rows[0].MeasuredBy != events.MeasuredByPartial || rows[0].InputTokens == 0 {
		t.Errorf("recorded %+v, want one partial row with its input", rows)
	}
}

func TestRetriesAreNotBookedTwice(t *testing.T) {
	for _, s := range sdks {
		t.Run(s.name, func(t *testing.T) {
			server := newStand(t, fails, says("application/json", s.reply))
			gate := &gate{holds: true}
			client, l, _ := metered(t, gate)
			if _, err := s.call(t.Context(), client, server.URL); err != nil {
				t.Error(err)
			}
			want := s.want
			want.ReservationID = "hold-2"
			wantRows(t, l, expect(want, events.MeasuredByProvider, events.StatusOK))
			if n := server.requests.Load(); n != 2 {
				t.Errorf("%d requests, want 2", n)
			}
			if diff := cmp.Diff([]string{"p1 hold-1"}, gate.released); diff != "" {
				t.Errorf("released: want (-), got (+):\n%s", diff)
			}
		})
	}
}

// TestRefusedLeavesNothing: at the hard cap no request leaves, the SDK does not
// try again, and the caller gets the typed error.
func TestRefusedLeavesNothing(t *testing.T) {
	for _, s := range sdks {
		for _, streaming := range []bool{false, true} {
			t.Run(map[bool]string{false: s.name, true: s.name + " streaming"}[streaming], func(t *testing.T) {
				server := newStand(t, says("application/json", s.reply))
				gate := &gate{refuseFrom: 1}
				client, l, transport := metered(t, gate)
				var err error
				if streaming {
					err = s.stream(t.Context(), client, server.URL, func() bool { return true })
				} else {
					_, err = s.call(t.Context(), client, server.URL)
				}
				var refused *meter.RefusedError
				if !errors.As(err, &refused) {
					t.Fatalf("err = %v (%T), want a RefusedError", err, err)
				}
				if refused.Port != "p1" || refused.Verdict.Reason != events.ReasonHardCapReached || refused.Streaming {
					t.Errorf("refused = %+v", refused)
				}
				if n := server.requests.Load(); n != 0 {
					t.Errorf("%d requests left the process", n)
				}
				if len(gate.asked) != 1 {
					t.Errorf("the gate was asked %d times, want once: the SDK must not retry", len(gate.asked))
				}
				if rows := l.all(); len(rows) != 0 {
					t.Errorf("recorded %+v", rows)
				}
				if got := transport.Stats(); got != (meter.Stats{Refused: 1}) {
					t.Errorf("stats = %+v", got)
				}
			})
		}
	}
}

// gate answers from a script and writes down what it is asked.
type gate struct {
	refuseFrom int   // from the n-th question on, 0: never
	holds      bool  // it is a Reserver, too
	err        error // beside every verdict
	closed     bool  // and then it refuses

	mu       sync.Mutex
	asked    []events.CheckRequest
	ttl      int64 // of the last reserve
	reserved int
	released []string
}

func (g *gate) Check(_ context.Context, r events.CheckRequest) (events.Verdict, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked = append(g.asked, r)
	if g.refuseFrom > 0 && len(g.asked) >= g.refuseFrom {
		hard := int64(1000)
		return events.Verdict{Reason: events.ReasonHardCapReached, Enabled: true, HardCapTokens: &hard, UsedTokens: 1000}, g.err
	}
	return events.Verdict{Allowed: !g.closed}, g.err
}

func (g *gate) Reserve(ctx context.Context, r events.ReserveRequest) (*events.Reservation, error) {
	v, err := g.Check(ctx, events.CheckRequest{PortID: r.PortID, Feature: r.Feature, UserID: r.UserID, EstimatedTokens: r.EstimatedTokens})
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ttl = r.TTLSeconds
	if v.Allowed {
		g.reserved++
		v.ReservationID, v.GrantedTokens = fmt.Sprintf("hold-%d", g.reserved), r.EstimatedTokens
	}
	return &events.Reservation{Verdict: v}, err
}

func (g *gate) Release(_ context.Context, port, reservation string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.released = append(g.released, port+" "+reservation)
	return nil
}

var (
	_ meter.Gate     = (*events.Client)(nil)
	_ meter.Reserver = (*events.Client)(nil)
	_ meter.Recorder = (*events.Publisher)(nil)
)

// exampleProvider plays Anthropic for the examples.
func exampleProvider() *httptest.Server {
	return httptest.NewServer(says("application/json", sdks[2].reply))
}

func anthropicSays(ctx context.Context, client *http.Client, url string) {
	sdks[2].call(ctx, client, url)
}
