package events

import (
	"cmp"
	"time"

	"github.com/tidegate/tidegate/budget"
)

// The lifetime of a hold, unless the request says otherwise, and at most.
const (
	DefaultHoldTTL = 300 * time.Second
	MaxHoldTTL     = 3600 * time.Second
)

// ReserveRequest asks like a check and, when the answer is yes, holds the
// estimate until the usage event that names the reservation is booked, until it
// is released, or until it expires.
type ReserveRequest struct {
	PortID          string `json:"port_id,omitempty"`
	Feature         string `json:"feature,omitempty"`
	Provider        string `json:"provider,omitempty"`
	Model           string `json:"model,omitempty"`
	UserID          string `json:"user_id,omitempty"`
	RunID           string `json:"run_id,omitempty"`
	Service         string `json:"service,omitempty"` // who asks, to find calls that are never reported
	EstimatedTokens int64  `json:"estimated_tokens"`
	// The parts of the estimate, as in [CheckRequest].
	EstimatedInputTokens  int64 `json:"estimated_input_tokens,omitzero"`
	EstimatedOutputTokens int64 `json:"estimated_output_tokens,omitzero"`
	Explain               bool  `json:"explain,omitzero"` // asks for [Verdict.Limits]
	// TTLSeconds is how long the hold lives: the longest the call may take until its
	// usage is booked. Default 300, at most 3,600. It may live for up to an eighth, at
	// most 10 s, longer: the answer's ExpiresAt counts.
	TTLSeconds int64 `json:"ttl_seconds,omitzero"`
	// IdempotencyKey makes a retry return the hold of the first try, while it lives. With
	// another request (all fields but Service) it is [ErrConflict]. A request with a key
	// is always decided in Postgres.
	IdempotencyKey string `json:"idempotency_key,omitempty"`
	// AcceptLess grants what is left, if that is anything, where the estimate does
	// not fit: the caller then limits the call to GrantedTokens.
	AcceptLess bool `json:"accept_less,omitzero"`
}

// TTL is the lifetime that the request asks for.
func (r ReserveRequest) TTL() time.Duration {
	if r.TTLSeconds == 0 {
		return DefaultHoldTTL
	}
	return time.Duration(r.TTLSeconds) * time.Second
}

// Check asks the same without holding anything.
func (r *ReserveRequest) Check() CheckRequest {
	return CheckRequest{
		PortID: r.PortID, Feature: r.Feature, Provider: r.Provider, Model: r.Model, UserID: r.UserID, RunID: r.RunID,
		EstimatedTokens: r.EstimatedTokens, EstimatedInputTokens: r.EstimatedInputTokens, EstimatedOutputTokens: r.EstimatedOutputTokens,
		Explain: r.Explain,
	}
}

// Call is what the request asks about.
func (r *ReserveRequest) Call() budget.Call {
	c := r.Check()
	return c.Call()
}

// Validate reports the first field that breaks the contract, as a [*FieldError].
func (r ReserveRequest) Validate() error {
	err := cmp.Or(r.Check().Validate(),
		checkText("service", r.Service, maxFeatureChars, false),
		checkText("idempotency_key", r.IdempotencyKey, maxIDChars, false))
	if err != nil {
		return err
	}
	if r.TTLSeconds < 0 || r.TTLSeconds > int64(MaxHoldTTL/time.Second) {
		return invalid("ttl_seconds", r.TTLSeconds, "must be a whole number from 1 to 3600, or be left out for 300")
	}
	return nil
}

// ReleaseRequest gives a hold back: the call did not happen.
type ReleaseRequest struct {
	PortID        string `json:"port_id,omitempty"`
	ReservationID string `json:"reservation_id"`
}

// Validate reports the first field that breaks the contract, as a [*FieldError].
func (r ReleaseRequest) Validate() error {
	return cmp.Or(checkPort(r.PortID), checkText("reservation_id", r.ReservationID, maxIDChars, true))
}

// Released answers a release. False: the port has no such hold (any more).
type Released struct {
	Released bool `json:"released"`
}
