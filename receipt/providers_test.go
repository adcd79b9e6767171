package receipt_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/receipt"
	"github.com/tidegate/tidegate/receipt/anthropic"
	"github.com/tidegate/tidegate/receipt/openai"
	"github.com/tidegate/tidegate/receipt/picture"
	"github.com/tidegate/tidegate/receipt/receipttest"
)

// providers are those that are reached over HTTP, as url plays them.
var providers = map[string]func(url string) receipt.Provider{
	"openai": func(url string) receipt.Provider {
		return openai.New(openai.Config{APIKey: "key", BaseURL: url + "/v1", Model: "gpt-test"})
	},
	"anthropic": func(url string) receipt.Provider {
		return anthropic.New(anthropic.Config{APIKey: "key", BaseURL: url, Model: "claude-test"})
	},
}

// each runs a test with each provider.
func each(t *testing.T, g func() *gate, stand func() *receipttest.Stand, change func(*receipt.Config), test func(t *testing.T, w *world, s *receipttest.Stand, name string)) {
	t.Helper()
	for name, provider := range providers {
		t.Run(name, func(t *testing.T) {
			s := stand()
			server := httptest.NewServer(s)
			t.Cleanup(server.Close)
			transport := &http.Transport{}
			t.Cleanup(transport.CloseIdleConnections)
			w := start(t, g(), func(c *receipt.Config) {
				c.Provider, c.Transport = provider(server.URL), transport
				if change != nil {
					change(c)
				}
			})
			test(t, w, s, name)
		})
	}
}

func simple() *receipttest.Stand { return &receipttest.Stand{} }

var wantRow = map[string]events.Usage{
	"openai": {PortID: "p1", Feature: "ocr", Provider: "openai", Model: "gpt-test", RequestID: "req_1", ResponseID: "chatcmpl-1", ReservationID: "hold-1",
		InputTokens: 1200, OutputTokens: 90, Details: events.Details{CacheReadInputTokens: 1024, ReasoningOutputTokens: 32}, MeasuredBy: "provider", Status: "ok"},
	"anthropic": {PortID: "p1", Feature: "ocr", Provider: "anthropic", Model: "claude-test", RequestID: "req_1", ResponseID: "msg_1", ReservationID: "hold-1",
		InputTokens: 1200, OutputTokens: 90, Details: events.Details{CacheReadInputTokens: 900}, MeasuredBy: "provider", Status: "ok"},
}

func TestProvidersAreMetered(t *testing.T) {
	each(t, open, simple, nil, func(t *testing.T, w *world, s *receipttest.Stand, name string) {
		r := w.scan("p1")
		if r.Source != "ai" || r.Receipt["total"] != 103.9 || r.Receipt["merchant"] != "Harbour Supply" || r.Receipt["date"] != "2025-03-14" || r.Receipt["currency"] != "MYR" {
			t.Errorf("%s", r.text)
		}
		rows := w.book.all()
		if len(rows) != 1 {
			t.Fatalf("recorded %+v", rows)
		}
		want := wantRow[name]
		want.UserID = rows[0].UserID
		if diff := cmp.Diff(want, rows[0]); diff != "" || want.UserID == "" {
			t.Errorf("recorded: want (-), got (+):\n%s", diff)
		}
		for field, want := range map[string]any{"provider": name, "model": want.Model, "input_tokens": 1200.0, "output_tokens": 90.0, "total_tokens": float64(receipttest.TotalTokens),
			"measured_by": "provider", "request_id": "req_1", "response_id": want.ResponseID, "calls": 1.0} {
			if r.Usage[field] != want {
				t.Errorf("usage.%s is %v, want %v", field, r.Usage[field], want)
			}
		}
		if got := strings.Join(w.gate.asked, ", "); got != "check p1 ocr "+want.UserID+", reserve p1 ocr "+want.UserID {
			t.Errorf("the gate was asked: %s", got)
		}
	})
}

// What is asked names the schema, bounds the output, and has the picture in it.
func TestProvidersAreAskedForAStructure(t *testing.T) {
	each(t, open, simple, nil, func(t *testing.T, w *world, s *receipttest.Stand, name string) {
		w.scan("p1")
		request := s.Requests()[0]
		text, err := json.Marshal(request)
		if err != nil {
			t.Fatal(err)
		}
		var wanted []string
		switch name {
		case "openai":
			wanted = []string{`"strict":true`, `"max_completion_tokens":4096`, `"additionalProperties":false`, `"type":"json_schema"`}
		case "anthropic":
			wanted = []string{`"tool_choice":{"name":"receipt","type":"tool"}`, `"max_tokens":4096`, `"input_schema":`, `"additionalProperties":false`}
		}
		for _, want := range wanted {
			if !strings.Contains(string(text), want) {
				t.Errorf("the request lacks %s: %.2000s", want, text)
			}
		}
		_, data, found := strings.Cut(string(text), "/9j/") // how every JPEG begins in base64
		end := strings.IndexAny(data, `"`)
		if !found || end < 0 {
			t.Fatalf("the request has no picture: %.2000s", text)
		}
		file, err := base64.StdEncoding.DecodeString("/9j/" + data[:end])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := picture.Open(file, 100); err != nil {
			t.Errorf("the picture in the request: %v", err)
		}
	})
}

func TestNonsenseFromProviders(t *testing.T) {
	for name, stand := range map[string]*receipttest.Stand{
		"prose":      {Text: "I am sorry, but I cannot read this."},
		"a number":   {Text: "7"},
		"wrong type": {Text: `{"merchant":7,"date":null,"total":null,"currency":null,"items":[]}`},
		"cut short":  {Ending: "length"},
		"refused":    {Ending: "refusal"},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, open, func() *receipttest.Stand { return &receipttest.Stand{Text: stand.Text, Ending: stand.Ending} }, nil,
				func(t *testing.T, w *world, s *receipttest.Stand, _ string) {
					r := w.scan("p1")
					if r.Source != "manual" || r.Reason != "unreadable-reply" || r.Usage["total_tokens"] != float64(receipttest.TotalTokens) {
						t.Errorf("%s", r.text)
					}
					if rows := w.book.all(); len(rows) != 1 || rows[0].TotalTokens() != receipttest.TotalTokens || len(s.Requests()) != 1 {
						t.Errorf("%d requests, recorded %+v", len(s.Requests()), rows)
					}
				})
		})
	}
}

func down(w http.ResponseWriter) bool {
	w.Header().Set("Retry-After-Ms", "1")
	http.Error(w, `{"type":"error","error":{"type":"api_error","message":"down"}}`, http.StatusInternalServerError)
	return true
}

func TestProvidersThatFail(t *testing.T) {
	for name, c := range map[string]struct {
		then           func(n int, w http.ResponseWriter, r *http.Request) bool
		source         string
		requests, rows int
	}{
		"down once":     {func(n int, w http.ResponseWriter, _ *http.Request) bool { return n == 1 && down(w) }, "ai", 2, 1},
		"down for good": {func(_ int, w http.ResponseWriter, _ *http.Request) bool { return down(w) }, "manual", 2, 0},
		"a wrong key":   {func(_ int, w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(401); return true }, "manual", 1, 0},
		"never answers": {func(_ int, _ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }, "manual", 1, 1},
		"not even JSON": {func(_ int, w http.ResponseWriter, _ *http.Request) bool { fmt.Fprint(w, "<html>"); return true }, "manual", 1, 1},
		"an empty reply": {func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, "{}")
			return true
		}, "manual", 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, open, func() *receipttest.Stand { return &receipttest.Stand{Then: c.then} }, func(cfg *receipt.Config) { cfg.Timeout = time.Second },
				func(t *testing.T, w *world, s *receipttest.Stand, _ string) {
					r := w.scan("p1")
					if r.status != 200 || r.Source != c.source || r.Source == "manual" && r.Reason != "provider-unavailable" && r.Reason != "unreadable-reply" {
						t.Errorf("%d %s", r.status, r.text)
					}
					if rows := w.book.all(); len(rows) != c.rows || len(s.Requests()) != c.requests {
						t.Errorf("%d requests, want %d; recorded %d: %+v, want %d", len(s.Requests()), c.requests, len(rows), rows, c.rows)
					}
				})
		})
	}
}

func TestNoRequestLeavesWhenNothingCanBeHeld(t *testing.T) {
	each(t, func() *gate { return &gate{verdict: capped(900), refuse: events.ReasonEstimateExceedsHardCap} }, simple, nil,
		func(t *testing.T, w *world, s *receipttest.Stand, _ string) {
			r := w.scan("p1")
			if r.Source != "manual" || r.Reason != "budget-exceeded" || r.ResetsAt == "" || r.Usage != nil {
				t.Errorf("%s", r.text)
			}
			if len(s.Requests()) > 0 || len(w.book.all()) > 0 {
				t.Errorf("%d requests left, recorded %+v", len(s.Requests()), w.book.all())
			}
		})
}

// Postgres is down: the gate cannot hold anything, but knows what was used.
func TestChecksWhenNothingCanBeHeld(t *testing.T) {
	holdless := fmt.Errorf("asking: %w", events.ErrUnavailable)
	each(t, func() *gate { return &gate{verdict: capped(900), holdErr: holdless} }, simple, nil,
		func(t *testing.T, w *world, s *receipttest.Stand, _ string) {
			r := w.scan("p1")
			if r.Source != "ai" || r.SoftCapWarning == nil {
				t.Errorf("%s", r.text)
			}
			rows := w.book.all()
			if len(rows) != 1 || rows[0].ReservationID != "" || len(w.gate.asked) != 3 || !strings.HasPrefix(w.gate.asked[2], "check") {
				t.Errorf("the gate was asked %q, recorded %+v", w.gate.asked, rows)
			}
		})
}

// No gate answers and the policy is to go on: asking it again for each call would
// only add its timeout.
func TestAGateThatIsDownIsAskedOnce(t *testing.T) {
	down := fmt.Errorf("asking: %w", events.ErrUnavailable)
	each(t, func() *gate { return &gate{verdict: events.Verdict{Allowed: true}, checkErr: down, holdErr: down} }, simple, nil,
		func(t *testing.T, w *world, s *receipttest.Stand, _ string) {
			if r := w.scan("p1"); r.Source != "ai" || len(w.gate.asked) != 1 || len(w.book.all()) != 1 {
				t.Errorf("the gate was asked %q, recorded %+v: %s", w.gate.asked, w.book.all(), r.text)
			}
		})
}

func TestProvidersWithoutAKey(t *testing.T) {
	t.Setenv("OPENAI_API_KEY", "")
	for name, provider := range map[string]receipt.Provider{"openai": openai.New(openai.Config{}), "anthropic": anthropic.New(anthropic.Config{})} {
		if provider.Name() != name {
			t.Errorf("%s calls itself %s", name, provider.Name())
		}
		w := start(t, open(), func(c *receipt.Config) { c.Provider = provider })
		if r := w.scan("p1"); r.Source != "manual" || r.Reason != "provider-not-configured" || len(w.book.all()) > 0 {
			t.Errorf("%s: %s", name, r.text)
		}
	}
}
