package reservation

import (
	"math"
	"slices"
	"time"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
)

// portState is what requests of a port are decided by, while the port is locked.
type portState struct {
	rule       *budget.Rule
	used, held int64
	holds      int64 // of any period, without those of leases
	now        time.Time
	leased     int64 // of held: the most that gates may have leased and not made into holds

	limits  []budget.Limit      // those that bind
	counted map[counterOf]int64 // what they have used, where a request or a want asks for it
	near    map[int][]string    // by their places, values that no lease of any value is to be for; nil: there are too many to know
	tally   *budget.Tally
	spare   *budget.Tally // of that, the most that gates may have leased and not made into holds
}

// decide decides as if that much were held of the port's own caps.
func (s *portState) decide(held int64, call *budget.Call) events.Verdict {
	return events.NewVerdict(budget.Decide(s.rule, budget.Count{Used: s.used, Held: held}, call, s.count, s.now))
}

func (s *portState) count(l *budget.Limit, value string, start time.Time) budget.Count {
	return budget.Count{Used: s.counted[counterOf{l.Counter, value}], Held: s.tally.Held(l, value, start)}
}

// mayFit tells whether a request that was refused would be allowed if gates gave back
// what they have leased.
func (s *portState) mayFit(q *events.ReserveRequest) bool {
	if s.leased == 0 || q.AcceptLess {
		return s.leased > 0
	}
	call := q.Call()
	withoutSpare := func(l *budget.Limit, value string, start time.Time) budget.Count {
		n := s.count(l, value, start)
		n.Held = max(n.Held-s.spare.Held(l, value, start), 0)
		return n
	}
	return budget.Decide(s.rule, budget.Count{Used: s.used, Held: s.held - s.leased}, &call, withoutSpare, s.now).Allowed
}

// room is how many tokens, and holds, a lease for calls of these labels may have of what is left
// under limits that do not count each value of these dimensions.
func (s *portState) room(of *budget.Labels, each []budget.Per) (tokens, holds int64) {
	tokens, holds = math.MaxInt64, math.MaxInt64
	for i := range s.limits {
		l := &s.limits[i]
		if !l.Matches(of) || slices.Contains(each, l.Per) {
			continue
		}
		start, _ := l.Window.Bounds(s.now)
		t, h := l.Room(s.count(l, of.Of(l.Per), start), leaseShare)
		tokens, holds = min(tokens, t), min(holds, h)
	}
	return tokens, holds
}

// allowance is what a lease for such calls may allow each value of a dimension: what any value
// has room for, in each limit of it, but for those that are nearly full or hold much.
func (s *portState) allowance(of *budget.Labels, each budget.Per) (a budget.Allowance, ok bool) {
	a = budget.Allowance{Tokens: math.MaxInt64, Calls: math.MaxInt64}
	for i := range s.limits {
		l := &s.limits[i]
		if l.Per != each || !l.Matches(of) || !l.Capped() {
			continue
		}
		start, _ := l.Window.Bounds(s.now)
		tokens, calls, most := l.RoomOfEach(s.tally.Held(l, anyValue, start))
		a.Tokens, a.Calls = min(a.Tokens, tokens), min(a.Calls, calls)
		if s.near[i] == nil {
			return a, false
		}
		a.Except = append(a.Except, s.near[i]...)
		for _, value := range s.tally.Values(l) {
			if s.tally.Held(l, value, start) > most {
				a.Except = append(a.Except, value)
			}
		}
	}
	a.Except = sorted(a.Except)
	return a, len(a.Except) <= maxExcept
}

// hold counts a hold that was made now.
func (s *portState) hold(call *budget.Call) {
	s.held, s.holds = budget.Add(s.held, call.Tokens), s.holds+1
	s.tally.Hold(call, 1, s.now)
}

// granted is the verdict of a request that is allowed, as decided says: its figures are those with its hold,
// which the state includes; what it explains is what it was decided by.
func (s *portState) granted(decided events.Verdict, call *budget.Call, id string, tokens int64, expires time.Time) events.Verdict {
	v := s.decide(s.held, &budget.Call{Labels: call.Labels})
	v.Allowed, v.Reason, v.SoftCapWarning, v.Limits, v.AsOf = true, "", decided.SoftCapWarning, decided.Limits, s.now
	v.ReservationID, v.GrantedTokens, v.ExpiresAt = id, tokens, expires.UTC()
	return v
}
