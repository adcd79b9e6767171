package e2e

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/meter"
)

// TestLimitsBindCallsOfTheTransport: what a limit looks at of a call, meter.Transport tells
// the gate. A call that a limit refuses does not reach its provider; its sister does.
func TestLimitsBindCallsOfTheTransport(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	// A call is held as some 525 tokens, of which 512 are output, and costs 40.
	for _, tt := range []struct {
		name           string
		limit          events.Limit
		spends, passes aiCallOf // the first leaves no room for another like it
		refusedFirst   bool     // not even the first has room
		value          string   // of the refusal
		usedByTheLimit int64
	}{{
		name:   "a model, by its prefix",
		limit:  events.Limit{Match: budget.Match{Model: "gpt-5*"}, Window: budget.Week, Hard: new(int64(550))},
		spends: aiCallOf{model: "gpt-5"}, passes: aiCallOf{model: "o4-mini"}, usedByTheLimit: 40,
	}, {
		name:   "each user",
		limit:  events.Limit{Per: budget.PerUser, Window: budget.Day, Hard: new(int64(550))},
		spends: aiCallOf{model: "gpt-5", user: "ada"}, passes: aiCallOf{model: "gpt-5", user: "bob"}, value: "ada", usedByTheLimit: 40,
	}, {
		name:   "each run",
		limit:  events.Limit{Per: budget.PerRun, Window: budget.Total, Hard: new(int64(550))},
		spends: aiCallOf{model: "gpt-5", run: "run-1"}, passes: aiCallOf{model: "gpt-5", run: "run-2"}, value: "run-1", usedByTheLimit: 40,
	}, {
		name:   "a provider",
		limit:  events.Limit{Match: budget.Match{Provider: "mistral"}, Window: budget.Day, Hard: new(int64(550))},
		spends: aiCallOf{model: "gpt-5", provider: "mistral"}, passes: aiCallOf{model: "gpt-5"}, usedByTheLimit: 40,
	}, {
		name:   "requests",
		limit:  events.Limit{Match: budget.Match{Feature: "chat"}, Unit: budget.Requests, Window: budget.Day, Hard: new(int64(1))},
		spends: aiCallOf{model: "gpt-5", feature: "chat"}, passes: aiCallOf{model: "gpt-5", feature: "ocr"}, usedByTheLimit: 1,
	}, {
		name:   "tokens that weigh more",
		limit:  events.Limit{Match: budget.Match{Model: "gpt-5*"}, Unit: budget.Weighted, Weights: budget.Weights{Output: new(budget.Weight(4 * budget.WeightScale))}, Window: budget.Day, Hard: new(int64(2000))},
		spends: aiCallOf{model: "gpt-5"}, passes: aiCallOf{model: "o4-mini"}, refusedFirst: true,
	}} {
		for how, checkOnly := range map[string]bool{"reserved": false, "checked": true} {
			t.Run(tt.name+", "+how, func(t *testing.T) {
				port := testenv.Must(events.NewUUIDv7(s.now()).MarshalText())
				tt.limit.Name = "watched"
				if _, err := s.client.Set(t.Context(), events.SetRequest{PortID: string(port), Enabled: true, Limits: []events.Limit{tt.limit}}); err != nil {
					t.Fatal(err)
				}
				p := &provider{system: s, port: string(port), cfg: meter.Config{Gate: s.client, CheckOnly: checkOnly}}
				server := httptest.NewServer(p)
				defer server.Close()
				want := int64(0)
				if !tt.refusedFirst {
					if err := p.ask(t.Context(), server, tt.spends); err != nil {
						t.Fatalf("the first call: %v", err)
					}
					want++
					testenv.Eventually(t, "it is booked, and known to the gate", func() bool { return s.booked(p.port) == 40 && s.verified() })
				}
				var refused *meter.RefusedError
				if err := p.ask(t.Context(), server, tt.spends); !errors.As(err, &refused) {
					t.Fatalf("a call beyond the limit: %v", err)
				}
				if v := refused.Verdict; v.Limit != "watched" || v.LimitValue != tt.value || v.UsedTokens != tt.usedByTheLimit || v.Period != tt.limit.Window || *v.HardCapTokens != *tt.limit.Hard {
					t.Errorf("it is refused by %+v", v)
				}
				if n := p.requests.Load(); n != want {
					t.Errorf("%d requests reached the provider, want %d", n, want)
				}
				if err := p.ask(t.Context(), server, tt.passes); err != nil || p.requests.Load() != want+1 {
					t.Errorf("a call that the limit does not count: %v, after %d requests", err, p.requests.Load())
				}
			})
		}
	}
}

// aiCallOf says what is different about a call.
type aiCallOf struct{ model, provider, feature, user, run string }

// provider answers chat completions. Its models have longer names than they are asked by.
type provider struct {
	*system
	port     string
	cfg      meter.Config
	requests atomic.Int64
}

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	p.requests.Add(1)
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"id":"chatcmpl-1","object":"chat.completion","model":"`+r.Header.Get("Model")+`-2026","choices":[{"index":0,"message":{"role":"assistant","content":"A harbour."}}],"usage":{"prompt_tokens":30,"completion_tokens":10,"total_tokens":40}}`)
}

func (p *provider) ask(ctx context.Context, server *httptest.Server, of aiCallOf) error {
	cfg := p.cfg
	cfg.Base, cfg.Port, cfg.User, cfg.Feature, cfg.Recorder = server.Client().Transport, p.port, of.user, of.feature, p.publisher
	if of.provider != "" {
		cfg.Detect = func(r *http.Request) (meter.Call, bool) {
			call, ok := meter.Detect(r)
			call.Provider = of.provider
			return call, ok
		}
	}
	if of.run != "" {
		ctx = meter.WithRun(ctx, of.run)
	}
	ai := openai.NewClient(option.WithAPIKey("k"), option.WithBaseURL(server.URL+"/v1"), option.WithHTTPClient(&http.Client{Transport: meter.NewTransport(cfg)}), option.WithHeader("Model", of.model))
	_, err := ai.Chat.Completions.New(ctx, openai.ChatCompletionNewParams{Model: of.model, MaxCompletionTokens: openai.Int(maxTokens), Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(question)}})
	return err
}
