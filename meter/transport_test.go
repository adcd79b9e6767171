package meter_test

import (
	"context"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

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
	ctx := meter.WithRun(meter.WithFeature(meter.WithUser(meter.WithPort(t.Context(), "p9"), ""), "summary"), "run-1")
	resp := post(t, ctx, client, server.URL, chatRequest)
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	want := row(10, 5, events.MeasuredByProvider, events.StatusOK)
	want.PortID, want.Feature, want.RunID = "p9", "summary", "run-1"
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
