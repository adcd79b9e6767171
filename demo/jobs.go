package demo

import (
	"fmt"
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
}

var jobs = []job{
	{feature: "ocr", provider: "anthropic", model: "claude-haiku-4-5", input: 1500, output: 180},
	{feature: "summary", provider: "openai", model: "gpt-5-mini", input: 1400, output: 260, reasoning: 0.4},
	{feature: "reply_draft", provider: "anthropic", model: "claude-sonnet-4-5", input: 1600, output: 240, cached: 0.7},
	{feature: "translation", provider: "gemini", model: "gemini-2.5-flash", input: 450, output: 420},
	{feature: "embedding", provider: "openai", model: "text-embedding-3-small", input: 300, background: true},
}

// estimate is what the service says before it knows better: what such a call
// usually takes and a fifth. Small background calls only ask whether anything is
// left. So a port can end a little above its hard cap; reserving would prevent that.
func (j job) estimate() int64 {
	if j.background {
		return 0
	}
	return (j.input + j.output) * 6 / 5
}

// do pretends to call the provider and reads the usage out of its reply.
func (j job) do(port, user string) events.Usage {
	size := 0.6 + 0.8*rand.Float64()
	input, output := int64(float64(j.input)*size), int64(float64(j.output)*size)
	return events.Usage{
		PortID: port, UserID: user, Feature: j.feature, Provider: j.provider, Model: j.model,
		RequestID: fmt.Sprintf("req_demo_%016x", rand.Uint64()), ResponseID: fmt.Sprintf("resp_demo_%016x", rand.Uint64()),
		InputTokens: input, OutputTokens: output,
		Details: events.Details{
			CacheReadInputTokens:  int64(float64(input) * j.cached),
			ReasoningOutputTokens: int64(float64(output) * j.reasoning),
		},
		MeasuredBy: events.MeasuredByProvider, Status: events.StatusOK,
	}
}
