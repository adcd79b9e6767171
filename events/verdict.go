package events

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/tidegate/tidegate/budget"
)

// Verdict answers a check or a reserve. A refusal is a normal answer: it says
// why, how much is left and when the period rolls over.
type Verdict struct {
	Allowed        bool          `json:"allowed"`
	Reason         RefusalReason `json:"reason"`           // "" when allowed
	SoftCapWarning bool          `json:"soft_cap_warning"` // used + held + what was asked reach the soft cap, allowed or not
	Enabled        bool          `json:"enabled"`          // false: no budget binds this port
	// Limit is the one that refuses, the first if there are several, or else the one with
	// the smallest share left of its hard cap; "port" for the port's own caps. The figures
	// are of that limit, for LimitValue if it counts each value of something, in its Unit.
	Limit           string      `json:"limit"`
	LimitValue      string      `json:"limit_value,omitempty"`
	Unit            budget.Unit `json:"unit,omitempty"` // left out: tokens
	Period          Period      `json:"period"`         // the window of the limit
	PeriodStart     time.Time   `json:"period_start"`
	ResetsAt        time.Time   `json:"resets_at"` // null: never
	UsedTokens      int64       `json:"used_tokens"`
	HeldTokens      int64       `json:"held_tokens"`
	SoftCapTokens   *int64      `json:"soft_cap_tokens"`
	HardCapTokens   *int64      `json:"hard_cap_tokens"`
	RemainingTokens *int64      `json:"remaining_tokens"` // hard cap - used - held, never below 0; null without a hard cap
	AsOf            time.Time   `json:"as_of"`            // every commit up to then is counted

	// Backlog answers a check while something has been waiting to be booked for longer
	// than a second. These tokens are spent, and counted nowhere yet.
	Backlog

	// The rest answers a reserve that was allowed. UsedTokens, HeldTokens and
	// RemainingTokens then count the new hold too.
	ReservationID string    `json:"reservation_id,omitempty"`
	ExpiresAt     time.Time `json:"expires_at,omitzero"`
	GrantedTokens int64     `json:"granted_tokens,omitempty"` // what is held; less than asked only with accept_less

	// Limits is what each limit that matches says by itself, the port's own caps first; only
	// where the request asks to explain.
	Limits []LimitVerdict `json:"limits,omitempty"`
}

// LimitVerdict is what one limit says; the fields are those of a [Verdict].
type LimitVerdict struct {
	Limit           string        `json:"limit"`
	LimitValue      string        `json:"limit_value,omitempty"`
	Allowed         bool          `json:"allowed"`
	Reason          RefusalReason `json:"reason"`
	SoftCapWarning  bool          `json:"soft_cap_warning"`
	Unit            budget.Unit   `json:"unit"`
	Period          Period        `json:"period"`
	PeriodStart     time.Time     `json:"period_start"`
	ResetsAt        *time.Time    `json:"resets_at"`
	UsedTokens      int64         `json:"used_tokens"`
	HeldTokens      int64         `json:"held_tokens"`
	SoftCapTokens   *int64        `json:"soft_cap_tokens"`
	HardCapTokens   *int64        `json:"hard_cap_tokens"`
	RemainingTokens *int64        `json:"remaining_tokens"`
}

// NewLimitVerdicts is what limits say, in the form of an answer.
func NewLimitVerdicts(all []budget.Decision) []LimitVerdict {
	list := make([]LimitVerdict, len(all))
	for i, d := range all {
		list[i] = LimitVerdict{
			Limit: d.Limit, LimitValue: d.LimitValue, Allowed: d.Allowed, Reason: d.Reason, SoftCapWarning: d.SoftCapWarning,
			Unit: d.Unit, Period: d.Period, PeriodStart: d.PeriodStart, UsedTokens: d.UsedTokens, HeldTokens: d.HeldTokens,
			SoftCapTokens: d.SoftCapTokens, HardCapTokens: d.HardCapTokens, RemainingTokens: d.RemainingTokens,
		}
		if !d.ResetsAt.IsZero() {
			list[i].ResetsAt = &d.ResetsAt
		}
	}
	return list
}

// NewVerdict is a decision in the form of an answer.
func NewVerdict(d budget.Decision) Verdict {
	unit := d.Unit
	if unit == budget.Tokens {
		unit = ""
	}
	return Verdict{
		Allowed: d.Allowed, Reason: d.Reason, SoftCapWarning: d.SoftCapWarning,
		Enabled: d.Enabled, Limit: d.Limit, LimitValue: d.LimitValue, Unit: unit, Period: d.Period, PeriodStart: d.PeriodStart, ResetsAt: d.ResetsAt,
		UsedTokens: d.UsedTokens, HeldTokens: d.HeldTokens,
		SoftCapTokens: d.SoftCapTokens, HardCapTokens: d.HardCapTokens, RemainingTokens: d.RemainingTokens,
	}
}

// AppendJSON appends the verdict in its wire form. The gate answers tens of
// thousands a second; reflection would cost it a third of that.
func (v *Verdict) AppendJSON(b []byte) []byte {
	b = appendBool(b, `{"allowed":`, v.Allowed)
	b = append(b, `,"reason":"`...)
	b = append(b, v.Reason...)
	b = appendBool(b, `","soft_cap_warning":`, v.SoftCapWarning)
	b = appendBool(b, `,"enabled":`, v.Enabled)
	b = append(b, `,"limit":"`...)
	b = append(b, v.Limit...)
	b = append(b, '"')
	b = appendText(b, "limit_value", v.LimitValue)
	b = appendText(b, "unit", string(v.Unit))
	b = append(b, `,"period":"`...)
	b = append(b, v.Period...)
	b = appendTime(b, `","period_start":`, v.PeriodStart)
	if v.ResetsAt.IsZero() {
		b = append(b, `,"resets_at":null`...)
	} else {
		b = appendTime(b, `,"resets_at":`, v.ResetsAt)
	}
	b = appendInt(b, `,"used_tokens":`, v.UsedTokens)
	b = appendInt(b, `,"held_tokens":`, v.HeldTokens)
	b = appendCap(b, `,"soft_cap_tokens":`, v.SoftCapTokens)
	b = appendCap(b, `,"hard_cap_tokens":`, v.HardCapTokens)
	b = appendCap(b, `,"remaining_tokens":`, v.RemainingTokens)
	b = appendTime(b, `,"as_of":`, v.AsOf)
	b = v.Backlog.appendJSON(b)
	if v.ReservationID != "" {
		b = appendText(b, "reservation_id", v.ReservationID)
		b = appendTime(b, `,"expires_at":`, v.ExpiresAt)
		b = appendInt(b, `,"granted_tokens":`, v.GrantedTokens)
	}
	if len(v.Limits) > 0 {
		b = append(b, `,"limits":`...)
		list, err := json.Marshal(v.Limits)
		if err != nil {
			panic(err) // plain fields only
		}
		b = append(b, list...)
	}
	return append(b, '}')
}

func appendBool(b []byte, key string, v bool) []byte {
	return strconv.AppendBool(append(b, key...), v)
}

func appendCap(b []byte, key string, n *int64) []byte {
	if n == nil {
		return append(append(b, key...), "null"...)
	}
	return appendInt(b, key, *n)
}
