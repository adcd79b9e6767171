package reservation

import (
	"time"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/reservation/hold"
)

// Want asks for a lease. None is granted where that would take much of what is
// left, and what is granted may be less.
type Want struct {
	PortID string
	hold.Kind
	For           time.Duration // for how long holds will be made
	Tokens, Least int64         // a lease of fewer than Least, which is more than 0, is of no use
	Holds         int
}

const (
	// MaxLeaseHolds bounds [Want.Holds].
	MaxLeaseHolds = 4096
	// leaseShare is the part of what is left under the hard cap that a lease may take.
	leaseShare = 8
	// LeastCalls is how many calls, of the size that is usual, a lease has the tokens for, at least.
	LeastCalls = 4
	// leastHolds is how many holds a lease is for, at least.
	leastHolds = 8
)

// grant gives a want what it may have. It comes after the requests: a lease is for
// those to come.
func (d *deciding) grant(w *Want) {
	s := d.states[w.PortID]
	if !s.rule.Leases(s.now) {
		return
	}
	tokens := w.Tokens
	if s.rule.Enabled && s.rule.Hard != budget.NoCap {
		tokens = min(tokens, (s.rule.Hard-budget.Add(s.used, s.held))/leaseShare)
	}
	tokens, holds, calls := s.shareFor(w, tokens)
	// A hold counts in the period it was made in, and periods end with a day.
	until := s.now.Add(w.For)
	if _, midnight := budget.Day.Bounds(s.now); midnight.Before(until) {
		until = midnight
	}
	if tokens < w.Least || holds == 0 || until.Sub(s.now) < w.For/4 {
		return
	}
	l := hold.Lease{
		PortID: w.PortID, ID: events.NewUUIDv7(s.now), Kind: w.Kind, Calls: calls, Version: int64(s.rule.Version), Default: s.rule.Default,
		Tokens: tokens, Holds: holds, Created: s.now, Until: until, Expires: until.Add(w.TTL),
	}
	l.Insert(&d.write)
	d.leases = append(d.leases, l)
	s.held = budget.Add(s.held, tokens)
	s.tally.HoldLeased(calls, nil, tokens, int64(holds), s.now)
}

// shareFor is for how many tokens, and for how many holds of whose calls, a lease may be of which so many
// tokens are left of the port's own caps. Where limits count each user, or each run, the lease is for any of
// them and says how much one may have of it, and who may have nothing: those who are nearer to a cap.
func (s *portState) shareFor(w *Want, tokens int64) (most int64, holds int, calls *budget.Leased) {
	calls = &budget.Leased{Feature: w.Of.Feature}
	holds = min(w.Holds, MaxLeaseHolds)
	if len(s.limits) == 0 {
		return tokens, holds, calls
	}
	by, each := s.rule.LeasedBy()
	of := w.Of.Only(by)
	calls.By, calls.Calls, calls.Each = by, []budget.Labels{of}, map[budget.Per]budget.Allowance{}
	of.Feature = w.Of.Feature
	roomTokens, roomHolds := s.room(&of, each)
	if roomHolds < leastHolds {
		return 0, 0, nil
	}
	for _, d := range each {
		a, ok := s.allowance(&of, d)
		if !ok || a.Tokens < w.Least/LeastCalls || a.Calls == 0 {
			return 0, 0, nil
		}
		calls.Each[d] = a
	}
	holds = int(min(int64(holds+7), roomHolds)) / 8 * 8 // they are bits of whole bytes
	return min(tokens, roomTokens), holds, calls
}
