package meter_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/meter"
)

// provided is a base transport that answers everything with one reply.
func provided(contentType, body string, requests *int) roundTripper {
	return func(r *http.Request) (*http.Response, error) {
		*requests++
		if r.Body != nil {
			io.Copy(io.Discard, r.Body)
			r.Body.Close()
		}
		return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(strings.NewReader(body))}, nil
	}
}

// send makes a request with a client and reads its reply.
func send(t *testing.T, client *http.Client, method, url, contentType, body string) error {
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, url, reader)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.ReadAll(resp.Body)
	return err
}

const (
	usage     = `{"id":"r1","object":"chat.completion","model":"m-1","choices":[{"message":{"content":"12345678"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":5}}`
	textAlone = `{"id":"r1","object":"chat.completion","model":"m-1","choices":[{"message":{"content":"12345678"},"finish_reason":"stop"}]}`
)

// TestWhatIsNotMeteredSaysSo: nothing that may be AI passes without a word, and
// nothing else is booked, asked for or counted.
func TestWhatIsNotMeteredSaysSo(t *testing.T) {
	for _, tt := range []struct {
		name, url, body, reply string
		asked                  int
		stats                  meter.Stats
		row                    string // provider, measured by
	}{
		{"an AI service's path that nobody knows", "https://api.openai.com/v1/poems", `{"theme":"sea"}`, `{"poem":"a"}`, 0, meter.Stats{Passed: 1}, ""},
		{"Bedrock's, in any region", "https://bedrock-runtime.eu-north-1.amazonaws.com/model/m/sing", `{}`, `{}`, 0, meter.Stats{Passed: 1}, ""},
		{"a form with a file", "https://api.openai.com/v1/audio/dubbing", "--b", `{}`, 0, meter.Stats{Passed: 1}, ""},
		{"a body for a model, on any host and path, that tells its usage", "https://proxy.example/ask", chatRequest, usage, 1, meter.Stats{Recorded: 1}, "openai provider"},
		{"such a reply of Anthropic's form", "https://proxy.example/ask", chatRequest, `{"type":"message","model":"m","usage":{"input_tokens":3,"cache_read_input_tokens":2,"output_tokens":4}}`, 1, meter.Stats{Recorded: 1}, "anthropic provider"},
		{"Gemini's body", "https://proxy.example/ask", `{"contents":[{"parts":[{"text":"hi"}]}]}`, `{"candidates":[],"usageMetadata":{"promptTokenCount":3,"totalTokenCount":3}}`, 1, meter.Stats{Recorded: 1}, "google provider"},
		{"a reply with text and no usage", "https://proxy.example/ask", chatRequest, textAlone, 1, meter.Stats{Recorded: 1, Estimated: 1}, "openai estimate"},
		{"a reply that nobody can read", "https://proxy.example/ask", chatRequest, `{"answer":42}`, 1, meter.Stats{Passed: 1}, ""},
		{"a messenger on /v1/messages", "https://chat.example/v1/messages", `{"to":"u2","text":"hi"}`, `{"id":"9","text":"hi","status":"sent"}`, 0, meter.Stats{}, ""},
		{"a mailer on /v1/messages", "https://mail.example/v1/messages", `{"messages":[{"to":"u2","body":"hi"}]}`, `{"ok":true}`, 0, meter.Stats{}, ""},
		{"any other service", "https://shop.example/orders", `{"model":"T-800","count":2}`, `{"id":"o1","usage":{"input_tokens":3}}`, 0, meter.Stats{}, ""},
		{"what costs nothing", "https://api.anthropic.com/v1/messages/count_tokens", chatRequest, `{"input_tokens":3}`, 0, meter.Stats{}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var requests int
			var logged bytes.Buffer
			l, g := new(ledger), &gate{holds: true}
			transport := meter.NewTransport(meter.Config{
				Base: provided("application/json", tt.reply, &requests), Port: "p1", Recorder: l, Gate: g,
				Logger: slog.New(slog.NewTextHandler(&logged, nil)),
			})
			contentType := "application/json"
			if tt.body == "--b" {
				contentType = "multipart/form-data; boundary=b"
			}
			if err := send(t, &http.Client{Transport: transport}, "POST", tt.url+"?key=secret", contentType, tt.body); err != nil || requests != 1 {
				t.Errorf("%v after %d requests", err, requests)
			}
			if got := transport.Stats(); got != tt.stats {
				t.Errorf("stats = %+v, want %+v", got, tt.stats)
			}
			if len(g.asked) != tt.asked {
				t.Errorf("the gate was asked %d times, want %d", len(g.asked), tt.asked)
			}
			if want := g.reserved - len(l.all()); len(g.released) != want {
				t.Errorf("%d holds were released, want %d", len(g.released), want)
			}
			var row string
			for _, u := range l.all() {
				row = strings.Trim(row+" "+u.Provider+" "+string(u.MeasuredBy), " ")
			}
			if row != tt.row {
				t.Errorf("recorded %q, want %q", row, tt.row)
			}
			if told := strings.Contains(logged.String(), "passed unmetered"); told != (tt.stats.Passed > 0) || strings.Contains(logged.String(), "secret") {
				t.Errorf("logged %q", &logged)
			}
		})
	}
}

func TestUnmeteredIsLoggedOnceForEachPath(t *testing.T) {
	var requests int
	var logged bytes.Buffer
	transport := meter.NewTransport(meter.Config{Base: provided("application/json", "{}", &requests), Port: "p1", Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	client := &http.Client{Transport: transport}
	for range 3 {
		for _, path := range []string{"poems", "songs"} {
			if err := send(t, client, "POST", "https://api.openai.com/v1/"+path, "application/json", "{}"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if lines := strings.Count(logged.String(), "\n"); lines != 2 || transport.Stats().Passed != 6 {
		t.Errorf("%d lines for %d calls, want 2 for 6:\n%s", lines, transport.Stats().Passed, &logged)
	}
}

func TestUnmeteredRefuse(t *testing.T) {
	var requests int
	l := new(ledger)
	transport := meter.NewTransport(meter.Config{Base: provided("application/json", usage, &requests), Port: "p1", Recorder: l, Unmetered: meter.Refuse})
	client := &http.Client{Transport: transport}
	for _, tt := range []struct {
		url, body string
		refused   bool
	}{
		{"https://api.openai.com/v1/poems", `{}`, true},
		{"https://proxy.example/ask", chatRequest, true},
		{"https://proxy.example/v1/chat/completions", chatRequest, false},
		{"https://api.openai.com/v1/files", `{}`, false},
		{"https://shop.example/orders", `{"model":"T-800"}`, false},
	} {
		before := requests
		err := send(t, client, "POST", tt.url, "application/json", tt.body)
		var unmetered *meter.UnmeteredError
		if refused := errors.As(err, &unmetered); refused != tt.refused || !refused && err != nil || refused != (requests == before) {
			t.Errorf("%s: %v after %d requests, want refused: %t", tt.url, err, requests-before, tt.refused)
		}
		if tt.refused && !strings.Contains(err.Error(), strings.TrimPrefix(tt.url, "https://")) {
			t.Errorf("the error %q does not name %s", err, tt.url)
		}
	}
	if got := transport.Stats(); got.Refused != 2 || got.Recorded != 1 {
		t.Errorf("stats = %+v, want two refused and one recorded", got)
	}
}

// TestDetectNamesWhatNobodyKnows: it may also exempt a path.
func TestDetectNamesWhatNobodyKnows(t *testing.T) {
	var requests int
	l := new(ledger)
	transport := meter.NewTransport(meter.Config{Base: provided("application/json", usage, &requests), Port: "p1", Recorder: l, Unmetered: meter.Refuse,
		Detect: func(r *http.Request) (meter.Call, bool) {
			switch r.URL.Path {
			case "/ask":
				return meter.Call{API: meter.ChatCompletions, Provider: "house"}, true
			case "/warm-up":
				return meter.Call{}, true
			}
			return meter.Detect(r)
		}})
	client := &http.Client{Transport: transport}
	for _, path := range []string{"/ask", "/warm-up"} {
		if err := send(t, client, "POST", "https://proxy.example"+path, "application/json", chatRequest); err != nil {
			t.Error(err)
		}
	}
	if rows := l.all(); len(rows) != 1 || rows[0].Provider != "house" || requests != 2 {
		t.Errorf("recorded %+v after %d requests, want one row of the house's", rows, requests)
	}
}

// TestResultsOfABatchAreBookedOnce: a GET fetches them, perhaps often, perhaps not
// to the end.
func TestResultsOfABatchAreBookedOnce(t *testing.T) {
	line := `{"custom_id":"1","response":{"status_code":200,"body":{"id":"c1","object":"chat.completion","model":"m-1","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5}}}}` + "\n"
	var requests int
	l, g := new(ledger), &gate{refuseFrom: 1}
	transport := meter.NewTransport(meter.Config{Base: provided("application/octet-stream", line+line+line, &requests), Port: "p1", Recorder: l, Gate: g})
	client := &http.Client{Transport: transport}
	const url = "https://api.openai.com/v1/files/file-1/content"
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	io.ReadFull(resp.Body, make([]byte, len(line)+9))
	resp.Body.Close()
	if rows := l.all(); len(rows) != 0 {
		t.Errorf("recorded %+v of a file that was not read to its end", rows)
	}
	for range 2 {
		if err := send(t, client, "GET", url, "", ""); err != nil {
			t.Error(err)
		}
	}
	want := []events.Usage{{PortID: "p1", Feature: "unnamed", Provider: "openai", Model: "m-1", InputTokens: 30, OutputTokens: 15, MeasuredBy: events.MeasuredByProvider, Status: events.StatusOK}}
	if diff := cmp.Diff(want, l.all()); diff != "" || len(g.asked) != 0 {
		t.Errorf("asked %d times; recorded: want (-), got (+):\n%s", len(g.asked), diff)
	}
}
