package gate

import (
	"math"
	"time"

	"github.com/tidegate/tidegate/events"
)

// limits is a budget as the gate keeps it: small, since a gate remembers every
// port, and never changed once made, so that answers may point into it.
type limits struct {
	enabled    bool
	period     periodIndex
	version    int32
	soft, hard int64 // noCap if there is none
}

const noCap = -1

type periodIndex uint8

var periods = [...]events.Period{events.PeriodDay, events.PeriodWeek, events.PeriodMonth}

// unlimited binds a port that has no budget.
var unlimited = newLimits(events.Budget{Period: events.PeriodMonth})

func newLimits(b events.Budget) *limits {
	l := &limits{enabled: b.Enabled, period: 2, soft: noCap, hard: noCap, version: int32(b.Version)}
	for i, p := range periods {
		if p == b.Period {
			l.period = periodIndex(i)
		}
	}
	if b.SoftCapTokens != nil {
		l.soft = *b.SoftCapTokens
	}
	if b.HardCapTokens != nil {
		l.hard = *b.HardCapTokens
	}
	return l
}

func capOf(n *int64) *int64 {
	if *n == noCap {
		return nil
	}
	return n
}

// decide is the whole of the budget rules: read top down, the first match decides
// allowed and reason. The warning does not depend on them: whoever is refused is past
// the soft cap too. It is a pure function; used and held are those of the period that
// contains now.
func decide(l *limits, used, held, estimate int64, now time.Time) events.Verdict {
	start, end := periods[l.period].Bounds(now)
	v := events.Verdict{
		Enabled: l.enabled, Period: periods[l.period], PeriodStart: start, ResetsAt: end,
		UsedTokens: used, HeldTokens: held, SoftCapTokens: capOf(&l.soft), HardCapTokens: capOf(&l.hard),
	}
	spent := saturatingAdd(used, held)
	asked := saturatingAdd(spent, estimate)
	if l.hard != noCap {
		remaining := max(l.hard-spent, 0)
		v.RemainingTokens = &remaining
	}
	switch {
	case !l.enabled:
		v.Allowed = true
	case l.hard != noCap && spent >= l.hard:
		v.Reason = events.ReasonHardCapReached
	case l.hard != noCap && asked > l.hard:
		v.Reason = events.ReasonEstimateExceedsHardCap
	default:
		v.Allowed = true
	}
	v.SoftCapWarning = l.enabled && l.soft != noCap && asked >= l.soft
	return v
}

func saturatingAdd(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
