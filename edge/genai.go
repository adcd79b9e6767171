package edge

import (
	"cmp"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/tidegate/tidegate/events"
)

// The names of OpenTelemetry's conventions for generative AI (gen-ai/1.42), those of before, and
// those that widespread instrumentations have of their own. None of them is stable: they are here
// and nowhere else. Of several that say the same the first counts that a span has.
var (
	operationNames  = []string{"gen_ai.operation.name", "llm.request.type" /* OpenLLMetry */, "ai.operationId" /* Vercel AI SDK */}
	providerNames   = []string{"gen_ai.provider.name", "gen_ai.system"}
	modelNames      = []string{"gen_ai.response.model", "gen_ai.request.model"}
	responseIDNames = []string{"gen_ai.response.id"}
	errorNames      = []string{"error.type"}

	inputNames      = []string{"gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"}
	outputNames     = []string{"gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"}
	totalNames      = []string{"gen_ai.usage.total_tokens", "llm.usage.total_tokens"}
	cacheReadNames  = []string{"gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens", "gen_ai.usage.input_tokens.cached", "gen_ai.usage.cached_input_tokens"}
	cacheWriteNames = []string{"gen_ai.usage.cache_creation.input_tokens", "gen_ai.usage.cache_write.input_tokens", "gen_ai.usage.cache_creation_input_tokens", "gen_ai.usage.cache_write_input_tokens",
		"gen_ai.usage.input_tokens.cache_write"}
	reasoningNames = []string{"gen_ai.usage.reasoning.output_tokens", "gen_ai.usage.output_tokens.reasoning", "gen_ai.usage.reasoning_tokens"}

	featureNames = []string{"service.name"}
	userNames    = []string{"user.id", "enduser.id"}
	runNames     = []string{"gen_ai.conversation.id"}
)

// modelCallOperations are those in which a model is called. Others (invoke_agent, execute_tool,
// workflows, …) repeat what their children took, or take nothing.
var modelCallOperations = []string{
	"chat", "text_completion", "generate_content", "embeddings",
	"completion", "embedding", // OpenLLMetry's
	"ai.generateText.doGenerate", "ai.streamText.doStream", "ai.generateObject.doGenerate", "ai.streamObject.doStream", "ai.embed.doEmbed", "ai.embedMany.doEmbed",
}

// spanProviders are those that traces call otherwise than package meter, by how theirs begins, in
// small letters.
var spanProviders = []struct{ theirs, ours string }{
	{"azure.ai.openai", "azure.openai"}, {"az.ai.openai", "azure.openai"}, {"azure", "azure.openai"}, {"gcp.", "google"}, {"vertex", "google"}, {"gemini", "google"}, {"google", "google"},
	{"aws", "aws.bedrock"}, {"amazon", "aws.bedrock"}, {"bedrock", "aws.bedrock"}, {"ibm.watsonx", "ibm.watsonx"}, {"watsonx", "ibm.watsonx"},
	{"openai", "openai"}, {"anthropic", "anthropic"}, {"mistral", "mistral"}, {"cohere", "cohere"}, {"x_ai", "xai"}, {"xai", "xai"}, {"moonshot", "moonshot"},
}

const (
	spanFeature = "opentelemetry" // of spans without the attribute that is the feature: their tokens must count
	notNamed    = "unknown"       // provider or model of a span that does not say it
)

// spanMapping says which attributes are the port, feature, user and run of an event. It is the
// query of the endpoint.
type spanMapping struct{ port, feature, user, run []string }

func newSpanMapping(query string) (spanMapping, error) {
	m := spanMapping{feature: featureNames, user: userNames, run: runNames}
	values, err := url.ParseQuery(query)
	if err != nil {
		return m, invalid("query", quoted(query), "must be like ?port=tenant.id&feature=gen_ai.agent.name")
	}
	fields := map[string]*[]string{"port": &m.port, "feature": &m.feature, "user": &m.user, "run": &m.run}
	for name, given := range values {
		field := fields[name]
		switch {
		case field == nil:
			return m, invalid("query", quoted(name), "must be port, feature, user or run")
		case len(given) > 1 || len(given[0]) > 128 || given[0] == "" && name != "user" && name != "run":
			return m, invalid(name, quoted(strings.Join(given, "&")), "must be the name of one attribute, of at most 128 bytes")
		case given[0] == "":
			*field = nil
		default:
			*field = given
		}
	}
	return m, nil
}

// wanted are the attributes that the mapping and the conventions name.
func (m spanMapping) wanted() map[string]bool {
	wanted := map[string]bool{}
	for _, names := range [][]string{operationNames, providerNames, modelNames, responseIDNames, errorNames, inputNames, outputNames, totalNames, cacheReadNames, cacheWriteNames, reasoningNames,
		m.port, m.feature, m.user, m.run} {
		for _, name := range names {
			wanted[name] = true
		}
	}
	return wanted
}

// event makes an event of a span. If there is nothing to count, skipped says why. Of what was
// asked and answered it takes nothing.
func (m spanMapping) event(s *span) (e mappedEvent, skipped events.Reason) {
	tokens := s.find(inputNames) != nil || s.find(outputNames) != nil
	operation := s.text(operationNames)
	switch {
	case !slices.Contains(modelCallOperations, operation) && tokens:
		return e, "no_model_call"
	case !slices.Contains(modelCallOperations, operation):
		return e, "not_ai"
	}
	e = mappedEvent{
		PortID: s.text(m.port), Feature: cmp.Or(s.text(m.feature), spanFeature), UserID: s.text(m.user), RunID: s.text(m.run),
		Provider: spanProvider(s.text(providerNames)), Model: cmp.Or(s.text(modelNames), notNamed), Status: events.StatusOK,
		Span: map[string]string{"trace_id": shortened(s.trace), "span_id": shortened(s.id), "operation": operation, "response_id": shortened(s.text(responseIDNames)), "service": shortened(s.text(featureNames))},
	}
	if s.failed || s.text(errorNames) != "" {
		e.Status = events.StatusError
	}
	if !tokens && e.Status == events.StatusError {
		return e, "failed"
	}
	e.identifySpan(s)
	if !tokens {
		e.InputTokens = "the span has no " + inputNames[0]
		return e, ""
	}
	e.countSpan(s)
	return e, ""
}

func spanProvider(given string) string {
	given = strings.ToLower(given)
	for _, p := range spanProviders {
		if strings.HasPrefix(given, p.theirs) {
			return p.ours
		}
	}
	return cmp.Or(given, notNamed)
}

// identifySpan derives the event's id from the response's, so that a span that is sent again counts
// once, and where there is none from the span's own.
func (e *mappedEvent) identifySpan(s *span) {
	response := s.text(responseIDNames)
	if len(response) <= 256 {
		e.ResponseID = response
	}
	end := cmp.Or(s.end, s.start)
	if end == 0 || response == "" && (s.trace == "" || s.id == "") {
		e.OccurredAt = "the span lacks its ids or its end"
		return
	}
	of := "response\x00" + response
	if response == "" {
		of = "span\x00" + s.trace + "\x00" + s.id
	}
	e.identify(int64(end/1e6), "opentelemetry", e.PortID, of)
}

// countSpan reads the tokens. Cached and reasoning tokens should be within input and output.
func (e *mappedEvent) countSpan(s *span) {
	input, ok := s.count(inputNames)
	output, ok2 := s.count(outputNames)
	if !ok || !ok2 {
		e.InputTokens, e.OutputTokens = s.text(inputNames), s.text(outputNames)
		return
	}
	detail := func(names []string) int64 {
		n, _ := s.count(names)
		return max(n, 0)
	}
	total, reasoning := detail(totalNames), detail(reasoningNames)
	if total == 0 && reasoning > output {
		output += reasoning
	}
	e.count(input, output, total, events.Details{
		CacheReadInputTokens: detail(cacheReadNames), CacheWriteInputTokens: detail(cacheWriteNames), ReasoningOutputTokens: reasoning})
}

// find is the first of these attributes that the span has, or else its resource; nil if there is none.
func (s *span) find(names []string) any {
	for _, of := range []attributes{s.own, s.resource} {
		for _, name := range names {
			if v := of[name]; v != nil {
				return v
			}
		}
	}
	return nil
}

// text is an attribute as text, "" if there is none.
func (s *span) text(names []string) string {
	switch v := s.find(names).(type) {
	case string:
		return v
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case bool:
		return strconv.FormatBool(v)
	}
	return ""
}

// count is an attribute as a whole number, 0 if there is none. Some instrumentations have only texts.
func (s *span) count(names []string) (n int64, ok bool) {
	switch v := s.find(names).(type) {
	case nil:
		return 0, true
	case int64:
		n, ok = v, true
	case float64:
		n, ok = int64(v), v == math.Trunc(v) && math.Abs(v) < 1<<53
	case string:
		var err error
		n, err = strconv.ParseInt(v, 10, 64)
		ok = err == nil
	}
	return n, ok && max(n, -n) < 1<<53
}
