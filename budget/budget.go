// Package budget is the rule by which Tidegate lets calls spend: periods, budgets, the
// decision about one call, and what a budget would have made of calls of the past. It is
// pure: no input or output, no clock, and nothing of Tidegate's is below it.
package budget

import (
	"encoding/json"
	"time"
)

// MaxCapTokens is the largest cap: the largest integer every JSON reader keeps exactly.
const MaxCapTokens = 1<<53 - 1

const maxUpdatedByChars = 128

// Budget is what a port may spend per period. A nil cap is no cap, a hard cap of
// 0 refuses everything.
type Budget struct {
	Enabled       bool      `json:"enabled"`
	SoftCapTokens *int64    `json:"soft_cap_tokens"`
	HardCapTokens *int64    `json:"hard_cap_tokens"`
	Period        Period    `json:"period"`
	Limits        []Limit   `json:"limits,omitempty"` // beside these caps, at most [MaxLimits]
	Version       int64     `json:"version"`          // 0: nothing stored yet; counts every change
	UpdatedAt     time.Time `json:"updated_at,omitzero"`
	UpdatedBy     string    `json:"updated_by,omitempty"`
}

// None is the budget of a port before anybody stored one: nothing binds it.
func None() Budget { return Budget{Period: Month} }

// Complete reads the rest of a budget, of which version and time stand beside it, from its
// stored value; nil: none is stored.
func (b *Budget) Complete(value []byte) error {
	if value == nil {
		*b = None()
		return nil
	}
	b.UpdatedAt = b.UpdatedAt.UTC()
	return json.Unmarshal(value, b)
}

// Validate reports the first field that breaks its rule, as a [*FieldError].
func (b Budget) Validate() error {
	if !b.Period.Valid() {
		return Refuse(ReasonInvalidField, "period", b.Period, "must be day, week or month")
	}
	if err := validateCaps("soft_cap_tokens", "hard_cap_tokens", b.SoftCapTokens, b.HardCapTokens); err != nil {
		return err
	}
	if err := validateLimits(b.Limits); err != nil {
		return err
	}
	return CheckText("updated_by", b.UpdatedBy, maxUpdatedByChars, false)
}
