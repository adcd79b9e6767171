package e2e

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/tidegate/tidegate/internal/testenv"
)

// The model of one port's budget in one period: what reservations may do, as a sequence. The
// checker looks for an order of the concurrent operations, within the time each
// took, that the model allows.

type opKind int

const (
	opReserve opKind = iota
	opSettle
	opRelease
	opExpire
	opLimits // which limits the budget has, and how many extra tokens, is changed
)

func (k opKind) String() string {
	return [...]string{"reserve", "settle", "release", "expire", "limits"}[k]
}

type operation struct {
	port      string
	period    time.Time // the start of the one that it is about
	kind      opKind
	id        string // of the reservation
	tokens    int64  // asked, or used; of opLimits: extra
	ok        bool   // of a reserve: allowed
	spent     int64  // of a refused one: used + held, as it was answered
	counts    counts // asked, or used, in each count of limits that the call is about
	limits    uint8  // of opLimits: those that the budget has from then on, a bit each
	call, ret int64  // Unix nanoseconds
}

// budget names what is checked by itself: a port in a period.
func (o operation) budget() string { return o.port + " " + o.period.Format(time.DateOnly) }

// state is immutable: a step makes a new one.
type state struct {
	used   int64
	holds  []hold // sorted by id
	counts counts // used, whether the budget has the limit or not: one that comes counts what there is
	limits uint8
	extra  int64 // on top of the hard cap
}

type hold struct {
	id     string
	tokens int64
	counts counts
}

// counts has a figure for each count of the limits of limits_chaos_test.go.
type counts [len(chaosCounts)]int64

func (c counts) plus(o counts) counts {
	for i := range o {
		c[i] += o[i]
	}
	return c
}

// fits reports whether so much more fits under the limits that there are.
func (s state) fits(asked counts, scale int64) bool {
	all := s.counts
	for _, h := range s.holds {
		all = all.plus(h.counts)
	}
	for i, of := range chaosCounts {
		if asked[i] > 0 && s.limits&(1<<of.limit) != 0 && all[i]+asked[i] > scale*of.hard {
			return false
		}
	}
	return true
}

func (s state) held() (sum int64) {
	for _, h := range s.holds {
		sum += h.tokens
	}
	return sum
}

func (s state) find(id string) (int, bool) {
	return slices.BinarySearchFunc(s.holds, id, func(h hold, id string) int { return strings.Compare(h.id, id) })
}

func (s state) without(id string) state {
	i, ok := s.find(id)
	if !ok {
		return s
	}
	s.holds = slices.Delete(slices.Clone(s.holds), i, i+1)
	return s
}

// step is the whole contract of reservations.
func step(s state, op operation) (bool, state) {
	switch op.kind {
	case opReserve:
		spent := s.used + s.held()
		hard := chaosCap(op.port) + s.extra
		fits := spent < hard && spent+op.tokens <= hard && s.fits(op.counts, chaosScale(op.port))
		if op.ok != fits { // past the cap, or refused while budget was left
			return false, s
		}
		if !op.ok {
			return true, s
		}
		i, exists := s.find(op.id)
		if exists { // an id is given out once
			return false, s
		}
		s.holds = slices.Insert(slices.Clone(s.holds), i, hold{op.id, op.tokens, op.counts})
		return true, s
	case opSettle: // whatever the id is worth, the tokens are spent
		s = s.without(op.id)
		s.used, s.counts = s.used+op.tokens, s.counts.plus(op.counts)
		return true, s
	case opLimits:
		s.limits, s.extra = op.limits, op.tokens
		return true, s
	default:
		return true, s.without(op.id)
	}
}

var model = porcupine.Model{
	Init: func() any { return state{} },
	Step: func(s, in, _ any) (bool, any) {
		ok, next := step(s.(state), in.(operation))
		return ok, next
	},
	Equal: func(a, b any) bool {
		x, y := a.(state), b.(state)
		return x.used == y.used && x.counts == y.counts && x.limits == y.limits && x.extra == y.extra && slices.Equal(x.holds, y.holds)
	},
	DescribeOperation: func(in, _ any) string {
		op := in.(operation)
		return fmt.Sprintf("%s %d %v", op.kind, op.tokens, op.ok)
	},
}

// How long the checker may take over one budget. Of a planted bug some budget shows it soon.
const (
	checkFor    = time.Minute
	checkForBug = 2 * time.Second
)

// check returns the budgets whose history the model does not allow, each with why, and
// those for which it found no answer in time. It stops once it has found so many illegal
// ones; -1 means never.
func (c *chaos) check(most int) (illegal map[string]string, undecided []string) {
	illegal = map[string]string{}
	lasts := checkFor
	if c.bug != "" {
		lasts = checkForBug
	}
	byPort := map[string][]porcupine.Operation{}
	for i, op := range c.history {
		byPort[op.budget()] = append(byPort[op.budget()], porcupine.Operation{ClientId: i % chaosCallers, Input: op, Call: op.call, Return: op.ret})
	}
	for budget, history := range byPort {
		if len(illegal) == most {
			break
		}
		switch porcupine.CheckOperationsTimeout(model, history, lasts) {
		case porcupine.Illegal:
			granted := slices.DeleteFunc(history, func(o porcupine.Operation) bool {
				op := o.Input.(operation)
				return op.kind == opReserve && !op.ok
			})
			why := "past the cap"
			if porcupine.CheckOperationsTimeout(model, granted, lasts) == porcupine.Ok {
				why = "refused while budget was left"
			}
			illegal[budget] = fmt.Sprintf("%d operations: %s", len(history), why)
		case porcupine.Unknown:
			undecided = append(undecided, budget)
		}
	}
	return illegal, undecided
}

func (c *chaos) mustBeLegal() {
	c.t.Helper()
	illegal, undecided := c.check(-1)
	for budget, why := range illegal {
		c.t.Errorf("seed %d: no order of the history of %s is allowed: %s\n%s", c.seed, budget, why, c.describe(budget))
	}
	if len(undecided) > 0 {
		c.t.Errorf("seed %d: the checker ran out of time on %v", c.seed, undecided)
	}
	testenv.Eventually(c.t, "verify is answered, and finds no differences", func() bool { // the last killed sessions are noticed when they are used
		v, err := c.ops.Verify(c.t.Context())
		return err == nil && v.OK
	})
}

// describe tells what happened to a budget: the same seed makes another history.
func (c *chaos) describe(budget string) string {
	history := slices.DeleteFunc(slices.Clone(c.history), func(op operation) bool { return op.budget() != budget })
	slices.SortFunc(history, func(a, b operation) int { return cmp.Compare(a.call, b.call) })
	text := fmt.Appendf(nil, "hard cap %d; milliseconds since the first call\n    from       to  what     tokens  allowed   spent  reservation, its slice\n", chaosCap(history[0].port))
	for _, op := range history {
		slice, _ := sliceOf(op.id)
		text = fmt.Appendf(text, "%8.3f %8.3f  %-7s  %6d  %-7t  %6d  %s %s", float64(op.call-history[0].call)/1e6, float64(op.ret-history[0].call)/1e6, op.kind, op.tokens, op.ok, op.spent, op.id, slice)
		if c.limits {
			text = fmt.Appendf(text, " %v %05b", op.counts, op.limits)
		}
		text = append(text, '\n')
	}
	return string(text)
}

func (c *chaos) tally() string {
	counts := map[string]int{}
	for _, op := range c.history {
		name := op.kind.String()
		if op.kind == opReserve && !op.ok {
			name = "refused"
		}
		if _, sliced := sliceOf(op.id); sliced && op.kind == opReserve {
			name = "reserve from a slice"
		}
		counts[name]++
		if c.clock != nil && op.kind == opReserve && op.period.Equal(midnight) {
			counts["reserve or refused after midnight"]++
		}
	}
	return fmt.Sprint(counts, " a second consumer killed ", c.kills)
}
