package edge

import (
	"cmp"
	"math"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidegate/tidegate/events"
)

// defaultFeature is that of records without what the mapping names: their tokens must count.
const defaultFeature = "litellm"

// mapping says which fields of LiteLLM's records are the port, feature, user and run of an
// event. It is the query of the callback's endpoint.
type mapping struct{ port, feature, user, run string }

// portSources belong to the key that LiteLLM's administrator made. Callers of LiteLLM choose
// tags, end user and trace themselves: no port may come of those.
var portSources = []string{"team_id", "team_alias", "key_alias", "org_id"}

func newMapping(query string) (m mapping, err error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return m, invalid("query", quoted(query), "must be like ?port=team_id&feature=key_alias")
	}
	fields := map[string]*string{"port": &m.port, "feature": &m.feature, "user": &m.user, "run": &m.run}
	for name, given := range values {
		field := fields[name]
		if field == nil {
			return m, invalid("query", quoted(name), "must be port, feature, user or run")
		}
		*field = given[0]
		known, rule := slices.Contains(portSources, *field), strings.Join(portSources, ", ")
		if name != "port" {
			tag, isTag := strings.CutPrefix(*field, "tag:")
			known = known || isTag && tag != "" || slices.Contains([]string{"user_id", "end_user", "trace_id"}, *field)
			rule += ", user_id, end_user, trace_id, tag:NAME"
		}
		if !known || len(given) > 1 {
			return m, invalid(name, quoted(strings.Join(given, "&")), "must be one of "+rule)
		}
	}
	return m, nil
}

// lenient reads what Python writes.
var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// object is JSON of which nothing is believed: a field of another type than it should be must
// not make LiteLLM's whole batch unreadable.
type object map[string]jsontext.Value

// objectOf is nil, which has no fields, if v is no object.
func objectOf(v jsontext.Value) (o object) {
	if json.Unmarshal(v, &o, lenient) != nil {
		return nil
	}
	return o
}

// text is a string; of another value, its JSON; "" if there is none.
func text(v jsontext.Value) (s string) {
	if len(v) == 0 || v.Kind() == 'n' {
		return ""
	}
	if json.Unmarshal(v, &s, lenient) != nil {
		return string(v)
	}
	return s
}

func number(v jsontext.Value) (f float64, ok bool) {
	if len(v) == 0 || v.Kind() == 'n' {
		return 0, true
	}
	return f, json.Unmarshal(v, &f) == nil
}

func whole(v jsontext.Value) (n int64, ok bool) {
	f, ok := number(v)
	if !ok || f != math.Trunc(f) || math.Abs(f) >= 1<<53 {
		return 0, false
	}
	return int64(f), true
}

// most is the largest of figures that say the same under different names.
func most(of ...jsontext.Value) (n int64) {
	for _, v := range of {
		m, _ := whole(v)
		n = max(n, m)
	}
	return n
}

// event makes an event of one of LiteLLM's records. If the call cost nothing, skipped says why.
// Of what was asked and answered it takes nothing.
func (m mapping) event(payload []byte) (e mappedEvent, skipped events.Reason) {
	r := objectOf(payload)
	meta := objectOf(r["metadata"])
	e = mappedEvent{
		PortID: m.value(m.port, r, meta), Feature: cmp.Or(m.value(m.feature, r, meta), defaultFeature),
		UserID: m.value(m.user, r, meta), RunID: m.value(m.run, r, meta),
		Provider: text(r["custom_llm_provider"]), Model: cmp.Or(text(r["model"]), text(r["model_group"])), Status: events.StatusOK,
		LiteLLM: map[string]string{"id": shortened(text(r["id"])), "call_type": shortened(text(r["call_type"]))},
	}
	for _, source := range portSources {
		e.LiteLLM[source] = shortened(m.value(source, r, meta))
	}
	e.nameRecord()
	if text(r["status"]) == "failure" {
		e.Status = events.StatusError
	}
	e.identifyRecord(r)
	switch {
	case r == nil:
		e.InputTokens = shortened("no record of LiteLLM: " + string(payload[:min(len(payload), 1000)]))
		return e, ""
	case len(r["prompt_tokens"]) == 0:
		e.InputTokens = "the record has no prompt_tokens"
		return e, ""
	}
	e.countRecord(r, meta)
	return e, e.freeRecord(r)
}

// value is that of a record at a source of a mapping.
func (m mapping) value(source string, r, meta object) string {
	if tag, ok := strings.CutPrefix(source, "tag:"); ok {
		var tags []any
		_ = json.Unmarshal(r["request_tags"], &tags, lenient) // no list has no tags
		for _, t := range tags {
			one, _ := t.(string)
			if value, ok := strings.CutPrefix(one, tag+":"); ok {
				return strings.TrimSpace(value)
			}
		}
		return ""
	}
	switch source {
	case "":
		return ""
	case "end_user", "trace_id":
		return text(r[source])
	case "key_alias":
		return text(meta["user_api_key_alias"])
	}
	return text(meta["user_api_key_"+source])
}

// providers are those that LiteLLM calls otherwise than package meter, by how theirs begins.
var providers = []struct{ theirs, ours string }{
	{"vertex_ai", "google"}, {"gemini", "google"}, {"bedrock", "aws.bedrock"}, {"azure", "azure.openai"}, {"text-completion-openai", "openai"},
	{"cohere", "cohere"}, {"ollama", "ollama"}, {"fireworks_ai", "fireworks"}, {"together_ai", "together"}, {"watsonx", "ibm.watsonx"},
	{"nvidia_nim", "nvidia"}, {"dashscope", "alibaba"},
}

// nameRecord says provider and model as other events do: gemini-3-pro of google, not gemini/gemini-3-pro.
func (e *mappedEvent) nameRecord() {
	if before, after, ok := strings.Cut(e.Model, "/"); ok && (before == e.Provider || e.Provider == "") {
		e.Provider, e.Model = before, after
	}
	for _, p := range providers {
		if strings.HasPrefix(e.Provider, p.theirs) {
			e.Provider = p.ours
			return
		}
	}
}

// countRecord reads the tokens. LiteLLM's prompt tokens include what was cached, and its completion
// tokens what was thought, with exceptions.
func (e *mappedEvent) countRecord(r, meta object) {
	input, ok := whole(r["prompt_tokens"])
	output, ok2 := whole(r["completion_tokens"])
	if !ok || !ok2 {
		e.InputTokens, e.OutputTokens = text(r["prompt_tokens"]), text(r["completion_tokens"])
		return
	}
	usage := objectOf(meta["usage_object"])
	if usage == nil {
		usage = objectOf(objectOf(r["response"])["usage"]) // older versions of LiteLLM
	}
	in, out := objectOf(usage["prompt_tokens_details"]), objectOf(usage["completion_tokens_details"])
	read := most(in["cached_tokens"], usage["cache_read_input_tokens"])
	written := most(in["cache_creation_tokens"], usage["cache_creation_input_tokens"])
	total, _ := whole(r["total_tokens"])
	e.count(input, output, total, events.Details{CacheReadInputTokens: read, CacheWriteInputTokens: written,
		// LiteLLM counts what Anthropic's models thought with a tokenizer of its own, which may come out high.
		ReasoningOutputTokens: most(out["reasoning_tokens"])})
}

// identifyRecord derives the event's id from LiteLLM's and the times of the call, so that a record
// that is sent again counts once. LiteLLM's id alone is not enough: attempts of a call share it.
func (e *mappedEvent) identifyRecord(r object) {
	id := text(r["id"])
	if len(id) <= 256 {
		e.ResponseID = id
	}
	end, ok := number(r["endTime"]) // in seconds
	if !ok || end <= 0 || end >= 1<<33 {
		return
	}
	e.identify(int64(end*1000), "litellm", e.PortID, id, text(r["startTime"]), text(r["endTime"]))
}

// modelCalls are the call types of which each counts as a request even without tokens.
var modelCalls = []string{"completion", "text_completion", "embedding", "responses", "anthropic_messages", "generate_content", "generate_content_stream",
	"image_generation", "image_edit", "speech", "transcription", "rerank"}

// freeRecord says why the call cost nothing, "" if it did cost something.
func (e *mappedEvent) freeRecord(r object) events.Reason {
	var hit bool
	_ = json.Unmarshal(r["cache_hit"], &hit) // null: no
	noTokens := e.InputTokens == any(int64(0)) && e.OutputTokens == any(int64(0))
	kind := text(r["call_type"])
	switch {
	case hit:
		return "cache_hit"
	case noTokens && e.Status == events.StatusError:
		return "failed"
	case noTokens && !slices.Contains(modelCalls, kind) && !slices.Contains(modelCalls, strings.TrimPrefix(kind, "a")): // acompletion
		return "no_model_call"
	}
	return ""
}
