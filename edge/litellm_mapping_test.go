package edge

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/consumer/arrival"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity"
)

// litellmCall is a record of LiteLLM's; more are further fields, each of which replaces its own.
func litellmCall(more string) string {
	return `{"id":"chatcmpl-1","trace_id":"t-1","call_type":"acompletion","status":"success","cache_hit":null,"custom_llm_provider":"openai","model":"gpt-5-mini",
		"prompt_tokens":100,"completion_tokens":20,"total_tokens":120,"startTime":1764000000.25,"endTime":1764000001.5,"end_user":"ada","request_tags":["feature:ocr","User-Agent: curl"],
		"metadata":{"user_api_key_team_id":"team-1","user_api_key_team_alias":"Sales Team","user_api_key_alias":"bot","user_api_key_org_id":"org","user_api_key_user_id":"u7",
			"usage_object":{"prompt_tokens":100,"completion_tokens":20,"prompt_tokens_details":{"cached_tokens":60},"completion_tokens_details":{"reasoning_tokens":8}}},
		"messages":[{"role":"user","content":"a secret \ud83d question"}],"response":{"choices":[]}` + more + "}"
}

func TestMapping_Event(t *testing.T) {
	full := mapping{port: "team_id", feature: "tag:feature", user: "end_user", run: "trace_id"}
	good := events.Usage{
		PortID: "team-1", Feature: "ocr", UserID: "ada", RunID: "t-1", Provider: "openai", Model: "gpt-5-mini", ResponseID: "chatcmpl-1", OccurredAt: time.UnixMilli(1764000001500).UTC(),
		InputTokens: 100, OutputTokens: 20, Details: events.Details{CacheReadInputTokens: 60, ReasoningOutputTokens: 8}, MeasuredBy: events.MeasuredByProvider, Status: events.StatusOK,
	}
	usage := func(figures string) string { return `,"metadata":{"usage_object":` + figures + `}` }
	for name, c := range map[string]struct {
		m       mapping
		record  string
		want    func(*events.Usage)
		skipped events.Reason
		refused string // field and rule
	}{
		"a call":           {m: full, record: litellmCall("")},
		"the token's port": {record: litellmCall(""), want: func(u *events.Usage) { u.PortID, u.Feature, u.UserID, u.RunID = "own", "litellm", "", "" }},
		"other sources": {m: mapping{port: "org_id", feature: "key_alias", user: "user_id", run: "tag:User-Agent"}, record: litellmCall(""),
			want: func(u *events.Usage) { u.PortID, u.Feature, u.UserID, u.RunID = "org", "bot", "u7", "curl" }},
		"no such tag":           {m: mapping{feature: "tag:feature"}, record: litellmCall(`,"request_tags":null`), want: func(u *events.Usage) { u.PortID, u.Feature, u.UserID, u.RunID = "own", "litellm", "", "" }},
		"tags of another type":  {m: mapping{port: "team_id", feature: "tag:feature"}, record: litellmCall(`,"request_tags":[1,{"a":2}]`), want: func(u *events.Usage) { u.Feature, u.UserID, u.RunID = "litellm", "", "" }},
		"a user that is number": {m: full, record: litellmCall(`,"end_user":42`), want: func(u *events.Usage) { u.UserID = "42" }},
		"Anthropic's cache, as LiteLLM adds it up": {record: litellmCall(`,"prompt_tokens":1110,"total_tokens":1130` + usage(`{"cache_read_input_tokens":1000,"cache_creation_input_tokens":100}`)),
			want: func(u *events.Usage) {
				u.InputTokens, u.Details = 1110, events.Details{CacheReadInputTokens: 1000, CacheWriteInputTokens: 100}
			}},
		"Anthropic's cache, not added": {record: litellmCall(`,"prompt_tokens":10,"total_tokens":30` + usage(`{"cache_read_input_tokens":1000,"cache_creation_input_tokens":100}`)),
			want: func(u *events.Usage) {
				u.InputTokens, u.Details = 1110, events.Details{CacheReadInputTokens: 1000, CacheWriteInputTokens: 100}
			}},
		"cached tokens in the total only": {record: litellmCall(`,"prompt_tokens":10,"total_tokens":1030` + usage(`{"prompt_tokens_details":{"cached_tokens":1000}}`)),
			want: func(u *events.Usage) {
				u.InputTokens, u.Details = 1010, events.Details{CacheReadInputTokens: 1000}
			}},
		"thoughts in the total only": {record: litellmCall(`,"total_tokens":150` + usage(`{"completion_tokens_details":{"reasoning_tokens":30}}`)),
			want: func(u *events.Usage) { u.OutputTokens, u.Details = 50, events.Details{ReasoningOutputTokens: 30} }},
		"more thoughts than output": {record: litellmCall(usage(`{"completion_tokens_details":{"reasoning_tokens":25}}`)), want: func(u *events.Usage) { u.Details = events.Details{ReasoningOutputTokens: 20} }},
		"usage in the response":     {record: litellmCall(`,"metadata":{},"response":{"usage":{"prompt_tokens_details":{"cached_tokens":7}}}`), want: func(u *events.Usage) { u.Details = events.Details{CacheReadInputTokens: 7} }},
		"a reconstructed model": {m: full, record: litellmCall(`,"custom_llm_provider":"bedrock","model":"bedrock/eu.anthropic.claude/v1"`),
			want: func(u *events.Usage) { u.Provider, u.Model = "aws.bedrock", "eu.anthropic.claude/v1" }},
		"a model with its provider": {m: full, record: litellmCall(`,"custom_llm_provider":null,"model":"gemini/gemini-3-pro"`), want: func(u *events.Usage) { u.Provider, u.Model = "google", "gemini-3-pro" }},
		"a model with a slash":      {m: full, record: litellmCall(`,"custom_llm_provider":"openrouter","model":"meta/llama"`), want: func(u *events.Usage) { u.Provider, u.Model = "openrouter", "meta/llama" }},
		"no model":                  {m: full, record: litellmCall(`,"model":"","model_group":"fast"`), want: func(u *events.Usage) { u.Model = "fast" }},
		"a failure with tokens":     {m: full, record: litellmCall(`,"status":"failure"`), want: func(u *events.Usage) { u.Status = events.StatusError }},
		"a long id":                 {m: full, record: litellmCall(`,"id":"` + strings.Repeat("r", 300) + `"`), want: func(u *events.Usage) { u.ResponseID = "" }},
		"a picture":                 {m: full, record: litellmCall(`,"call_type":"aimage_generation","prompt_tokens":0,"completion_tokens":0,"total_tokens":0,"metadata":{"user_api_key_team_id":"team-1"}`), want: func(u *events.Usage) { u.InputTokens, u.OutputTokens, u.Details = 0, 0, events.Details{} }},

		"a cache hit":   {m: full, record: litellmCall(`,"cache_hit":true`), skipped: "cache_hit"},
		"a failure":     {m: full, record: litellmCall(`,"status":"failure","prompt_tokens":0,"completion_tokens":0,"total_tokens":0,"metadata":{}`), skipped: "failed"},
		"a tool":        {m: full, record: litellmCall(`,"call_type":"call_mcp_tool","prompt_tokens":0,"completion_tokens":0,"total_tokens":0,"metadata":null`), skipped: "no_model_call"},
		"null":          {m: full, record: `null`, refused: "input_tokens must be a whole number"},
		"a text":        {m: full, record: `"x"`, refused: "input_tokens must be a whole number"},
		"no JSON":       {m: full, record: `{"id":"x`, refused: "input_tokens must be a whole number"},
		"the old form":  {m: full, record: `{"id":"x","usage":"Usage(…)"}`, refused: "input_tokens must be a whole number"},
		"tokens":        {m: full, record: litellmCall(`,"prompt_tokens":"many"`), refused: "input_tokens must be a whole number"},
		"half a token":  {m: full, record: litellmCall(`,"completion_tokens":1.5`), refused: "input_tokens must be a whole number"},
		"fewer than 0":  {m: full, record: litellmCall(`,"prompt_tokens":-1,"metadata":{"user_api_key_team_id":"team-1"}`), refused: "input_tokens must"},
		"no port":       {m: full, record: litellmCall(`,"metadata":null`), refused: "port_id"},
		"no legal port": {m: mapping{port: "team_alias"}, record: litellmCall(""), refused: "port_id must be 1 to 64"},
		"a long user":   {m: full, record: litellmCall(`,"end_user":"` + strings.Repeat("u", 129) + `"`), refused: "user_id must be at most 128"},
		"in the future": {m: full, record: litellmCall(`,"endTime":4000000000`), refused: "occurred_at is more than 5 minutes"},
	} {
		t.Run(name, func(t *testing.T) {
			e, skipped := c.m.event([]byte(c.record))
			if skipped != c.skipped {
				t.Fatalf("skipped as %q, want %q", skipped, c.skipped)
			}
			if skipped != "" {
				return
			}
			caller := identity.Caller{Permissions: []string{PermissionReport}}
			if c.m.port == "" {
				caller.Ports = []string{"own"}
			}
			r := litellmReport{mappedReport: mappedReport{report: report{call: &call{caller: caller}, now: time.Now()}}, mapping: c.m}
			u, err := r.decode(e.json(), 0)
			if c.refused != "" {
				field, rule, _ := strings.Cut(c.refused, " ")
				if err == nil || !strings.HasPrefix(err.Error(), field) && !strings.Contains(err.Error(), field+" = ") || !strings.Contains(err.Error(), rule) {
					t.Fatalf("got %+v, %v, want it refused for %s", u, err, c.refused)
				}
				// What goes to the quarantine is refused there, too, and says nothing of what was asked.
				m := r.message(e)
				if u, err := events.DecodeUsage(m.Subject, m.Data); err == nil && c.refused[:3] != "occ" || len(m.Data) > 3000 || strings.Contains(string(m.Data), "secret") {
					t.Errorf("on %s it would be %+v: %s", m.Subject, u, m.Data)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if id, ok := events.ParseUUIDv7(u.ID); !ok || !events.UUIDv7Time(id).Equal(good.OccurredAt) {
				t.Errorf("the id %s has not the call's time", u.ID)
			}
			want := good
			want.ID = u.ID
			if c.m == (mapping{}) && c.want != nil {
				want.PortID, want.Feature, want.UserID, want.RunID = "own", "litellm", "", ""
			}
			if c.want != nil {
				c.want(&want)
			}
			if diff := cmp.Diff(want, u); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// The same record is the same event, and every attempt of a call is another one.
func TestMapping_Identity(t *testing.T) {
	id := func(m mapping, more string) string {
		e, _ := m.event([]byte(litellmCall(more)))
		return e.ID
	}
	m := mapping{port: "team_id"}
	first := id(m, "")
	if again := id(m, `,"response_time":9`); again != first {
		t.Errorf("sent again it is %s, was %s", again, first)
	}
	for what, other := range map[string]string{
		"another id": id(m, `,"id":"chatcmpl-2"`), "another port": id(mapping{port: "org_id"}, ""), "an earlier attempt": id(m, `,"startTime":1764000000`), "a later one": id(m, `,"endTime":1764000001.501`),
	} {
		if other == first {
			t.Errorf("%s: the same event", what)
		}
	}
}

func TestMapping_Query(t *testing.T) {
	for query, want := range map[string]mapping{
		"": {}, "port=team_id": {port: "team_id"}, "port=org_id&feature=tag:task&user=end_user&run=trace_id": {"org_id", "tag:task", "end_user", "trace_id"}, "feature=tag%3Atask": {feature: "tag:task"},
	} {
		if got, err := newMapping(query); err != nil || got != want {
			t.Errorf("%q: got %+v, %v", query, got, err)
		}
	}
	// Whoever calls LiteLLM chooses tags and end users: they must not choose who pays.
	for _, query := range []string{"port=end_user", "port=tag:port", "port=trace_id", "port=user_id", "port=p1", "port=", "port=team_id&port=org_id", "feature=tag:", "feature=ocr", "prt=team_id", "user=team_id;run=x", "%zz"} {
		if got, err := newMapping(query); err == nil {
			t.Errorf("%q: got %+v, want an error", query, got)
		}
	}
}

// FuzzLiteLLM finds no record with which a token of port a reports for another, and none that
// is neither counted, nor kept, nor said to be free.
func FuzzLiteLLM(f *testing.F) {
	for _, record := range []string{litellmCall(""), litellmCall(`,"metadata":{"user_api_key_team_id":"a"}`), litellmCall(`,"metadata":{"user_api_key_team_id":"b"}`), "null", "{}", `{"prompt_tokens":1}`, `{"prompt_tokens":1e300,"endTime":-1e99}`,
		`{"prompt_tokens":9007199254740993,"total_tokens":1e15,"request_tags":["feature:\ud800"]}`, `{"model":"` + strings.Repeat(`\u0001`, 400) + `"}`, litellmCall(`,"metadata":{},"id":"` + strings.Repeat("i", 17_000) + `"`)} {
		f.Add([]byte(record), "port=team_id&feature=tag:feature&user=end_user")
	}
	f.Add([]byte(litellmCall("")), "run=trace_id")
	f.Fuzz(func(t *testing.T, payload []byte, query string) {
		m, err := newMapping(query)
		if err != nil {
			return
		}
		r := litellmReport{mappedReport: mappedReport{report: report{call: &call{caller: identity.Caller{Permissions: []string{PermissionReport}, Ports: []string{"a"}}}, now: time.Now()}}, mapping: m}
		o := r.take(payload)
		if len(r.good)+len(r.refused) != 1 && o.Status != "skipped" {
			t.Fatalf("%+v: %d good, %d refused", o, len(r.good), len(r.refused))
		}
		checkMapped(t, &r.mappedReport)
	})
}

// checkMapped wants nothing in a report of a token of port a that is booked for another, or that
// is refused and the consumer would book.
func checkMapped(t *testing.T, r *mappedReport) {
	t.Helper()
	for _, u := range r.good {
		if u.PortID != "a" || u.ID == "" || u.Validate() != nil {
			t.Errorf("accepted: %+v, %v", u, u.Validate())
		}
	}
	for _, m := range r.refused {
		if m.Subject != "ai.usage.a" || len(m.Data) > 18<<10 {
			t.Errorf("%d bytes to %s: %s", len(m.Data), m.Subject, m.Data)
		}
		u, err := events.DecodeUsage(m.Subject, m.Data)
		if err == nil {
			_, _, err = arrival.Identify(u, arrival.Arrival{Time: r.now}, time.Time{})
		}
		if err == nil {
			t.Errorf("refused, but the consumer would book %+v", u)
		}
	}
}
