package edge

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity"
)

// chatSpan is a call of a model; more are further attributes, each of which replaces its own, or
// takes it away if it is nil.
func chatSpan(more map[string]any) MadeSpan {
	attributes := map[string]any{
		"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-5-mini", "gen_ai.response.model": "gpt-5-mini-2025-08-07", "gen_ai.response.id": "chatcmpl-1",
		"gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 20, "gen_ai.usage.cache_read.input_tokens": 60, "gen_ai.usage.reasoning.output_tokens": 8,
		"user.id": "ada", "gen_ai.conversation.id": "conv-1", "gen_ai.agent.name": "helper", "gen_ai.input.messages": `[{"role":"user","content":"a secret"}]`,
	}
	maps.Copy(attributes, more)
	maps.DeleteFunc(attributes, func(_ string, v any) bool { return v == nil })
	return MadeSpan{Trace: "5b8efff798038103d269b633813fc60c", ID: "eee19b7ec3c1b174", Start: time.UnixMilli(1764000000000), End: time.UnixMilli(1764000001500).Add(999_999), Attributes: attributes}
}

func TestSpanMapping_Event(t *testing.T) {
	type attrs = map[string]any
	good := events.Usage{
		PortID: "own", Feature: "shop", UserID: "ada", RunID: "conv-1", Provider: "openai", Model: "gpt-5-mini-2025-08-07", ResponseID: "chatcmpl-1", OccurredAt: time.UnixMilli(1764000001500).UTC(),
		InputTokens: 100, OutputTokens: 20, Details: events.Details{CacheReadInputTokens: 60, ReasoningOutputTokens: 8}, MeasuredBy: events.MeasuredByProvider, Status: events.StatusOK,
	}
	old := attrs{"gen_ai.provider.name": nil, "gen_ai.system": "OpenAI", "gen_ai.usage.input_tokens": nil, "gen_ai.usage.output_tokens": nil, "gen_ai.usage.prompt_tokens": 100, "gen_ai.usage.completion_tokens": 20,
		"gen_ai.usage.cache_read.input_tokens": nil, "gen_ai.usage.cache_read_input_tokens": 60}
	failed := chatSpan(attrs{"gen_ai.usage.input_tokens": nil, "gen_ai.usage.output_tokens": nil})
	failed.Failed = true
	failedWithTokens := chatSpan(nil)
	failedWithTokens.Failed = true
	bare := chatSpan(nil)
	bare.End, bare.Start = time.Time{}, time.Time{}
	began := chatSpan(nil)
	began.End = time.Time{}
	tomorrow := chatSpan(nil)
	tomorrow.End = time.Now().Add(time.Hour)
	nobody := chatSpan(attrs{"gen_ai.response.id": nil})
	nobody.ID = ""
	for name, c := range map[string]struct {
		query   string
		span    MadeSpan
		want    func(*events.Usage)
		skipped events.Reason
		refused string // field and rule
	}{
		"a call":                   {span: chatSpan(nil)},
		"old names":                {span: chatSpan(old)},
		"OpenLLMetry":              {span: chatSpan(attrs{"gen_ai.operation.name": nil, "llm.request.type": "chat"})},
		"the Vercel AI SDK":        {span: chatSpan(attrs{"gen_ai.operation.name": nil, "ai.operationId": "ai.streamText.doStream", "gen_ai.provider.name": nil, "gen_ai.system": "openai.responses"})},
		"texts for numbers":        {span: chatSpan(attrs{"gen_ai.usage.input_tokens": "100", "gen_ai.usage.output_tokens": 20.0})},
		"the requested model":      {span: chatSpan(attrs{"gen_ai.response.model": nil}), want: func(u *events.Usage) { u.Model = "gpt-5-mini" }},
		"no model":                 {span: chatSpan(attrs{"gen_ai.response.model": nil, "gen_ai.request.model": nil, "gen_ai.provider.name": nil}), want: func(u *events.Usage) { u.Model, u.Provider = "unknown", "unknown" }},
		"Gemini":                   {span: chatSpan(attrs{"gen_ai.operation.name": "generate_content", "gen_ai.provider.name": "gcp.gemini"}), want: func(u *events.Usage) { u.Provider = "google" }},
		"Azure":                    {span: chatSpan(attrs{"gen_ai.operation.name": "text_completion", "gen_ai.provider.name": "azure.ai.openai"}), want: func(u *events.Usage) { u.Provider = "azure.openai" }},
		"another provider":         {span: chatSpan(attrs{"gen_ai.provider.name": "Groq"}), want: func(u *events.Usage) { u.Provider = "groq" }},
		"a mapping":                {query: "port=tenant.id&feature=gen_ai.agent.name&user=&run=service.name", span: chatSpan(nil), want: func(u *events.Usage) { u.PortID, u.Feature, u.UserID, u.RunID = "team-1", "helper", "", "shop" }},
		"a span over its resource": {span: chatSpan(attrs{"service.name": "checkout"}), want: func(u *events.Usage) { u.Feature = "checkout" }},
		"no such feature":          {query: "feature=none", span: chatSpan(nil), want: func(u *events.Usage) { u.Feature = "opentelemetry" }},
		"a user that is number":    {span: chatSpan(attrs{"user.id": nil, "enduser.id": 42}), want: func(u *events.Usage) { u.UserID = "42" }},
		"a failure with tokens":    {span: failedWithTokens, want: func(u *events.Usage) { u.Status = events.StatusError }},
		"an error":                 {span: chatSpan(attrs{"error.type": "timeout"}), want: func(u *events.Usage) { u.Status = events.StatusError }},
		"a long response id":       {span: chatSpan(attrs{"gen_ai.response.id": strings.Repeat("r", 300)}), want: func(u *events.Usage) { u.ResponseID = "" }},
		"no response id":           {span: chatSpan(attrs{"gen_ai.response.id": nil}), want: func(u *events.Usage) { u.ResponseID = "" }},
		"no end":                   {span: began, want: func(u *events.Usage) { u.OccurredAt = time.UnixMilli(1764000000000).UTC() }},
		"embeddings": {span: chatSpan(attrs{"gen_ai.operation.name": "embeddings", "gen_ai.usage.output_tokens": nil, "gen_ai.usage.reasoning.output_tokens": nil}),
			want: func(u *events.Usage) { u.OutputTokens, u.Details.ReasoningOutputTokens = 0, 0 }},
		"Anthropic's cache, not added": {span: chatSpan(attrs{"gen_ai.usage.input_tokens": 10, "gen_ai.usage.cache_read.input_tokens": 1000, "gen_ai.usage.cache_creation.input_tokens": 100}),
			want: func(u *events.Usage) {
				u.InputTokens, u.Details.CacheReadInputTokens, u.Details.CacheWriteInputTokens = 1110, 1000, 100
			}},
		"thoughts beside the output":  {span: chatSpan(attrs{"gen_ai.usage.reasoning.output_tokens": 30}), want: func(u *events.Usage) { u.OutputTokens, u.Details.ReasoningOutputTokens = 50, 30 }},
		"thoughts in the total only":  {span: chatSpan(attrs{"gen_ai.usage.reasoning.output_tokens": nil, "llm.usage.total_tokens": 150}), want: func(u *events.Usage) { u.OutputTokens, u.Details.ReasoningOutputTokens = 50, 0 }},
		"more thoughts than in total": {span: chatSpan(attrs{"gen_ai.usage.reasoning.output_tokens": 30, "gen_ai.usage.total_tokens": 120}), want: func(u *events.Usage) { u.Details.ReasoningOutputTokens = 20 }},

		"an agent":               {span: chatSpan(attrs{"gen_ai.operation.name": "invoke_agent"}), skipped: "no_model_call"},
		"a workflow":             {span: chatSpan(attrs{"gen_ai.operation.name": nil, "ai.operationId": "ai.streamText"}), skipped: "no_model_call"},
		"tokens of no operation": {span: chatSpan(attrs{"gen_ai.operation.name": nil}), skipped: "no_model_call"},
		"a tool":                 {span: chatSpan(attrs{"gen_ai.operation.name": "execute_tool", "gen_ai.usage.input_tokens": nil, "gen_ai.usage.output_tokens": nil}), skipped: "not_ai"},
		"a failure":              {span: failed, skipped: "failed"},

		"no tokens":     {span: chatSpan(attrs{"gen_ai.usage.input_tokens": nil, "gen_ai.usage.output_tokens": nil}), refused: "input_tokens must be a whole number"},
		"words":         {span: chatSpan(attrs{"gen_ai.usage.input_tokens": "many"}), refused: "input_tokens must be a whole number"},
		"half a token":  {span: chatSpan(attrs{"gen_ai.usage.output_tokens": 1.5}), refused: "input_tokens must be a whole number"},
		"too many":      {span: chatSpan(attrs{"gen_ai.usage.input_tokens": 1 << 60}), refused: "input_tokens must be a whole number"},
		"fewer than 0":  {span: chatSpan(attrs{"gen_ai.usage.input_tokens": -1, "gen_ai.usage.cache_read.input_tokens": nil}), refused: "input_tokens must"},
		"no legal port": {query: "port=gen_ai.input.messages", span: chatSpan(nil), refused: "port_id must be 1 to 64"},
		"no port":       {query: "port=none", span: chatSpan(nil), refused: "port_id"},
		"a long user":   {span: chatSpan(attrs{"user.id": strings.Repeat("u", 129)}), refused: "user_id must be at most 128"},
		"no time":       {span: bare, refused: "occurred_at must be a time"},
		"no ids":        {span: nobody, refused: "occurred_at must be a time"},
		"in the future": {span: tomorrow, refused: "occurred_at is more than 5 minutes"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := newSpanMapping(c.query)
			if err != nil {
				t.Fatal(err)
			}
			var s *span
			reader := newSpanReader(m.wanted(), func(found *span) error { s = found; return nil })
			if err := reader.protobuf(Protobuf(map[string]any{"service.name": "shop", "tenant.id": "team-1"}, c.span)); err != nil {
				t.Fatal(err)
			}
			e, skipped := m.event(s)
			if skipped != c.skipped {
				t.Fatalf("skipped as %q, want %q", skipped, c.skipped)
			}
			if skipped != "" {
				return
			}
			caller := identity.Caller{Permissions: []string{PermissionReport}}
			if m.port == nil {
				caller.Ports = []string{"own"}
			}
			r := mappedReport{report: report{call: &call{caller: caller}, now: time.Now()}}
			u, wrong := r.add(e, 0)
			if c.refused != "" {
				field, rule, _ := strings.Cut(c.refused, " ")
				if wrong == nil || wrong.Field != field || !strings.Contains(wrong.Rule, rule) {
					t.Fatalf("got %+v, %v, want it refused for %s", u, wrong, c.refused)
				}
				if data := string(r.refused[0].Data); len(data) > 3000 || strings.Contains(data, "secret") != strings.Contains(c.query, "messages") || !strings.Contains(data, `"trace_id":"5b8efff798038103d269b633813fc60c"`) {
					t.Errorf("to the quarantine goes %s", data)
				}
				return
			}
			if wrong != nil {
				t.Fatal(wrong)
			}
			want := good
			want.ID = u.ID
			if c.want != nil {
				c.want(&want)
			}
			if diff := cmp.Diff(want, u); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if id, ok := events.ParseUUIDv7(u.ID); !ok || !events.UUIDv7Time(id).Equal(want.OccurredAt) {
				t.Errorf("the id %s has not the call's time", u.ID)
			}
		})
	}
}

// The same call is the same event, in whichever span; what is another one is another event.
func TestSpanMapping_Identity(t *testing.T) {
	id := func(query string, change func(*MadeSpan)) string {
		m, err := newSpanMapping(query)
		if err != nil {
			t.Fatal(err)
		}
		made := chatSpan(nil)
		change(&made)
		var e mappedEvent
		reader := newSpanReader(m.wanted(), func(s *span) error { e, _ = m.event(s); return nil })
		if err := reader.json(JSON(map[string]any{"tenant.id": "team-1"}, made)); err != nil {
			t.Fatal(err)
		}
		return e.ID
	}
	unnamed := func(s *MadeSpan) { delete(s.Attributes, "gen_ai.response.id") }
	first, own := id("", func(*MadeSpan) {}), id("", unnamed)
	if again := id("", func(s *MadeSpan) { s.ID, s.Start = "aaaaaaaaaaaaaaaa", s.Start.Add(time.Second) }); again != first {
		t.Errorf("the same response in another span is %s, was %s", again, first)
	}
	if again := id("", func(s *MadeSpan) { unnamed(s); s.Trace, s.ID = strings.ToUpper(s.Trace), strings.ToUpper(s.ID) }); again != own {
		t.Errorf("the same span in capitals is %s, was %s", again, own)
	}
	seen := map[string]string{first: "a response"}
	for what, other := range map[string]string{
		"its span": own, "another response": id("", func(s *MadeSpan) { s.Attributes["gen_ai.response.id"] = "chatcmpl-2" }), "another port": id("port=tenant.id", func(*MadeSpan) {}),
		"another time": id("", func(s *MadeSpan) { s.End = s.End.Add(time.Millisecond) }), "another span": id("", func(s *MadeSpan) { unnamed(s); s.ID = "aaaaaaaaaaaaaaaa" }),
		"another trace": id("", func(s *MadeSpan) { unnamed(s); s.Trace = strings.Repeat("a", 32) }),
	} {
		if seen[other] != "" {
			t.Errorf("%s and %s are one event", what, seen[other])
		}
		seen[other] = what
	}
}

func TestSpanMapping_Query(t *testing.T) {
	for _, query := range []string{"prt=x", "port=", "feature=", "port=a&port=b", "user=" + strings.Repeat("u", 129), "%zz", "user=a;run=b"} {
		if got, err := newSpanMapping(query); err == nil {
			t.Errorf("%q: got %+v, want an error", query, got)
		}
	}
}
