package budget

import (
	"math"
	"time"
)

// Simulation is what a budget would have made of a port's calls.
type Simulation struct {
	From           time.Time `json:"from"` // whole periods of the budget, [From, To)
	To             time.Time `json:"to"`
	Calls          int64     `json:"calls"`
	RefusedCalls   int64     `json:"refused_calls"`
	RefusedTokens  int64     `json:"refused_tokens"`
	FirstRefusedAt time.Time `json:"first_refused_at,omitzero"` // zero: none would have been refused
	WarnedCalls    int64     `json:"warned_calls"`              // admitted with a soft cap warning
	FirstWarnedAt  time.Time `json:"first_warned_at,omitzero"`  // zero: none would have been warned of
	UsedTokens     int64     `json:"used_tokens"`               // of the calls that would have been admitted
}

// Player applies a budget to calls of the past as they come, as if it had been in force,
// enabled or not, without extra tokens, and each caller's estimate exact. It knows nothing of where they are from.
type Player struct {
	rule     *Rule
	sim      Simulation
	admitted int64 // calls
	tokens   int64 // of all calls, admitted or not

	used    int64 // in the current period
	refused bool  // something, in the current period
}

// NewPlayer returns a player of b, for calls of [from, to).
func NewPlayer(b Budget, from, to time.Time) Player {
	b.Enabled = true
	return Player{rule: b.Rule(), sim: Simulation{From: from, To: to}}
}

// Begin starts a period.
func (p *Player) Begin() { p.used, p.refused = 0, false }

// Count notes calls that are to be played.
func (p *Player) Count(calls, tokens int64) {
	p.sim.Calls += calls
	p.tokens += tokens
}

// Refused reports whether a call of the current period was refused.
func (p *Player) Refused() bool { return p.refused }

// Worth is the most that a call may have to be worth looking at: whatever is larger is
// refused, and need not be seen unless it is the first. At 0 no call is worth it.
func (p *Player) Worth() int64 {
	if p.refused {
		return p.headroom()
	}
	return math.MaxInt64
}

func (p *Player) headroom() int64 {
	if p.rule.Hard == NoCap {
		return math.MaxInt64
	}
	return p.rule.Hard - p.used
}

// PlaySum plays calls of which only number and sum are known, in any order, if
// these decide what becomes of each.
func (p *Player) PlaySum(calls, tokens int64) bool {
	if calls == 0 {
		return true
	}
	// At the hard cap itself, calls of 0 tokens may come too late.
	if tokens >= p.headroom() {
		return false
	}
	_, before := judge(p.rule.Soft, p.rule.Hard, p.used, 0)
	_, after := judge(p.rule.Soft, p.rule.Hard, p.used, tokens)
	switch {
	case !after:
	case before && !p.sim.FirstWarnedAt.IsZero():
		p.sim.WarnedCalls += calls
	default: // which of them is the first to be warned of?
		return false
	}
	p.used += tokens
	p.sim.UsedTokens += tokens
	p.admitted += calls
	return true
}

// Play plays one call.
func (p *Player) Play(at time.Time, tokens int64) {
	refused, warned := judge(p.rule.Soft, p.rule.Hard, p.used, tokens)
	if refused != "" {
		p.refused = true
		if p.sim.FirstRefusedAt.IsZero() {
			p.sim.FirstRefusedAt = at.UTC()
		}
		return
	}
	p.used += tokens
	p.sim.UsedTokens += tokens
	p.admitted++
	if warned {
		p.sim.WarnedCalls++
		if p.sim.FirstWarnedAt.IsZero() {
			p.sim.FirstWarnedAt = at.UTC()
		}
	}
}

// Result is what became of the calls that were counted, all of which were played or not
// worth it.
func (p *Player) Result() Simulation {
	s := p.sim
	s.RefusedCalls = s.Calls - p.admitted
	s.RefusedTokens = p.tokens - s.UsedTokens
	return s
}
