package demo

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/tidegate/tidegate/events"
)

// job is a kind of AI call. Its token figures are what it usually takes.
type job struct {
	feature, provider, model string
	input, output            int64
	cached                   float64 // part of the input that comes from the provider's cache
	reasoning                float64 // part of the output that is reasoning
	background               bool    // no user asked for it
	run                      bool    // it is a step of an agent's run
}

var jobs = []job{
	{feature: "ocr", provider: "anthropic", model: "claude-haiku-4-5", input: 1500, output: 180},
	{feature: "summary", provider: "openai", model: "gpt-5-mini", input: 1400, output: 260, reasoning: 0.4},
	{feature: "reply_draft", provider: "anthropic", model: "claude-sonnet-4-5", input: 1600, output: 240, cached: 0.7},
	{feature: "translation", provider: "gemini", model: "gemini-2.5-flash", input: 450, output: 420},
	{feature: "embedding", provider: "openai", model: "text-embedding-3-small", input: 300, background: true},
}

// agent is a job of histories only: one step takes more than a port with small caps may hold.
var agent = job{feature: "agent", provider: "anthropic", model: "claude-sonnet-4-5", input: 5200, output: 450, cached: 0.85, reasoning: 0.2, run: true}

// A call takes from least to least + spread times its usual tokens.
const (
	least  = 0.6
	spread = 0.8
)

// most is what such a call takes at most: what has to be held for it.
func (j job) most() int64 {
	return int64(math.Ceil((least + spread) * float64(j.input+j.output)))
}

// do pretends to call the provider and reads the usage out of its reply. Near the
// cap it gets by with the tokens that are left: a real service would send a
// shorter text and set max_tokens.
func (j job) do(dice *rand.Rand, granted int64) events.Usage {
	size := least + spread*dice.Float64()
	input, output := int64(float64(j.input)*size), int64(float64(j.output)*size)
	if total := input + output; total > granted {
		output = output * granted / total
		input = granted - output
	}
	return events.Usage{
		Provider: j.provider, Model: j.model,
		RequestID: fmt.Sprintf("req_demo_%016x", dice.Uint64()), ResponseID: fmt.Sprintf("resp_demo_%016x", dice.Uint64()),
		InputTokens: input, OutputTokens: output,
		Details: events.Details{
			CacheReadInputTokens:  int64(float64(input) * j.cached),
			ReasoningOutputTokens: int64(float64(output) * j.reasoning),
		},
		MeasuredBy: events.MeasuredByProvider, Status: events.StatusOK,
	}
}
