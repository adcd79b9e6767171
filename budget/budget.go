// Package budget is the rule by which Tidegate lets calls spend: periods, budgets, the
// decision about one call, and what a budget would have made of calls of the past. It is
// pure: no input or output, no clock, and nothing of Tidegate's is below it.
package budget

import (
	"encoding/json"
	"fmt"
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
	ExtraTokens   *int64    `json:"extra_tokens,omitempty"` // on top of the hard cap, before ExtraUntil
	ExtraUntil    time.Time `json:"extra_until,omitzero"`
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
	if err := b.validateExtra(); err != nil {
		return err
	}
	if err := validateLimits(b.Limits); err != nil {
		return err
	}
	return CheckText("updated_by", b.UpdatedBy, maxUpdatedByChars, false)
}

// validateExtra reads a number of 0 and one that is left out as no extra.
func (b Budget) validateExtra() error {
	n := int64(0)
	if b.ExtraTokens != nil {
		n = *b.ExtraTokens
	}
	switch {
	case n < 0 || n > MaxCapTokens:
		return Refuse(ReasonInvalidField, "extra_tokens", n, fmt.Sprintf("must be a whole number from 0 to %d; 0: none", int64(MaxCapTokens)))
	case n > 0 && b.HardCapTokens == nil:
		return Refuse(ReasonInvalidField, "extra_tokens", n, "is on top of hard_cap_tokens: give that, too")
	case n > 0 && b.ExtraUntil.IsZero():
		return Refuse(ReasonInvalidField, "extra_until", "", "must be the time at which extra_tokens end, as 2026-11-30T18:00:00Z")
	case n > 0 && (b.ExtraUntil.Year() < 2000 || b.ExtraUntil.Year() > 9999):
		return Refuse(ReasonInvalidField, "extra_until", b.ExtraUntil, "must be a time from the year 2000 to 9999")
	case n == 0 && !b.ExtraUntil.IsZero():
		return Refuse(ReasonInvalidField, "extra_until", b.ExtraUntil, "is the end of extra_tokens: give these, too")
	}
	return nil
}
