package edge

import (
	"net/http"

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

	handle func(*Edge, *call) error
}

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
