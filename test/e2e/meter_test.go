package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/anthropics/anthropic-sdk-go"
	anthropicoption "github.com/anthropics/anthropic-sdk-go/option"
	gocmp "github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/responses"
	"github.com/sourcegraph/conc/pool"
	"go.opencensus.io/stats/view"
	"google.golang.org/genai"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/meter"
)

// genai's imports start a worker in an init function; TestMain looks for leaks.
func init() { view.Stop() }

// sdk is one API of an official client. In what the provider says, ✂ is where a
// call that is cancelled half-way ends.
type sdk struct {
	name, json, stream string
	who                string // provider, model, response id
	// Input, output, cache read, cache write, reasoning; ~ is the request's length in tokens.
	whole, cutStream string
	// call asks the provider at url and returns the text of its answer.
	call func(ctx context.Context, client *http.Client, url string, streaming bool) (text string, err error)
}

const question, maxTokens = "What is a marina?", 512 // of each request, so that holds are known

var sdks = []sdk{{
	name: "chat", who: "openai gpt-5-2025 chatcmpl-1", whole: "100 40 64 0 32", cutStream: "~ 3 0 0 0",
	json: `{"id":"chatcmpl-1","object":"chat.completion","model":"gpt-5-2025","choices":[{"index":0,"message":{"role":"assistant","content":"A harbour."},✂"finish_reason":"stop"}],"usage":{"prompt_tokens":100,"completion_tokens":40,"total_tokens":140,"prompt_tokens_details":{"cached_tokens":64},"completion_tokens_details":{"reasoning_tokens":32}}}`,
	stream: sse(`{"id":"chatcmpl-1","object":"chat.completion.chunk","model":"gpt-5-2025","choices":[{"index":0,"delta":{"role":"assistant","content":"A harbour."}}],"usage":null}`,
		`{"id":"chatcmpl-1",✂"object":"chat.completion.chunk","model":"gpt-5-2025","choices":[],"usage":{"prompt_tokens":100,"completion_tokens":40,"total_tokens":140,"prompt_tokens_details":{"cached_tokens":64},"completion_tokens_details":{"reasoning_tokens":32}}}`,
		`[DONE]`),
	call: func(ctx context.Context, client *http.Client, url string, streaming bool) (string, error) {
		ai := openai.NewClient(option.WithAPIKey("k"), option.WithBaseURL(url+"/v1"), option.WithHTTPClient(client))
		params := openai.ChatCompletionNewParams{Model: "gpt-5", MaxCompletionTokens: openai.Int(maxTokens), Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(question)}}
		if streaming {
			params.StreamOptions.IncludeUsage = openai.Bool(true)
			return readAll(ai.Chat.Completions.NewStreaming(ctx, params), func(c openai.ChatCompletionChunk) (text string) {
				for _, choice := range c.Choices {
					text += choice.Delta.Content
				}
				return text
			})
		}
		return textOf(func(r *openai.ChatCompletion) string { return r.Choices[0].Message.Content })(ai.Chat.Completions.New(ctx, params))
	},
}, {
	name: "responses", who: "openai gpt-5-2025 resp_1", whole: "9 7 4 0 5", cutStream: "~ 3 0 0 0",
	json: `{"id":"resp_1","object":"response","status":"completed","model":"gpt-5-2025","output":[{"type":"message","role":"assistant","content":[{"type":"output_text","text":"A harbour."}]}],✂"usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":4},"output_tokens":7,"output_tokens_details":{"reasoning_tokens":5},"total_tokens":16}}`,
	stream: sse(`{"type":"response.created","response":{"id":"resp_1","status":"in_progress","model":"gpt-5-2025","output":[],"usage":null}}`,
		`{"type":"response.output_text.delta","item_id":"msg_1","delta":"A harbour."}`,
		`{"type":"response.completed",✂"response":{"id":"resp_1","status":"completed","model":"gpt-5-2025","usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":4},"output_tokens":7,"output_tokens_details":{"reasoning_tokens":5},"total_tokens":16}}}`),
	call: func(ctx context.Context, client *http.Client, url string, streaming bool) (string, error) {
		ai := openai.NewClient(option.WithAPIKey("k"), option.WithBaseURL(url+"/v1"), option.WithHTTPClient(client))
		params := responses.ResponseNewParams{Model: "gpt-5", MaxOutputTokens: openai.Int(maxTokens), Input: responses.ResponseNewParamsInputUnion{OfString: openai.String(question)}}
		if streaming {
			return readAll(ai.Responses.NewStreaming(ctx, params), func(e responses.ResponseStreamEventUnion) string { return e.Delta })
		}
		return textOf((*responses.Response).OutputText)(ai.Responses.New(ctx, params))
	},
}, {
	name: "anthropic", who: "anthropic claude-x msg_1", whole: "3210 50 3000 200 20", cutStream: "3210 3 3000 200 0",
	json: `{"id":"msg_1","type":"message","role":"assistant","model":"claude-x","content":[{"type":"text","text":"A harbour."}],✂"stop_reason":"end_turn","usage":{"input_tokens":10,"cache_creation_input_tokens":200,"cache_read_input_tokens":3000,"output_tokens":50,"output_tokens_details":{"thinking_tokens":20}}}`,
	stream: sse(`{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"claude-x","content":[],"usage":{"input_tokens":10,"cache_creation_input_tokens":200,"cache_read_input_tokens":3000,"output_tokens":2}}}`,
		`{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`, `{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"A harbour."}}`,
		`{"type":"content_block_stop",✂"index":0}`,
		`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":50,"output_tokens_details":{"thinking_tokens":20}}}`, `{"type":"message_stop"}`),
	call: func(ctx context.Context, client *http.Client, url string, streaming bool) (string, error) {
		ai := anthropic.NewClient(anthropicoption.WithAPIKey("k"), anthropicoption.WithBaseURL(url), anthropicoption.WithHTTPClient(client))
		params := anthropic.MessageNewParams{Model: "claude-x", MaxTokens: maxTokens, Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock(question))}}
		if streaming {
			return readAll(ai.Messages.NewStreaming(ctx, params), func(e anthropic.MessageStreamEventUnion) string { return e.Delta.Text })
		}
		return textOf(func(r *anthropic.Message) string { return r.Content[0].Text })(ai.Messages.New(ctx, params))
	},
}, {
	name: "genai", who: "google gemini-2.5-flash-001 r1", whole: "37 16 20 0 11", cutStream: "30 11 20 0 11",
	json: `{"candidates":[{"content":{"parts":[{"text":"A harbour."}],"role":"model"},"finishReason":"STOP"}],"modelVersion":"gemini-2.5-flash-001","responseId":"r1",✂"usageMetadata":{"promptTokenCount":30,"cachedContentTokenCount":20,"toolUsePromptTokenCount":7,"candidatesTokenCount":5,"thoughtsTokenCount":11,"totalTokenCount":53}}`,
	stream: sse(`{"candidates":[{"content":{"parts":[{"text":"A"}],"role":"model"}}],"usageMetadata":{"promptTokenCount":30,"cachedContentTokenCount":20,"thoughtsTokenCount":11,"totalTokenCount":41},"modelVersion":"gemini-2.5-flash-001","responseId":"r1"}`) + "✂" + sse(
		`{"candidates":[{"content":{"parts":[{"text":" harbour."}],"role":"model"},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":30,"cachedContentTokenCount":20,"toolUsePromptTokenCount":7,"candidatesTokenCount":5,"thoughtsTokenCount":11,"totalTokenCount":53},"modelVersion":"gemini-2.5-flash-001","responseId":"r1"}`),
	call: func(ctx context.Context, client *http.Client, url string, streaming bool) (text string, err error) {
		ai := testenv.Must(genai.NewClient(ctx, &genai.ClientConfig{APIKey: "k", Backend: genai.BackendGeminiAPI, HTTPClient: client,
			HTTPOptions: genai.HTTPOptions{BaseURL: url, RetryOptions: &genai.HTTPRetryOptions{InitialDelay: new(0.001), MaxDelay: new(0.002)}}}))
		limit := &genai.GenerateContentConfig{MaxOutputTokens: maxTokens}
		if streaming {
			for reply, err := range ai.Models.GenerateContentStream(ctx, "gemini-2.5-flash", genai.Text(question), limit) {
				if err != nil {
					return text, err
				}
				text += reply.Text()
			}
			return text, nil
		}
		return textOf((*genai.GenerateContentResponse).Text)(ai.Models.GenerateContent(ctx, "gemini-2.5-flash", genai.Text(question), limit))
	},
}}

func textOf[R any](text func(*R) string) func(*R, error) (string, error) {
	return func(reply *R, err error) (string, error) {
		if err != nil {
			return "", err
		}
		return text(reply), nil
	}
}

func readAll[E any](stream interface {
	Next() bool
	Current() E
	Err() error
	Close() error
}, text func(E) string) (all string, err error) {
	defer stream.Close()
	for stream.Next() {
		all += text(stream.Current())
	}
	return all, stream.Err()
}

var typed = regexp.MustCompile(`(?m)^data: {"type":"([^"]+)"`)

// sse is a stream of events, named after their type where they have one.
func sse(data ...string) string {
	return typed.ReplaceAllString("data: "+strings.Join(data, "\n\ndata: ")+"\n\n", "event: $1\n$0")
}

// aiCall is one call of an SDK, by a port of its own.
type aiCall struct {
	sdk
	port, fate     string // whole, retried or cancelled
	streaming      bool
	before, after  string       // ✂ in the reply
	requests, sent atomic.Int64 // that reached the provider; the bytes of the last
}

// row is what the ledger must say about the call.
func (c *aiCall) row() string {
	requestID, tokens, measured := "req_1", c.whole, "provider ok"
	if c.fate == "cancelled" {
		tokens, measured = map[bool]string{false: "~ 3 0 0 0", true: c.cutStream}[c.streaming], "partial partial"
	} else if c.fate == "retried" {
		requestID = "req_2"
	}
	if c.name == "genai" {
		requestID = "-" // Google sends none
	}
	row := strings.Join([]string{c.port, "u1 reply_draft", c.who, requestID, tokens, measured}, " ")
	return strings.Replace(row, "~", fmt.Sprint((c.sent.Load()+3)/4), 1)
}

// serve plays the call's provider, and looks whether each request that reaches it
// is held: its limit and some input, once.
func (c *aiCall) serve(s *system, t *testing.T, w http.ResponseWriter, r *http.Request) {
	sent, _ := io.Copy(io.Discard, r.Body)
	c.sent.Store(sent)
	n, holds, held := c.requests.Add(1), int64(0), int64(0)
	if err := s.db.QueryRow(r.Context(), "select count(*), coalesce(sum(tokens), 0)::bigint from ai_held_tokens where port_id = $1", c.port).Scan(&holds, &held); err != nil || holds != 1 || held <= maxTokens || held > maxTokens+100 {
		t.Errorf("request %d: %d holds of %d tokens, %v; want one of little more than %d", n, holds, held, err, maxTokens)
	}
	w.Header().Set("X-Request-Id", fmt.Sprintf("req_%d", n)) // OpenAI's name for it
	w.Header().Set("Request-Id", fmt.Sprintf("req_%d", n))   // Anthropic's
	w.Header().Set("X-Amzn-Requestid", fmt.Sprintf("req_%d", n))
	if c.fate == "retried" && n == 1 {
		w.Header().Set("Retry-After-Ms", "1")
		http.Error(w, `{"error":{"message":"down","type":"server_error"}}`, http.StatusInternalServerError)
		return
	}
	contentType := "application/json"
	if c.streaming {
		contentType = cmp.Or(map[string]string{"invoke": "application/vnd.amazon.eventstream", "converse": "application/vnd.amazon.eventstream", "ollama": "application/x-ndjson"}[c.name], "text/event-stream")
	}
	w.Header().Set("Content-Type", contentType)
	io.WriteString(w, c.before)
	if c.fate == "cancelled" {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	} else {
		io.WriteString(w, c.after)
	}
}

// halfway is a base transport and its reply, which cancels when so many bytes have come.
type halfway struct {
	base http.RoundTripper
	io.ReadCloser
	left   int
	cancel func()
}

func (h *halfway) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := h.base.RoundTrip(req)
	if err == nil {
		h.ReadCloser, resp.Body = resp.Body, h
	}
	return resp, err
}

func (h *halfway) Read(p []byte) (int, error) {
	n, err := h.ReadCloser.Read(p)
	if h.left -= n; h.left <= 0 {
		h.cancel()
	}
	return n, err
}

// do makes the call; cfg says who is asked first.
func (c *aiCall) do(s *system, t *testing.T, cfg meter.Config) (text string, err error) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.serve(s, t, w, r) }))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cfg.Base, cfg.Port, cfg.User, cfg.Feature, cfg.Recorder = server.Client().Transport, c.port, "u1", "reply_draft", s.publisher
	if c.fate == "cancelled" {
		cfg.Base = &halfway{base: cfg.Base, left: len(c.before), cancel: cancel}
	}
	return c.call(ctx, &http.Client{Transport: meter.NewTransport(cfg)}, server.URL, c.streaming)
}

func TestEverySDKCallIsOneLedgerRow(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	var calls []*aiCall
	for _, sdk := range slices.Concat(sdks, moreSDKs) {
		for _, fate := range []string{"whole", "retried", "cancelled"} {
			for how, streaming := range map[string]bool{"json": false, "stream": true} {
				c := &aiCall{sdk: sdk, port: sdk.name + "-" + how + "-" + fate, fate: fate, streaming: streaming}
				c.before, c.after, _ = strings.Cut(map[bool]string{false: c.json, true: c.stream}[streaming], "✂")
				s.setBudget(c.port, -1, 1_000_000, events.PeriodMonth)
				calls = append(calls, c)
			}
		}
	}
	// No subtests: each would wait until all tests that began before it have ended.
	together := pool.New().WithMaxGoroutines(8)
	for _, c := range calls {
		together.Go(func() {
			text, err := c.do(s, t, meter.Config{Gate: s.client})
			if n, cancelled := c.requests.Load(), errors.Is(err, context.Canceled); cancelled != (c.fate == "cancelled") || !cancelled && (err != nil || text != "A harbour.") || n == 2 != (c.fate == "retried") {
				t.Errorf("%s: the SDK says %q, %v after %d requests", c.port, text, err, n)
			}
		})
	}
	together.Wait()
	s.mustHoldExactly(calls)
	for _, c := range calls { // with its port at the hard cap, nothing leaves
		used, before := s.booked(c.port), c.requests.Load()
		testenv.Eventually(s.t, "the gate knows what the call cost", func() bool { v := s.check(c.port, 0); return v.UsedTokens == used && v.HeldTokens == 0 })
		s.setBudget(c.port, -1, used, events.PeriodMonth)
		for _, cfg := range []meter.Config{{Gate: s.client, CheckOnly: true}, {Gate: s.client}} {
			text, err := c.do(s, t, cfg)
			var refused *meter.RefusedError
			told := errors.As(err, &refused) && refused.Verdict.Reason == events.ReasonHardCapReached
			if c.name == "ollama" { // which passes on what it reads, not why it cannot go on
				told = err != nil && strings.Contains(err.Error(), string(events.ReasonHardCapReached))
			}
			if !told || c.requests.Load() != before {
				t.Errorf("%s at its hard cap: the SDK says %q, %v, after %d requests; want hard_cap_reached and none", c.port, text, err, c.requests.Load()-before)
			}
		}
	}
	s.mustHoldExactly(calls)
}

// mustHoldExactly waits until all that was recorded is booked, and compares.
func (s *system) mustHoldExactly(calls []*aiCall) {
	s.t.Helper()
	testenv.Eventually(s.t, "all is published and drained", func() bool {
		published := s.publisher.Stats().Pending == 0 // first: what is published later could not be pending yet
		return published && s.waiting() == 0
	})
	var want []string
	for _, c := range calls {
		want = append(want, c.row())
	}
	rows, _ := s.db.Query(s.t.Context(), `select concat_ws(' ', port_id, user_id, feature, provider, model, response_id, coalesce(request_id, '-'), input_tokens, output_tokens,
		cache_read_input_tokens, cache_write_input_tokens, reasoning_output_tokens, measured_by, status) from ai_usage_ledger`)
	got := testenv.Must(pgx.CollectRows(rows, pgx.RowTo[string]))
	if diff := gocmp.Diff(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(got))); diff != "" {
		s.t.Errorf("the ledger: want (-), got (+):\n%s", diff)
	}
	var holds, unsettled int
	if err := s.db.QueryRow(s.t.Context(), "select (select count(*) from ai_held_tokens where tokens > 0), (select count(*) from ai_unsettled_holds)").Scan(&holds, &unsettled); err != nil || holds+unsettled > 0 {
		s.t.Errorf("%d holds are left, %d expired unsettled, %v", holds, unsettled, err)
	}
	if q := s.quarantined(); len(q) > 0 || !s.verified() {
		s.t.Errorf("verified: %v, quarantined: %+v; want a clean ledger and nothing", s.verified(), q)
	}
}
