package budget

import (
	"cmp"
	"slices"
	"time"
)

// LimitSimulation is what a limit would have made of a port's calls. Tokens are in its unit.
type LimitSimulation struct {
	From           time.Time      `json:"from"` // whole windows of the limit, [From, To)
	To             time.Time      `json:"to"`
	Unit           Unit           `json:"unit"`
	Calls          int64          `json:"calls"` // that the limit matches
	RefusedCalls   int64          `json:"refused_calls"`
	RefusedTokens  int64          `json:"refused_tokens"`
	FirstRefusedAt time.Time      `json:"first_refused_at,omitzero"` // zero: none would have been refused
	WarnedCalls    int64          `json:"warned_calls"`              // admitted with a soft cap warning
	FirstWarnedAt  time.Time      `json:"first_warned_at,omitzero"`  // zero: none would have been warned of
	UsedTokens     int64          `json:"used_tokens"`               // of the calls that would have been admitted
	Values         int64          `json:"values"`                    // that are counted by themselves: how many the calls have
	RefusedValues  int64          `json:"refused_values"`            // how many of these would have had a call refused
	Refused        []ValueRefused `json:"refused"`                   // most refused calls first, [MaxValuesRefused] at most
}

// ValueRefused is what a limit would have refused of one value.
type ValueRefused struct {
	Value          string    `json:"value"`
	RefusedCalls   int64     `json:"refused_calls"`
	RefusedTokens  int64     `json:"refused_tokens"`
	FirstRefusedAt time.Time `json:"first_refused_at"`
}

// MaxValuesRefused is how many values a [LimitSimulation] lists. It knows no more than twice
// as many at once, whatever the number of users.
const MaxValuesRefused = 100

// LimitPlayer applies a limit to calls of the past, as if it had been in force and each
// caller's estimate exact. It counts from nothing in each window, also where To cuts a window in two
// or, with a window that never starts anew, From does.
type LimitPlayer struct {
	limit      *Limit
	soft, hard int64 // in what is counted, NoCap if there is none
	sim        LimitSimulation

	value   ValueRefused // whose calls are played
	started bool
	end     time.Time // of the window that is played; zero: never
	used    int64     // in it
}

// NewLimitPlayer returns a player of l, for calls of [from, to).
func NewLimitPlayer(l *Limit, from, to time.Time) *LimitPlayer {
	soft, hard := l.caps()
	return &LimitPlayer{limit: l, soft: soft, hard: hard, sim: LimitSimulation{From: from, To: to, Unit: l.unit(), Refused: []ValueRefused{}}}
}

// Span is the period whose calls a limit is tried on: its window, or the day of an hour, or a
// month of what never starts anew.
func (l *Limit) Span() Period {
	switch l.Window {
	case Hour:
		return Day
	case Total:
		return Month
	}
	return l.Window
}

// Worth is what the calls of a value and window together must use at least to be worth
// playing: those that use less are neither refused nor warned of.
func (p *LimitPlayer) Worth() int64 {
	switch {
	case p.hard == NoCap:
		return p.soft
	case p.soft == NoCap:
		return p.hard
	}
	return min(p.soft, p.hard)
}

// Count notes all calls, those that are to be played and those that are not worth it.
func (p *LimitPlayer) Count(calls, used, values int64) {
	p.sim.Calls += calls
	p.sim.UsedTokens = Add(p.sim.UsedTokens, used)
	p.sim.Values += values
}

// Play plays one call. They come value by value, and those of a value in their order.
func (p *LimitPlayer) Play(value string, at time.Time, u *Usage) {
	if !p.started || p.value.Value != value {
		p.finish()
		p.started, p.value = true, ValueRefused{Value: value}
		p.begin(at)
	} else if !p.end.IsZero() && !at.Before(p.end) {
		p.begin(at)
	}
	asks := p.limit.Used(1, u)
	refused, warned := judge(p.soft, p.hard, p.used, asks)
	if refused != "" {
		p.value.RefusedCalls++
		p.value.RefusedTokens = Add(p.value.RefusedTokens, asks)
		if p.value.FirstRefusedAt.IsZero() {
			p.value.FirstRefusedAt = at.UTC()
		}
		return
	}
	p.used = Add(p.used, asks)
	if warned {
		p.sim.WarnedCalls++
		p.sim.FirstWarnedAt = earlier(p.sim.FirstWarnedAt, at.UTC())
	}
}

func (p *LimitPlayer) begin(at time.Time) {
	_, p.end = p.limit.Window.Bounds(at)
	p.used = 0
}

// finish adds up what became of a value.
func (p *LimitPlayer) finish() {
	v := p.value
	if v.RefusedCalls == 0 {
		return
	}
	s := &p.sim
	s.RefusedCalls += v.RefusedCalls
	s.RefusedTokens = Add(s.RefusedTokens, v.RefusedTokens)
	s.FirstRefusedAt = earlier(s.FirstRefusedAt, v.FirstRefusedAt)
	s.RefusedValues++
	v.RefusedTokens = up(v.RefusedTokens, p.limit.scale())
	if s.Refused = append(s.Refused, v); len(s.Refused) == 2*MaxValuesRefused {
		p.keepMost()
	}
}

func (p *LimitPlayer) keepMost() {
	slices.SortFunc(p.sim.Refused, func(a, b ValueRefused) int {
		return cmp.Or(cmp.Compare(b.RefusedCalls, a.RefusedCalls), cmp.Compare(a.Value, b.Value))
	})
	p.sim.Refused = p.sim.Refused[:min(len(p.sim.Refused), MaxValuesRefused)]
}

// Result is what became of the calls that were counted, once all that are worth it were played.
func (p *LimitPlayer) Result() LimitSimulation {
	p.finish()
	p.value = ValueRefused{}
	p.keepMost()
	s, scale := p.sim, p.limit.scale()
	s.UsedTokens, s.RefusedTokens = up(s.UsedTokens-s.RefusedTokens, scale), up(s.RefusedTokens, scale)
	return s
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// Counting is what a call counts in the limit, as weights: of the call itself, and of its
// tokens of uncached input, cache read, cache write and output.
func (l *Limit) Counting() [5]int64 {
	switch l.unit() {
	case Requests:
		return [5]int64{1, 0, 0, 0, 0}
	case Tokens:
		return [5]int64{0, 1, 1, 1, 1}
	}
	w := l.Weights.scaled()
	return [5]int64{0, w[0], w[1], w[2], w[3]}
}
