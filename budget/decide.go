package budget

import (
	"math"
	"slices"
	"time"
)

// Rule is what of a budget decides. It is small, since a gate keeps one for every port,
// and never changed once made, so that decisions may point into it.
type Rule struct {
	Enabled    bool
	period     uint8 // index of Periods
	Default    bool  // it is the default budget's
	Version    int32
	Soft, Hard int64 // NoCap if there is none
	more       *more // nil for most ports
}

// more is what few budgets have.
type more struct {
	limits []Limit
	by     []Per // see looksAt
	each   []Per
	raised int64 // the hard cap before until
	until  time.Time
}

// NoCap stands for a cap that is not there.
const NoCap = -1

// Rule is what of b decides.
func (b Budget) Rule() *Rule {
	r := &Rule{Enabled: b.Enabled, period: 2, Soft: NoCap, Hard: NoCap, Default: b.Default, Version: int32(b.Version)}
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
	raised := b.HardCapTokens != nil && b.ExtraTokens != nil && *b.ExtraTokens > 0
	if raised || len(b.Limits) > 0 {
		r.more = &more{limits: b.Limits}
		r.more.by, r.more.each = looksAt(b.Limits)
	}
	if raised {
		r.more.raised, r.more.until = min(r.Hard+*b.ExtraTokens, MaxCapTokens), b.ExtraUntil
	}
	return r
}

// Period is how often the budget starts anew.
func (r *Rule) Period() Period { return Periods[r.period] }

// Limits are those beside the port's own caps.
func (r *Rule) Limits() []Limit {
	if r.more == nil {
		return nil
	}
	return r.more.limits
}

// LeasedBy are the dimensions that the limits look at, beside the feature: those of which a
// lease is for one value, and those of which it is for any.
func (r *Rule) LeasedBy() (by, each []Per) {
	if r.more == nil {
		return nil, nil
	}
	return r.more.by, r.more.each
}

// HardAt is the hard cap at a time, with what is on top of it then.
func (r *Rule) HardAt(now time.Time) int64 { return *r.hardAt(now) }

func (r *Rule) hardAt(now time.Time) *int64 {
	if r.raised(now) {
		return &r.more.raised
	}
	return &r.Hard
}

func (r *Rule) raised(now time.Time) bool { return r.more != nil && now.Before(r.more.until) }

// SameHard reports whether both have the same hard cap at all times.
func (r *Rule) SameHard(as *Rule) bool {
	raised, until := r.extra()
	asRaised, asUntil := as.extra()
	return r.Hard == as.Hard && raised == asRaised && until.Equal(asUntil)
}

func (r *Rule) extra() (raised int64, until time.Time) {
	if r.more == nil {
		return 0, time.Time{}
	}
	return r.more.raised, r.more.until
}

// Leases reports whether calls may be held by a lease. One would go on when the hard cap falls
// without anybody changing the budget.
func (r *Rule) Leases(now time.Time) bool { return !r.raised(now) }

// Refuses reports whether calls may be refused.
func (r *Rule) Refuses() bool {
	return r.Enabled && (r.Hard != NoCap || slices.ContainsFunc(r.Limits(), func(l Limit) bool { return l.Hard != nil }))
}

// RefusalReason is why a call is refused.
type RefusalReason string

// The refusals of a budget. Package events has those of a gate that cannot tell.
const (
	ReasonHardCapReached         RefusalReason = "hard_cap_reached"
	ReasonEstimateExceedsHardCap RefusalReason = "estimate_exceeds_hard_cap"
)

// Call is what is asked about.
type Call struct {
	Labels
	Estimate
}

// Count is what a limit has used in its window, and what is held in it, in its unit; of
// unit weighted in thousandths.
type Count struct{ Used, Held int64 }

// Counts tells the count of a limit, for a value of its Per, in the window that began then.
type Counts func(l *Limit, value string, start time.Time) Count

// Decision says whether a call may spend, and what that was decided by: the limit that
// refuses, the first if there are several, or else the one with the smallest share left of its
// hard cap. The figures are in that limit's unit.
type Decision struct {
	Allowed         bool
	Reason          RefusalReason // "" when allowed
	SoftCapWarning  bool          // used + held + what was asked reach a soft cap, allowed or not
	Enabled         bool          // false: no budget binds the port
	Limit           string        // [PortLimit] for the port's own caps
	LimitValue      string        // of what the limit counts by itself
	Unit            Unit
	Period          Period
	PeriodStart     time.Time
	ResetsAt        time.Time // zero: never
	UsedTokens      int64
	HeldTokens      int64
	SoftCapTokens   *int64 // nil: there is none
	HardCapTokens   *int64
	RemainingTokens *int64 // hard cap - used - held, never below 0; nil without a hard cap
}

// Decide says whether a call may spend what it is expected to. It is a pure function; port
// is the count of the port's own caps, in the period that contains now.
func Decide(r *Rule, port Count, c *Call, counts Counts, now time.Time) Decision {
	return decide(r, port, c, counts, now, false)
}

// DecideHold is [Decide] for a call that holds what it is expected to spend, if it is allowed: then the
// figures are those with its hold.
func DecideHold(r *Rule, port Count, c *Call, counts Counts, now time.Time) Decision {
	return decide(r, port, c, counts, now, true)
}

func decide(r *Rule, port Count, c *Call, counts Counts, now time.Time, holds bool) Decision {
	d := decideOne(r, port, c.Estimate.Tokens, now, holds)
	if !r.Enabled || len(r.Limits()) == 0 {
		return d
	}
	warned, share := d.SoftCapWarning, d.share()
	matching(r, c, counts, now, func(l *Limit, w window, n Count) bool {
		one := l.decide(w, n, l.Asks(c.Estimate), holds)
		warned = warned || one.SoftCapWarning
		if left := one.share(); d.Allowed && (!one.Allowed || left < share) {
			d, share = one, left
		}
		return true
	})
	d.SoftCapWarning = warned
	return d
}

// Explain returns what each limit that matches says by itself, the port's own caps first.
func Explain(r *Rule, port Count, c *Call, counts Counts, now time.Time) []Decision {
	all := []Decision{decideOne(r, port, c.Estimate.Tokens, now, false)}
	if r.Enabled {
		matching(r, c, counts, now, func(l *Limit, w window, n Count) bool {
			all = append(all, l.decide(w, n, l.Asks(c.Estimate), false))
			return true
		})
	}
	return all
}

// Fit returns the largest estimate, no larger than the call's, that every limit that
// matches it leaves room for.
func Fit(r *Rule, port Count, c *Call, counts Counts, now time.Time) (e Estimate, ok bool) {
	e, ok = c.Estimate, true
	hard := r.HardAt(now)
	if left := hard - Add(port.Used, port.Held); r.Enabled && hard != NoCap && left < e.Tokens {
		if e, ok = e.shrunk(left); !ok {
			return e, false
		}
	}
	if r.Enabled {
		matching(r, c, counts, now, func(l *Limit, _ window, n Count) bool {
			if l.Hard != nil {
				e, ok = l.fits(e, *l.Hard*l.scale()-Add(n.Used, n.Held))
			}
			return ok
		})
	}
	return e, ok
}

// window is one of a limit's, for a value of its Per.
type window struct {
	value      string
	start, end time.Time
}

// matching goes through the limits that a call matches, until f returns false.
func matching(r *Rule, c *Call, counts Counts, now time.Time, f func(l *Limit, w window, n Count) bool) {
	limits := r.Limits()
	for i := range limits {
		l := &limits[i]
		if !l.Matches(&c.Labels) {
			continue
		}
		w := window{value: c.Of(l.Per)}
		w.start, w.end = l.Window.Bounds(now)
		if !f(l, w, counts(l, w.value, w.start)) {
			return
		}
	}
}

func decideOne(r *Rule, n Count, estimate int64, now time.Time, holds bool) Decision {
	d := Decision{Enabled: r.Enabled, Limit: PortLimit, Unit: Tokens, Period: r.Period()}
	d.PeriodStart, d.ResetsAt = d.Period.Bounds(now)
	hard := r.hardAt(now)
	if r.Enabled {
		d.Reason, d.SoftCapWarning = judge(r.Soft, *hard, Add(n.Used, n.Held), estimate)
	}
	if d.Allowed = d.Reason == ""; d.Allowed && holds {
		n.Held = Add(n.Held, estimate)
	}
	d.UsedTokens, d.HeldTokens = n.Used, n.Held
	if r.Soft != NoCap {
		d.SoftCapTokens = &r.Soft
	}
	if *hard != NoCap {
		remaining := max(*hard-Add(n.Used, n.Held), 0)
		d.HardCapTokens, d.RemainingTokens = hard, &remaining
	}
	return d
}

// decide is [decideOne] for a limit.
func (l *Limit) decide(w window, n Count, asks int64, holds bool) Decision {
	scale := l.scale()
	soft, hard := l.caps()
	d := Decision{Enabled: true, Limit: l.Name, LimitValue: w.value, Unit: l.unit(), Period: l.Window, PeriodStart: w.start, ResetsAt: w.end}
	d.Reason, d.SoftCapWarning = judge(soft, hard, Add(n.Used, n.Held), asks)
	if d.Allowed = d.Reason == ""; d.Allowed && holds {
		n.Held = Add(n.Held, asks)
	}
	d.UsedTokens, d.HeldTokens, d.SoftCapTokens, d.HardCapTokens = up(n.Used, scale), up(n.Held, scale), l.Soft, l.Hard
	if l.Hard != nil {
		remaining := max(hard-Add(n.Used, n.Held), 0) / scale
		d.RemainingTokens = &remaining
	}
	return d
}

// Standing is what the limit says of a count, while nobody asks for anything.
func (l *Limit) Standing(value string, n Count, now time.Time) Decision {
	start, end := l.Window.Bounds(now)
	return l.decide(window{value, start, end}, n, 0, false)
}

// up rounds up: what is used and held is not shown as less than it is.
func up(n, scale int64) int64 { return n/scale + min(n%scale, 1) }

// share is how much is left of the hard cap.
func (d *Decision) share() float64 {
	switch {
	case d.RemainingTokens == nil:
		return 2 // more than all of any
	case *d.HardCapTokens == 0:
		return 0
	}
	return float64(*d.RemainingTokens) / float64(*d.HardCapTokens)
}

// judge is the whole of the budget rules: read top down, the first match decides. The
// warning does not depend on them: whoever is refused is past the soft cap too.
func judge(soft, hard, spent, estimate int64) (refused RefusalReason, warned bool) {
	asked := Add(spent, estimate)
	switch {
	case hard != NoCap && spent >= hard:
		refused = ReasonHardCapReached
	case hard != NoCap && asked > hard:
		refused = ReasonEstimateExceedsHardCap
	}
	return refused, soft != NoCap && asked >= soft
}

// Add adds tokens. A sum that 64 bits cannot hold is the largest that they can.
func Add(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
