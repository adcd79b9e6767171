package ledger

import (
	"math"
	"time"

	"github.com/tidegate/tidegate/events"
)

// player applies a budget to calls as they come. It is the rule of a simulation,
// and knows nothing of where the calls are from.
type player struct {
	soft, hard int64 // math.MaxInt64: none
	sim        Simulation
	admitted   int64 // calls
	tokens     int64 // of all calls, admitted or not

	used    int64 // in the current period
	refused bool  // something, in the current period
}

func newPlayer(b events.Budget) player {
	p := player{soft: math.MaxInt64, hard: math.MaxInt64}
	if b.SoftCapTokens != nil {
		p.soft = *b.SoftCapTokens
	}
	if b.HardCapTokens != nil {
		p.hard = *b.HardCapTokens
	}
	return p
}

// begin starts a period.
func (p *player) begin() { p.used, p.refused = 0, false }

// count notes calls that are to be played.
func (p *player) count(calls, tokens int64) {
	p.sim.Calls += calls
	p.tokens += tokens
}

// limit is what a call may have to be worth looking at: whatever is larger is
// refused, and need not be seen unless it is the first.
func (p *player) limit() int64 {
	if p.refused {
		return p.hard - p.used
	}
	return math.MaxInt64
}

// settle plays calls of which only number and sum are known, in any order, if
// these decide what becomes of each.
func (p *player) settle(calls, tokens int64) bool {
	headroom := p.hard - p.used
	switch {
	case calls == 0:
		return true
	case tokens >= headroom: // at headroom itself, calls of 0 tokens may come too late
		return false
	case p.used < p.soft && tokens < p.soft-p.used:
	case p.used >= p.soft && !p.sim.FirstWarnedAt.IsZero():
		p.sim.WarnedCalls += calls
	default:
		return false
	}
	p.used += tokens
	p.sim.UsedTokens += tokens
	p.admitted += calls
	return true
}

// play plays one call.
func (p *player) play(at time.Time, tokens int64) {
	if headroom := p.hard - p.used; headroom == 0 || tokens > headroom {
		p.refused = true
		if p.sim.FirstRefusedAt.IsZero() {
			p.sim.FirstRefusedAt = at.UTC()
		}
		return
	}
	p.used += tokens
	p.sim.UsedTokens += tokens
	p.admitted++
	if p.used >= p.soft {
		p.sim.WarnedCalls++
		if p.sim.FirstWarnedAt.IsZero() {
			p.sim.FirstWarnedAt = at.UTC()
		}
	}
}

func (p *player) result() Simulation {
	p.sim.RefusedCalls = p.sim.Calls - p.admitted
	p.sim.RefusedTokens = p.tokens - p.sim.UsedTokens
	return p.sim
}
