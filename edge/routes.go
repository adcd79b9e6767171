package edge

import (
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidegate/tidegate/events"
)

// route is one operation: who may, what it takes, what it gives. edge/openapi.json says the
// same, because it is made from this.
type route struct {
	method, path string
	permission   string // empty: nobody may
	maxBody      int64

	id, summary, about string
	body               any // as a zero value; nil: nothing is read
	reply              any // of a success, as a zero value; nil: 204
	fails              []int
	key                bool // it takes an Idempotency-Key
	query              []parameter

	handle func(*Edge, *call) error
}

// parameter is one of an address' query.
type parameter struct{ name, about string }

// routes is all there is. Whoever adds one says here who may.
var routes = []route{
	{
		method: http.MethodPost, path: "/v1/usage", permission: PermissionReport, maxBody: maxUsageBytes, key: true,
		id: "reportUsage", summary: "Report what AI calls cost",
		about: "One event, a JSON array of them, or one a line (application/x-ndjson); gzip if you like; at most 1 MiB, before and after inflating, and 5,000 events. The answer comes when JetStream has stored them, and says of each " +
			"what became of it: 200 all are accepted, 207 some are refused, 422 or 403 all are.",
		body: event{}, reply: usageReply{}, fails: []int{207, 408, 413, 415}, handle: (*Edge).reportUsage,
	},
	{
		method: http.MethodPost, path: "/v1/integrations/litellm", permission: PermissionReport, maxBody: maxLiteLLMBytes,
		id: "reportLiteLLM", summary: "Report what went through LiteLLM",
		about: "Takes what LiteLLM's generic_api callback posts: one StandardLoggingPayload, a JSON array of them, or one a line; gzip if you like; at most 8 MiB, before and after inflating, and 5,000 records. What cannot be an event goes to the " +
			"quarantine with the reason, and the answer is 207. Calls that cost nothing are skipped. Nothing is kept of what was asked and answered. See docs/integrations/litellm.md.",
		query: []parameter{
			{"port", "The field that is the port: team_id, team_alias, key_alias or org_id. Left out: the token's port."},
			{"feature", "The field that is the feature: one of those, user_id, end_user, trace_id, or tag:NAME for what follows \"NAME:\" in a tag. Left out, or missing in a record: litellm."},
			{"user", "The field that is the user, as for feature. Left out: none."},
			{"run", "The field that is the run, as for feature. Left out: none."},
		},
		body: litellmRecord{}, reply: litellmReply{}, fails: []int{207, 408, 413, 415}, handle: (*Edge).reportLiteLLM,
	},
	{
		method: http.MethodPost, path: "/v1/traces", permission: PermissionReport, maxBody: maxUsageBytes,
		id: "reportTraces", summary: "Report what OpenTelemetry traced",
		about: "Takes traces as OTLP over HTTP sends them, in protobuf or JSON; gzip if you like; at most 1 MiB, before and after inflating, and 5,000 calls of models. Spans of such calls become events; other spans are not looked at. " +
			"What cannot be an event goes to the quarantine and counts as rejected. Nothing is kept of what was asked and answered. See docs/integrations/opentelemetry.md.",
		query: []parameter{
			{"port", "The attribute, of a span or its resource, that is the port. Left out: the token's port."},
			{"feature", "The attribute that is the feature. Left out: service.name; of a span without it: opentelemetry."},
			{"user", "The attribute that is the user. Left out: user.id, else enduser.id. Empty: there is none."},
			{"run", "The attribute that is the run. Left out: gen_ai.conversation.id. Empty: there is none."},
		},
		body: otlpTraces{}, reply: tracesReply{}, fails: []int{408, 413, 415}, handle: (*Edge).reportTraces,
	},
	{
		method: http.MethodPost, path: "/v1/ports/{port}/check", permission: PermissionReserve, maxBody: events.MaxPayloadBytes,
		id: "check", summary: "Ask whether a port may spend", about: "Holds nothing. A refusal is a 200 with allowed: false.",
		body: events.CheckRequest{}, reply: events.Verdict{}, fails: []int{408, 413, 415}, handle: (*Edge).check,
	},
	{
		method: http.MethodPost, path: "/v1/ports/{port}/reserve", permission: PermissionReserve, maxBody: events.MaxPayloadBytes, key: true,
		id: "reserve", summary: "Hold tokens for a call", about: "Like a check, and holds the estimate until the usage is reported with the reservation's id, until it is released, or until it expires. A refusal is a 200 with allowed: false.",
		body: events.ReserveRequest{}, reply: events.Verdict{}, fails: []int{408, 409, 413, 415}, handle: (*Edge).reserve,
	},
	{
		method: http.MethodPost, path: "/v1/ports/{port}/reservations/{id}/settle", permission: PermissionReport, maxBody: events.MaxPayloadBytes, key: true,
		id: "settle", summary: "Report what a reserved call cost", about: "Publishes the event with the reservation's id, and answers when JetStream has stored it; booking it ends the hold. " +
			"An event that has occurred_at, and neither an id nor an Idempotency-Key, takes its identity from the reservation, so that sending it again is harmless.",
		body: event{}, reply: usageReply{}, fails: []int{408, 413, 415}, handle: (*Edge).settle,
	},
	{
		method: http.MethodDelete, path: "/v1/ports/{port}/reservations/{id}", permission: PermissionReserve,
		id: "release", summary: "Give held tokens back", about: "The call did not happen. A reservation that is unknown, settled or expired is no error: there is nothing left to give back.",
		handle: (*Edge).release,
	},
	{
		method: http.MethodGet, path: "/v1/ports/{port}/budget", permission: PermissionReserve,
		id: "getBudget", summary: "Read a port's budget", about: "As it is stored; version 0: none is, and the default budget binds the port, if there is one. What is used of it a check says.",
		reply: events.Budget{}, handle: (*Edge).budget,
	},
}

// event is what the contract says of a usage event, for the description; events.DecodeUsage reads it.
type event struct {
	V             int64   `json:"v,omitempty" minimum:"1" maximum:"1" doc:"The version of this form: 1."`
	ID            string  `json:"id,omitempty" doc:"At most 128 characters: a UUIDv7, which is also the time of the call, or any text, beside occurred_at. The same id and time are booked once."`
	OccurredAt    string  `json:"occurred_at,omitempty" doc:"When the call ended (RFC 3339): it decides the period. Left out: the time of the id or of the Idempotency-Key, if that is a UUIDv7; else now."`
	PortID        string  `json:"port_id,omitempty" doc:"May be left out by a token of one port, and where the address names it."`
	UserID        string  `json:"user_id,omitempty" doc:"At most 128 characters; left out: the system made the call."`
	RunID         string  `json:"run_id,omitempty" doc:"The agent run, conversation or job; at most 128 characters."`
	Feature       string  `json:"feature" doc:"Of the application, as ocr or summary; at most 64 characters."`
	Provider      string  `json:"provider" doc:"At most 64 characters."`
	Model         string  `json:"model" doc:"At most 128 characters."`
	RequestID     string  `json:"request_id,omitempty" doc:"The provider's, to find the call in its logs; at most 256 characters."`
	ResponseID    string  `json:"response_id,omitempty" doc:"The provider's; at most 256 characters."`
	ReservationID string  `json:"reservation_id,omitempty" doc:"The reservation that this call settles."`
	InputTokens   int64   `json:"input_tokens,omitempty" minimum:"0" maximum:"1099511627776" doc:"Cached tokens included."`
	OutputTokens  int64   `json:"output_tokens,omitempty" minimum:"0" maximum:"1099511627776" doc:"Reasoning tokens included."`
	TotalTokens   int64   `json:"total_tokens,omitempty" minimum:"0" doc:"The sum of both, or left out."`
	Details       details `json:"details,omitzero"`
	MeasuredBy    string  `json:"measured_by,omitempty" enum:"provider,partial,estimate" doc:"Where the figures come from; left out: provider."`
	Status        string  `json:"status,omitempty" enum:"ok,partial,error" doc:"How the call ended; left out: ok. The tokens count either way."`
}

// details are subsets of the tokens.
type details struct {
	CacheReadInputTokens  int64 `json:"cache_read_input_tokens,omitempty" minimum:"0"`
	CacheWriteInputTokens int64 `json:"cache_write_input_tokens,omitempty" minimum:"0"`
	ReasoningOutputTokens int64 `json:"reasoning_output_tokens,omitempty" minimum:"0"`
}

// litellmRecord is what is read of LiteLLM's StandardLoggingPayload, for the description; mapping.event reads it.
type litellmRecord struct {
	ID                string          `json:"id,omitempty"`
	CallType          string          `json:"call_type,omitempty"`
	Status            string          `json:"status,omitempty" doc:"failure: of calls without tokens nothing is counted."`
	CacheHit          bool            `json:"cache_hit,omitempty" doc:"true: LiteLLM's own cache answered; nothing is counted."`
	CustomLLMProvider string          `json:"custom_llm_provider,omitempty"`
	Model             string          `json:"model,omitempty"`
	PromptTokens      int64           `json:"prompt_tokens" doc:"Cached tokens included."`
	CompletionTokens  int64           `json:"completion_tokens,omitempty"`
	TotalTokens       int64           `json:"total_tokens,omitempty"`
	StartTime         float64         `json:"startTime,omitempty" doc:"Seconds since 1970."`
	EndTime           float64         `json:"endTime,omitempty" doc:"Seconds since 1970: decides the period."`
	EndUser           string          `json:"end_user,omitempty"`
	TraceID           string          `json:"trace_id,omitempty"`
	RequestTags       []string        `json:"request_tags,omitempty"`
	Metadata          litellmMetadata `json:"metadata,omitzero"`
}

// litellmMetadata is whose call it was, and what it took besides.
type litellmMetadata struct {
	TeamID      string         `json:"user_api_key_team_id,omitempty"`
	TeamAlias   string         `json:"user_api_key_team_alias,omitempty"`
	KeyAlias    string         `json:"user_api_key_alias,omitempty"`
	OrgID       string         `json:"user_api_key_org_id,omitempty"`
	UserID      string         `json:"user_api_key_user_id,omitempty"`
	UsageObject jsontext.Value `json:"usage_object,omitempty" doc:"As OpenAI's chat completions have it, with details of cached and reasoning tokens."`
}
