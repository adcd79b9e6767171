// Package events is Tidegate's wire contract: the usage event, the budget
// questions and answers, their subjects and their validation, and the two small
// clients that speak it. Services import this package and nothing else.
//
// The wire is plain JSON over NATS, so every other NATS client can speak it too.
package events

import (
	"time"

	"github.com/tidegate/tidegate/budget"
)

// Limits of the wire. They are part of the contract: whatever exceeds them is
// refused with a [FieldError], never cut.
const (
	Version         = 1                   // the only usage event version this build understands
	MaxPayloadBytes = 16 << 10            // one message, event or request
	MaxTokens       = 1 << 40             // input or output tokens of one event, or one estimate
	MaxCapTokens    = budget.MaxCapTokens // a cap; the largest integer every JSON reader keeps exactly

	// MaxEventsPerMessage is how many events one message may hold, in a JSON array: more
	// than MaxPayloadBytes has room for, if they are good.
	MaxEventsPerMessage = 256

	maxIDChars       = 128
	maxPortChars     = 64
	maxFeatureChars  = 64
	maxProviderChars = 64
	maxModelChars    = 128
	maxUserChars     = 128
	maxRunChars      = 128
	maxRefChars      = 256 // request_id, response_id: the provider's, not ours
)

// MeasuredBy says where the token figures come from.
type MeasuredBy string

// The measures, most trustworthy first.
const (
	MeasuredByProvider MeasuredBy = "provider" // the provider reported them (the default)
	MeasuredByPartial  MeasuredBy = "partial"  // the provider reported some before the reply was cut short
	MeasuredByEstimate MeasuredBy = "estimate" // nobody reported them
)

// Status says how the AI call ended.
type Status string

// The ways a call ends. The tokens count in each of them.
const (
	StatusOK      Status = "ok" // the default
	StatusPartial Status = "partial"
	StatusError   Status = "error"
)

// Usage is one finished AI call. PortID, Feature, Provider and Model are
// required. The zero value of every other field is valid: [Publisher.Record]
// fills ID and OccurredAt, a missing UserID means the system made the call.
type Usage struct {
	// ID identifies the event for ever: the same ID is booked once. A UUIDv7 is
	// both identity and time; any other string (at most 128 characters) needs
	// OccurredAt beside it.
	ID string `json:"id"`
	// OccurredAt decides the period the tokens count in. Beside a UUIDv7 it may be
	// left zero; given, it must agree with the id within an hour.
	OccurredAt time.Time `json:"occurred_at"`

	PortID   string `json:"port_id"`
	UserID   string `json:"user_id"`
	RunID    string `json:"run_id"` // the agent run, conversation or job that the call belongs to
	Feature  string `json:"feature"`
	Provider string `json:"provider"`
	Model    string `json:"model"`

	RequestID     string `json:"request_id"`     // the provider's, to find the call in its logs
	ResponseID    string `json:"response_id"`    // the provider's
	ReservationID string `json:"reservation_id"` // the hold that this call settles

	InputTokens  int64   `json:"input_tokens"`  // includes cached tokens
	OutputTokens int64   `json:"output_tokens"` // includes reasoning tokens
	Details      Details `json:"details"`

	MeasuredBy MeasuredBy `json:"measured_by"`
	Status     Status     `json:"status"`

	// TraceParent is the caller's span, of [TraceParent]. It is no part of the event: publishers put
	// it into a header of the message, [TraceHeader], so that booking the event is in the caller's trace.
	TraceParent string `json:"-"`
}

// Details are subsets of the input (cache) and output (reasoning) tokens.
type Details struct {
	CacheReadInputTokens  int64 `json:"cache_read_input_tokens"`
	CacheWriteInputTokens int64 `json:"cache_write_input_tokens"`
	ReasoningOutputTokens int64 `json:"reasoning_output_tokens"`
}

// TotalTokens is what counts against the caps.
func (u Usage) TotalTokens() int64 { return u.InputTokens + u.OutputTokens }

// Validate reports the first field that breaks the contract, as a [*FieldError].
func (u Usage) Validate() error {
	if err := checkPort(u.PortID); err != nil {
		return err
	}
	for _, f := range []struct {
		name, value string
		max         int
		required    bool
	}{
		{"feature", u.Feature, maxFeatureChars, true},
		{"provider", u.Provider, maxProviderChars, true},
		{"model", u.Model, maxModelChars, true},
		{"id", u.ID, maxIDChars, false},
		{"user_id", u.UserID, maxUserChars, false},
		{"run_id", u.RunID, maxRunChars, false},
		{"request_id", u.RequestID, maxRefChars, false},
		{"response_id", u.ResponseID, maxRefChars, false},
		{"reservation_id", u.ReservationID, maxIDChars, false},
	} {
		if err := checkText(f.name, f.value, f.max, f.required); err != nil {
			return err
		}
	}
	if _, ok := ParseUUIDv7(u.ID); u.ID != "" && u.OccurredAt.IsZero() && !ok {
		return invalid("occurred_at", "", "is required beside an id that is not a UUIDv7: the time of the call, the same whenever the event is sent again")
	}
	if year := u.OccurredAt.UTC().Year(); !u.OccurredAt.IsZero() && (year < 1970 || year > 9999) {
		return invalid("occurred_at", u.OccurredAt.UTC().Format(time.RFC3339), "must lie between 1970 and 9999, in UTC")
	}
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"input_tokens", u.InputTokens},
		{"output_tokens", u.OutputTokens},
		{"details.cache_read_input_tokens", u.Details.CacheReadInputTokens},
		{"details.cache_write_input_tokens", u.Details.CacheWriteInputTokens},
		{"details.reasoning_output_tokens", u.Details.ReasoningOutputTokens},
	} {
		if err := checkTokens(f.name, f.value); err != nil {
			return err
		}
	}
	if cached := u.Details.CacheReadInputTokens + u.Details.CacheWriteInputTokens; cached > u.InputTokens {
		return invalid("details", cached, "cache read + cache write must be within input_tokens, which includes them")
	}
	if u.Details.ReasoningOutputTokens > u.OutputTokens {
		return invalid("details.reasoning_output_tokens", u.Details.ReasoningOutputTokens, "must be within output_tokens, which includes it")
	}
	switch u.MeasuredBy {
	case "", MeasuredByProvider, MeasuredByPartial, MeasuredByEstimate:
	default:
		return invalid("measured_by", u.MeasuredBy, "must be provider, partial or estimate")
	}
	switch u.Status {
	case "", StatusOK, StatusPartial, StatusError:
	default:
		return invalid("status", u.Status, "must be ok, partial or error")
	}
	return nil
}
