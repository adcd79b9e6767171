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
	// Default: the port has no budget of its own. What binds it is the default budget, which
	// this is but for Version, the port's own.
	Default   bool      `json:"default,omitzero"`
	Version   int64     `json:"version"` // 0: nothing stored yet; counts every change
	UpdatedAt time.Time `json:"updated_at,omitzero"`
	UpdatedBy string    `json:"updated_by,omitempty"`
}

// DefaultPort stands where a port is named, and is none: it names the default budget, which
// binds every port that has no budget of its own.
const DefaultPort = "*"

// None is the budget of a port before anybody stored one: nothing binds it.
func None() Budget { return Budget{Period: Month} }

// Complete reads the rest of a budget, of which version and time stand beside it, from its
// stored value; nil: none is stored.
func (b *Budget) Complete(value []byte) error {
	if value == nil {
		*b = None()
		return nil
	}
	b.UpdatedAt, b.Period = b.UpdatedAt.UTC(), Month
	return json.Unmarshal(value, b)
}

// Or returns what binds a port of which b is stored, given what is stored for [DefaultPort].
func (b Budget) Or(standard Budget) Budget {
	if b.Version > 0 && !b.Default {
		return b
	}
	b.Default = b.Default || standard.Version > 0
	standard.Default, standard.Version = b.Default, b.Version
	return standard
}

// ValidateFor is Validate, for what is stored for a port or for [DefaultPort].
func (b Budget) ValidateFor(port string) error {
	switch {
	case b.Default && port == DefaultPort:
		return Refuse(ReasonInvalidField, "default", true, "gives a port back to the default budget; to make that bind nobody, store it with enabled false")
	case b.Default && (b.Enabled || b.SoftCapTokens != nil || b.HardCapTokens != nil || b.ExtraTokens != nil || !b.ExtraUntil.IsZero() || b.Limits != nil):
		return Refuse(ReasonInvalidField, "default", true, "gives the port back to the default budget: leave out enabled, caps, extra tokens and limits")
	case port == DefaultPort && b.ExtraTokens != nil && *b.ExtraTokens != 0:
		return Refuse(ReasonInvalidField, "extra_tokens", *b.ExtraTokens, "is for a port: the default budget has none, since each port would have them; give them to a port, or raise hard_cap_tokens")
	}
	return b.Validate()
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
