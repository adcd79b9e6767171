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
	budget     budget.Budget
	rule       *budget.Rule // of the budget
	used, held int64
	holds      int64 // of any period, without those of leases
	now        time.Time
	leased     int64       // of held: the most that gates may have leased and not made into holds
	limits     *limitState // nil: there are none
}

// decide decides as if that much were held of the port's own caps.
func (s *portState) decide(held int64, call *budget.Call) events.Verdict {
	return events.NewVerdict(budget.Decide(s.rule, budget.Count{Used: s.used, Held: held}, call, s.counts(), s.now))
}

func (s *portState) counts() budget.Counts {
	if s.limits == nil {
		return nil
	}
	return s.limits.count
}

// allowsWithoutSpare decides as if gates gave back what they have leased.
func (s *portState) allowsWithoutSpare(call *budget.Call) bool {
	counts := s.counts()
	if s.limits != nil {
		counts = s.limits.withoutSpare
	}
	return budget.Decide(s.rule, budget.Count{Used: s.used, Held: s.held - s.leased}, call, counts, s.now).Allowed
}

// room is how many tokens, and holds, a lease may have of what is left under limits.
type room struct{ tokens, holds int64 }

// room is that for calls of these labels, in limits that do not count each value of these dimensions.
func (s *portState) room(of *budget.Labels, each []budget.Per) room {
	r := room{math.MaxInt64, math.MaxInt64}
	limits := s.rule.Limits()
	for i := range limits {
		l := &limits[i]
		if !l.Matches(of) || slices.Contains(each, l.Per) {
			continue
		}
		start, _ := l.Window.Bounds(s.now)
		tokens, calls := l.Room(s.limits.count(l, of.Of(l.Per), start), leaseShare)
		r.tokens, r.holds = min(r.tokens, tokens), min(r.holds, calls)
	}
	return r
}

// allowance is what a lease for such calls may allow each value of a dimension: what any value
// has room for, in each limit of it, but for those that are nearly full or hold much.
func (s *portState) allowance(of *budget.Labels, each budget.Per) (a budget.Allowance, ok bool) {
	a = budget.Allowance{Tokens: math.MaxInt64, Calls: math.MaxInt64}
	limits := s.rule.Limits()
	for i := range limits {
		l := &limits[i]
		if l.Per != each || !l.Matches(of) || !l.Capped() {
			continue
		}
		start, _ := l.Window.Bounds(s.now)
		tokens, calls, most := l.RoomOfEach(s.limits.tally.Held(l, anyValue, start))
		a.Tokens, a.Calls = min(a.Tokens, tokens), min(a.Calls, calls)
		near, known := s.limits.near[counterAt{l.Counter, anyValue, start.Unix()}]
		if !known {
			return a, false
		}
		a.Except = append(a.Except, near...)
		for _, value := range s.limits.tally.Values(l) {
			if s.limits.tally.Held(l, value, start) > most {
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
	if s.limits != nil {
		s.limits.tally.Hold(call, 1, s.now)
	}
}

// explain says what each limit says, if the request asks for that.
func (s *portState) explain(v *events.Verdict, q *events.ReserveRequest, call *budget.Call) {
	if q.Explain {
		v.Limits = events.NewLimitVerdicts(budget.Explain(s.rule, budget.Count{Used: s.used, Held: s.held}, call, s.counts(), s.now))
	}
}

// granted is the verdict of a request that is allowed, as decided says: its figures are those with its hold,
// which the state includes; what it explains is what it was decided by.
func (s *portState) granted(decided events.Verdict, call *budget.Call, id string, tokens int64, expires time.Time) events.Verdict {
	v := s.decide(s.held, &budget.Call{Labels: call.Labels})
	v.Allowed, v.Reason, v.SoftCapWarning, v.Limits, v.AsOf = true, "", decided.SoftCapWarning, decided.Limits, s.now
	v.ReservationID, v.GrantedTokens, v.ExpiresAt = id, tokens, expires.UTC()
	return v
}
