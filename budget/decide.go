package budget

import (
	"math"
	"time"
)

// Rule is what of a budget decides. It is small, since a gate keeps one for every port,
// and never changed once made, so that decisions may point into it.
type Rule struct {
	Enabled    bool
	period     uint8 // index of Periods
	Version    int32
	Soft, Hard int64 // NoCap if there is none
}

// NoCap stands for a cap that is not there.
const NoCap = -1

// Rule is what of b decides.
func (b Budget) Rule() *Rule {
	r := &Rule{Enabled: b.Enabled, period: 2, Soft: NoCap, Hard: NoCap, Version: int32(b.Version)}
	for i, p := range Periods {
		if p == b.Period {
			r.period = uint8(i)
		}
	}
	if b.SoftCapTokens != nil {
		r.Soft = *b.SoftCapTokens
	}
	if b.HardCapTokens != nil {
		r.Hard = *b.HardCapTokens
	}
	return r
}

// Period is how often the budget starts anew.
func (r *Rule) Period() Period { return Periods[r.period] }

// RefusalReason is why a call is refused.
type RefusalReason string

// The refusals of a budget. Package events has those of a gate that cannot tell.
const (
	ReasonHardCapReached         RefusalReason = "hard_cap_reached"
	ReasonEstimateExceedsHardCap RefusalReason = "estimate_exceeds_hard_cap"
)

// Decision says whether a call may spend, and what that was decided by.
type Decision struct {
	Allowed         bool
	Reason          RefusalReason // "" when allowed
	SoftCapWarning  bool          // used + held + what was asked reach the soft cap, allowed or not
	Enabled         bool          // false: no budget binds the port
	Period          Period
	PeriodStart     time.Time
	ResetsAt        time.Time
	UsedTokens      int64
	HeldTokens      int64
	SoftCapTokens   *int64 // nil: there is none
	HardCapTokens   *int64
	RemainingTokens *int64 // hard cap - used - held, never below 0; nil without a hard cap
}

// Decide says whether a call may spend that many tokens. It is a pure function; used and
// held are those of the period that contains now.
func Decide(r *Rule, used, held, estimate int64, now time.Time) Decision {
	d := Decision{Enabled: r.Enabled, Period: r.Period(), UsedTokens: used, HeldTokens: held}
	d.PeriodStart, d.ResetsAt = d.Period.Bounds(now)
	spent := Add(used, held)
	if r.Soft != NoCap {
		d.SoftCapTokens = &r.Soft
	}
	if r.Hard != NoCap {
		remaining := max(r.Hard-spent, 0)
		d.HardCapTokens, d.RemainingTokens = &r.Hard, &remaining
	}
	d.Reason, d.SoftCapWarning = r.judge(spent, estimate)
	d.Allowed = d.Reason == ""
	return d
}

// judge is the whole of the budget rules: read top down, the first match decides. The
// warning does not depend on them: whoever is refused is past the soft cap too.
func (r *Rule) judge(spent, estimate int64) (refused RefusalReason, warned bool) {
	asked := Add(spent, estimate)
	switch {
	case !r.Enabled:
		return "", false
	case r.Hard != NoCap && spent >= r.Hard:
		refused = ReasonHardCapReached
	case r.Hard != NoCap && asked > r.Hard:
		refused = ReasonEstimateExceedsHardCap
	}
	return refused, r.Soft != NoCap && asked >= r.Soft
}

// Add adds tokens. A sum that 64 bits cannot hold is the largest that they can.
func Add(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
