package reservation

import (
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
