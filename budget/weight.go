package budget

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// Weights are what the tokens of a call count in a limit of unit weighted; nil: 1.
// InputTokens of a call include those read from and written to a cache: these have weights
// of their own, and Input is for the rest.
type Weights struct {
	Input      *Weight `json:"input,omitempty"`
	CacheRead  *Weight `json:"cache_read,omitempty"`
	CacheWrite *Weight `json:"cache_write,omitempty"`
	Output     *Weight `json:"output,omitempty"`
}

// Weight is what one token counts, in thousandths.
type Weight int64

// WeightScale is one token of weight 1. Figures of limits of unit weighted are kept in
// thousandths, so that nothing is rounded.
const WeightScale = 1000

const maxWeight = 1_000_000 * WeightScale

// MarshalJSON writes a decimal number.
func (w Weight) MarshalJSON() ([]byte, error) {
	text := fmt.Sprintf("%d.%03d", w/WeightScale, w%WeightScale)
	return []byte(strings.TrimSuffix(strings.TrimRight(text, "0"), ".")), nil
}

// UnmarshalJSON reads a number with at most three decimals, as a [*FieldError] if it is none.
func (w *Weight) UnmarshalJSON(text []byte) error {
	v, err := strconv.ParseFloat(string(text), 64)
	thousandths := math.Round(v * WeightScale)
	if err != nil || !(v >= 0) || thousandths > maxWeight || math.Abs(v*WeightScale-thousandths) > 1e-6 {
		return Refuse(ReasonInvalidField, "weights", string(text), fmt.Sprintf("must be a number from 0 to %d with at most 3 decimals", maxWeight/WeightScale))
	}
	*w = Weight(thousandths)
	return nil
}

func (w Weights) validate(field string) error {
	for _, v := range w.scaled() {
		if v < 0 || v > maxWeight {
			return Refuse(ReasonInvalidField, field, v, fmt.Sprintf("must be from 0 to %d", maxWeight/WeightScale))
		}
	}
	return nil
}

// scaled are the weights in thousandths: of input, cache read, cache write and output.
func (w Weights) scaled() (all [4]int64) {
	for i, v := range [...]*Weight{w.Input, w.CacheRead, w.CacheWrite, w.Output} {
		all[i] = WeightScale
		if v != nil {
			all[i] = int64(*v)
		}
	}
	return all
}

// Usage is what a call used. Input includes what was read from or written to a cache.
type Usage struct{ Input, CacheRead, CacheWrite, Output int64 }

// Used is what calls that are over count in the limit: so many of them, which together used so much.
func (l *Limit) Used(calls int64, u *Usage) int64 {
	switch l.unit() {
	case Requests:
		return calls
	case Tokens:
		return Add(u.Input, u.Output)
	}
	w := l.Weights.scaled()
	cached := Add(u.CacheRead, u.CacheWrite)
	return Add(Add(times(max(u.Input-cached, 0), w[0]), times(u.CacheRead, w[1])), Add(times(u.CacheWrite, w[2]), times(u.Output, w[3])))
}

// Scaled is a cap of the limit as counters have it, of unit weighted in thousandths.
func (l *Limit) Scaled(cap int64) int64 { return cap * l.scale() }

// Estimate is what a call is expected to use.
type Estimate struct {
	Tokens int64
	// Input and Output are its parts, where they are known; both 0: they are not.
	Input  int64
	Output int64
}

// Asks is what a call under way, or that asks, counts in the limit.
func (l *Limit) Asks(e Estimate) int64 {
	switch l.unit() {
	case Requests:
		return 1
	case Tokens:
		return e.Tokens
	}
	if e.Input == 0 && e.Output == 0 {
		return times(e.Tokens, WeightScale)
	}
	w := l.Weights.scaled()
	return Add(times(e.Input, w[0]), times(e.Output, w[3]))
}

// asksSum is what some calls count in the limit together.
func (l *Limit) asksSum(s *Sum) int64 {
	asks := l.asked(Estimate{Tokens: s.Tokens, Input: s.Input, Output: s.Output}, s.Calls)
	if l.unit() == Weighted && Add(s.Input, s.Output) != 0 { // of calls that did not say
		asks = Add(asks, times(max(s.Tokens-Add(s.Input, s.Output), 0), WeightScale))
	}
	return asks
}

// AsksAtMost is what so many calls count in the limit at most, that are expected to use so many
// tokens together, whatever of them is input and output.
func (l *Limit) AsksAtMost(tokens, calls int64) int64 {
	switch l.unit() {
	case Requests:
		return calls
	case Tokens:
		return tokens
	}
	w := l.Weights.scaled()
	return times(tokens, max(w[0], w[3], WeightScale))
}

// Room is how many tokens calls may ask for together, and how many calls these may be, that are
// to count for a share of what is left of the limit at most: under its hard cap, and under its
// soft cap until that is reached.
func (l *Limit) Room(n Count, share int64) (tokens, calls int64) {
	soft, hard := l.bounds()
	spent := Add(n.Used, n.Held)
	left := hard - spent
	if spent < soft {
		left = min(left, soft-spent)
	}
	return l.allows(max(left, 0) / share)
}

// allows are the tokens, or the calls, that count for so much at most.
func (l *Limit) allows(units int64) (tokens, calls int64) {
	if l.unit() == Requests {
		return math.MaxInt64, units
	}
	return units / l.AsksAtMost(1, 1), math.MaxInt64
}

// A lease that is for any value of a limit's Per leaves three quarters of each cap to what is
// used: it is not for values that used more. The fourth quarter is for what is held, and the
// lease takes a quarter of what is left of that. So a value that it is for fits under the cap,
// although nobody has looked at it.
const heldShare = 4

// RoomOfEach is how many tokens a lease may allow each value of a limit with a cap of which so much is held
// of every value, and how many calls. It is not for values of which more than most is held.
func (l *Limit) RoomOfEach(held int64) (tokens, calls, most int64) {
	soft, hard := l.bounds()
	most = min(hard, soft) / heldShare
	take := max(most-held, 0) / heldShare
	tokens, calls = l.allows(take)
	return tokens, calls, most - take
}

// NearFull are the bounds of what values have used that no lease of any value is for: more than
// low and less than below, or more than high.
func (l *Limit) NearFull() (low, below, high int64) {
	soft, hard := l.bounds()
	if soft < math.MaxInt64 {
		low, below = soft-soft/heldShare, soft
	}
	return low, below, hard - hard/heldShare
}

// Capped reports whether there is a cap of the limit.
func (l *Limit) Capped() bool { return l.Hard != nil || l.Soft != nil }

// caps are soft and hard cap as counters count, [NoCap] where there is none.
func (l *Limit) caps() (soft, hard int64) {
	soft, hard = NoCap, NoCap
	if l.Soft != nil {
		soft = *l.Soft * l.scale()
	}
	if l.Hard != nil {
		hard = *l.Hard * l.scale()
	}
	return soft, hard
}

// bounds are the caps up to which a lease may go, the largest number where there is none. A soft cap of 0 is none:
// it is reached anyway.
func (l *Limit) bounds() (soft, hard int64) {
	soft, hard = l.caps()
	if soft <= 0 {
		soft = math.MaxInt64
	}
	if hard == NoCap {
		hard = math.MaxInt64
	}
	return soft, hard
}

// fits is the largest estimate like e, and not larger, that asks for no more than so
// much: output is given up first, since that is what a caller can bound.
func (l *Limit) fits(e Estimate, left int64) (Estimate, bool) {
	if l.Asks(e) <= left {
		return e, true
	}
	if l.unit() == Requests {
		return Estimate{}, false
	}
	if l.unit() == Tokens || e.Input == 0 && e.Output == 0 {
		tokens := left
		if l.unit() == Weighted {
			tokens /= WeightScale
		}
		return e.shrunk(tokens)
	}
	w := l.Weights.scaled()
	rest := left - times(e.Input, w[0])
	if rest < 0 || w[3] == 0 {
		return Estimate{}, false
	}
	return e.shrunk(e.Input + rest/w[3])
}

// shrunk takes tokens off, from the output where the parts are known.
func (e Estimate) shrunk(to int64) (Estimate, bool) {
	if e.Input != 0 || e.Output != 0 {
		e.Output -= e.Tokens - to
		if e.Output < 0 {
			return Estimate{}, false
		}
	}
	e.Tokens = to
	return e, to > 0
}

// scale is how many of what the limit keeps are one of what it is called in.
func (l *Limit) scale() int64 {
	if l.unit() == Weighted {
		return WeightScale
	}
	return 1
}

// times multiplies. A product that 64 bits cannot hold is the largest that they can.
func times(a, b int64) int64 {
	high, low := bits.Mul64(uint64(a), uint64(b))
	if high != 0 || low > math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(low)
}
