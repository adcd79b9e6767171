package meter_test

import (
	"cmp"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/meter"
)

// TestTheGateHearsWhatLimitsLookAt: provider and model as the request has them, user and
// run of the context, and both parts of the estimate.
func TestTheGateHearsWhatLimitsLookAt(t *testing.T) {
	tooLong := strings.Repeat("m", 129)
	for _, tt := range []struct {
		name, url, body string
		want            events.CheckRequest
	}{
		{"a model in the body", "https://api.openai.com/v1/chat/completions", chatRequest,
			events.CheckRequest{Provider: "openai", Model: "m", EstimatedInputTokens: 20, EstimatedOutputTokens: 100}},
		{"a model in the path", "https://bedrock-runtime.eu-west-1.amazonaws.com/model/claude-x/converse", `{"messages":[{"role":"user"}],"inferenceConfig":{"maxTokens":7}}`,
			events.CheckRequest{Provider: "aws.bedrock", Model: "claude-x", EstimatedInputTokens: 16, EstimatedOutputTokens: 7}},
		{"another provider with the same API", "https://api.groq.com/openai/v1/chat/completions", chatRequest,
			events.CheckRequest{Provider: "groq", Model: "m", EstimatedInputTokens: 20, EstimatedOutputTokens: 100}},
		{"no model", "https://h/v1/chat/completions", `{"messages":[{"role":"user"}],"max_tokens":7}`,
			events.CheckRequest{Provider: "openai", EstimatedInputTokens: 12, EstimatedOutputTokens: 7}},
		{"a model that no event can name", "https://h/v1/chat/completions", `{"model":"` + tooLong + `","messages":[],"max_tokens":7}`,
			events.CheckRequest{Provider: "openai", Model: "unknown", EstimatedInputTokens: 43, EstimatedOutputTokens: 7}},
		{"embeddings have no output", "https://h/v1/embeddings", `{"model":"m","input":"hello"}`,
			events.CheckRequest{Provider: "openai", Model: "m", EstimatedInputTokens: 8}},
		{"a bound beyond what can be asked for", "https://h/v1/chat/completions", `{"model":"m","messages":[],"max_tokens":99999999999999}`,
			events.CheckRequest{Provider: "openai", Model: "m", EstimatedInputTokens: 14, EstimatedOutputTokens: events.MaxTokens - 14}},
	} {
		for how, holds := range map[string]bool{"checked": false, "reserved": true} {
			for body, once := range map[string]bool{"": false, ", its body read once": true} {
				t.Run(tt.name+", "+how+body, func(t *testing.T) {
					g := &gate{holds: holds, refuseFrom: 1}
					cfg := meter.Config{Port: "p1", User: "nobody", Gate: g, CheckOnly: !holds}
					ctx := meter.WithRun(meter.WithUser(meter.WithFeature(t.Context(), "ocr"), "ada"), "run-1")
					req := httptest.NewRequestWithContext(ctx, http.MethodPost, tt.url, strings.NewReader(tt.body))
					if !once {
						req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(tt.body)), nil }
					}
					resp, err := meter.NewTransport(cfg).RoundTrip(req)
					if err != nil {
						t.Fatal(err)
					}
					resp.Body.Close()
					want := tt.want
					want.PortID, want.Feature, want.UserID, want.RunID = "p1", "ocr", "ada", "run-1"
					want.EstimatedTokens = want.EstimatedInputTokens + want.EstimatedOutputTokens
					if diff := gocmp.Diff([]events.CheckRequest{want}, g.asked); diff != "" {
						t.Errorf("asked: want (-), got (+):\n%s", diff)
					}
					if err := g.asked[0].Validate(); err != nil {
						t.Error(err)
					}
				})
			}
		}
	}
}

// TestARefusalNamesItsLimit and who it is for.
func TestARefusalNamesItsLimit(t *testing.T) {
	hard := int64(10)
	for _, tt := range []struct {
		verdict events.Verdict
		want    string
	}{
		{events.Verdict{Limit: "port"}, "refused: hard_cap_reached (10 used and 0 held of 10)"},
		{events.Verdict{Limit: "frontier", Unit: "weighted"}, "refused by limit frontier: hard_cap_reached (10 used and 0 held of 10 weighted tokens)"},
		{events.Verdict{Limit: "calls", LimitValue: "ada", Unit: "requests"}, `refused by limit calls for "ada": hard_cap_reached (10 used and 0 held of 10 requests)`},
	} {
		tt.verdict.Reason, tt.verdict.HardCapTokens, tt.verdict.UsedTokens = events.ReasonHardCapReached, &hard, 10
		err := &meter.RefusedError{Port: "p1", EstimatedTokens: 120, Verdict: tt.verdict}
		if want := "meter: port p1: call of about 120 tokens " + tt.want; err.Error() != want {
			t.Errorf("error %q, want %q", err, want)
		}
	}
}

// TestALimitOnRequestsEndsNoStream: a stream asks for more tokens, and is no other request.
func TestALimitOnRequestsEndsNoStream(t *testing.T) {
	hard, event := int64(1), chatChunk(strings.Repeat("x", 160))
	calls := events.LimitVerdict{Limit: "calls", Unit: "requests", Reason: events.ReasonHardCapReached}
	refuses := events.LimitVerdict{Limit: "each-run", Unit: "tokens", Reason: events.ReasonHardCapReached}
	allows := events.LimitVerdict{Limit: "port", Unit: "tokens", Allowed: true}
	for _, tt := range []struct {
		name   string
		unit   string
		limits []events.LimitVerdict
		ends   bool
	}{
		{"requests only", "requests", []events.LimitVerdict{allows, calls}, false},
		{"tokens too", "requests", []events.LimitVerdict{allows, calls, refuses}, true},
		{"tokens first", "", []events.LimitVerdict{allows, refuses, calls}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := newStand(t, says("text/event-stream", strings.Repeat(event, 20)+"data: [DONE]\n\n"))
			g := &gate{refuseFrom: 2, refusal: events.Verdict{Reason: events.ReasonHardCapReached, HardCapTokens: &hard, Limits: tt.limits}}
			g.refusal.Limit = cmp.Or(map[string]string{"requests": "calls"}[tt.unit], "each-run")
			if tt.unit != "" {
				g.refusal.Unit = calls.Unit
			}
			base := http.DefaultTransport.(*http.Transport).Clone()
			defer base.CloseIdleConnections()
			client := &http.Client{Transport: meter.NewTransport(meter.Config{Base: base, Port: "p1", Gate: g, RecheckTokens: 80})}
			resp := post(t, context.Background(), client, server.URL, chatRequest)
			defer resp.Body.Close()
			// An event at a time, so that there is something to ask in between.
			var err error
			for buf := make([]byte, len(event)); err == nil; {
				_, err = resp.Body.Read(buf)
			}
			if ended := err != io.EOF; ended != tt.ends {
				t.Errorf("reading says %v, want an end: %v", err, tt.ends)
			}
			if len(g.asked) < 2 || !g.asked[1].Explain {
				t.Errorf("asked %+v, want a question again, about each limit", g.asked)
			}
		})
	}
}
