package e2e

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"testing"
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

// input is an operation as the model takes it: the checker compares very many states, and none of them by strings.
type input struct {
	operation
	hold  int32 // a number for its id among those given out for the budget; none of them: -1
	holds held  // what the hold of that id holds
}

type held struct {
	tokens int64
	counts counts
}

// state is immutable: a step makes a new one.
type state struct {
	used   int64
	counts counts // used, whether the budget has the limit or not: one that comes counts what there is
	limits uint8
	extra  int64   // on top of the hard cap
	held   held    // by all holds
	holds  []int32 // sorted
}

// counts has a figure for each count of the limits of limits_chaos_test.go.
type counts [len(chaosCounts)]int64

func (c counts) plus(o counts) counts {
	for i := range o {
		c[i] += o[i]
	}
	return c
}

func (c counts) minus(o counts) counts {
	for i := range o {
		c[i] -= o[i]
	}
	return c
}

// fits reports whether so much more fits under the limits that there are.
func (s *state) fits(asked *counts, scale int64) bool {
	for i, of := range chaosCounts {
		if asked[i] > 0 && s.limits&(1<<of.limit) != 0 && s.counts[i]+s.held.counts[i]+asked[i] > scale*of.hard {
			return false
		}
	}
	return true
}

func (s state) with(hold int32, of held, at int) state {
	s.holds = slices.Insert(slices.Clone(s.holds), at, hold)
	s.held = held{s.held.tokens + of.tokens, s.held.counts.plus(of.counts)}
	return s
}

func (s state) without(hold int32, of held) state {
	at, exists := slices.BinarySearch(s.holds, hold)
	if !exists {
		return s
	}
	s.holds = slices.Delete(slices.Clone(s.holds), at, at+1)
	s.held = held{s.held.tokens - of.tokens, s.held.counts.minus(of.counts)}
	return s
}

func (s *state) equal(o *state) bool {
	return s.used == o.used && s.held.tokens == o.held.tokens && s.limits == o.limits && s.extra == o.extra && s.counts == o.counts && slices.Equal(s.holds, o.holds)
}

// step is the whole contract of reservations.
func step(s *state, op *input) (bool, *state) {
	switch op.kind {
	case opReserve:
		spent := s.used + s.held.tokens
		hard := chaosCap(op.port) + s.extra
		fits := spent < hard && spent+op.tokens <= hard && s.fits(&op.counts, chaosScale(op.port))
		if op.ok != fits { // past the cap, or refused while budget was left
			return false, s
		}
		if !op.ok {
			return true, s
		}
		at, exists := slices.BinarySearch(s.holds, op.hold)
		if exists { // an id is given out once
			return false, s
		}
		next := s.with(op.hold, op.holds, at)
		return true, &next
	case opSettle: // whatever the id is worth, the tokens are spent
		next := s.without(op.hold, op.holds)
		next.used, next.counts = next.used+op.tokens, next.counts.plus(op.counts)
		return true, &next
	case opLimits:
		next := *s
		next.limits, next.extra = op.limits, op.tokens
		return true, &next
	default:
		next := s.without(op.hold, op.holds)
		return true, &next
	}
}

// model is step for porcupine, by which the search of search_test.go is tested.
var model = porcupine.Model{
	Init:  func() any { return new(state) },
	Step:  func(s, in, _ any) (bool, any) { return step(s.(*state), in.(*input)) },
	Equal: func(a, b any) bool { return a.(*state).equal(b.(*state)) },
	DescribeOperation: func(in, _ any) string {
		op := in.(*input)
		return fmt.Sprintf("%s %d %v", op.kind, op.tokens, op.ok)
	},
}

// inputs are the operations of a budget. One id may not stand for different holds.
func inputs(history []operation) (list []porcupine.Operation, twice string) {
	numbers, holds := map[string]int32{}, []held{}
	for _, op := range history {
		if op.kind != opReserve || !op.ok {
			continue
		}
		of := held{op.tokens, op.counts}
		if n, known := numbers[op.id]; known && holds[n] != of {
			return nil, op.id
		} else if !known {
			numbers[op.id] = int32(len(holds))
			holds = append(holds, of)
		}
	}
	for _, op := range history {
		in := &input{operation: op, hold: -1}
		if n, known := numbers[op.id]; known {
			in.hold, in.holds = n, holds[n]
		}
		list = append(list, porcupine.Operation{Input: in, Call: op.begins(history), Return: op.ret})
	}
	return list, ""
}

// heardWithin is how long a gate may make holds from leases of the budget before, once a change is stored
// and before it is answered: meanwhile others may be refused by the new one.
const heardWithin = 100 * time.Millisecond

// begins is when an operation may take effect at the earliest. What a hold from a lease holds was held before it.
func (o operation) begins(history []operation) int64 {
	if _, leased := sliceOf(o.id); leased && o.kind == opReserve {
		for _, change := range history {
			if change.kind == opLimits && change.call < o.call && o.call < change.ret {
				return max(change.call, o.call-int64(heardWithin))
			}
		}
	}
	return o.call
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
	byBudget := map[string][]operation{}
	for _, op := range c.history {
		byBudget[op.budget()] = append(byBudget[op.budget()], op)
	}
	undecided = slices.SortedFunc(maps.Keys(byBudget), func(a, b string) int { return cmp.Compare(len(byBudget[a]), len(byBudget[b])) })
	for _, lasts := range c.patience() {
		var left []string
		for _, budget := range undecided {
			if len(illegal) == most {
				return illegal, left
			}
			why, decided := verdict(byBudget[budget], lasts)
			if !decided {
				left = append(left, budget)
			} else if why != "" {
				illegal[budget] = why
			}
		}
		undecided = left
	}
	return illegal, undecided
}

// patience is how long the checker may take over each budget: of a planted bug, which some budget
// shows soon and most never, a little over each at first.
func (c *chaos) patience() (rounds []time.Duration) {
	if c.bug == "" {
		return []time.Duration{checkFor}
	}
	for lasts := checkForBug / 32; lasts <= checkForBug; lasts *= 2 {
		rounds = append(rounds, lasts)
	}
	return rounds
}

// verdict says why the model does not allow what happened to a budget, "" if it does.
func verdict(ops []operation, lasts time.Duration) (why string, decided bool) {
	history, twice := inputs(ops)
	if twice != "" {
		return fmt.Sprintf("%d operations: two holds have the id %s", len(ops), twice), true
	}
	if legal, decided := ordered(history, lasts); legal || !decided {
		return "", decided
	}
	granted := slices.DeleteFunc(history, func(o porcupine.Operation) bool {
		op := o.Input.(*input)
		return op.kind == opReserve && !op.ok
	})
	why = "past the cap"
	if legal, _ := ordered(granted, lasts); legal {
		why = "refused while budget was left"
	}
	return fmt.Sprintf("%d operations: %s", len(ops), why), true
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
		v, err := c.ops.Verify(c.t.Context(), nil)
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
	return fmt.Sprintf("%d faults to gates and sessions, a second consumer killed %v: %v", c.faults, c.kills, counts)
}

// While limits change, a hold from a lease of before may follow a refusal by the new ones, for a moment; once the
// change is answered it may not, nor may any other hold.
func TestTheModelAroundAChangeOfLimits(t *testing.T) {
	t.Parallel()
	leased := base64.RawURLEncoding.EncodeToString(append([]byte{1}, make([]byte, 17)...))
	for _, one := range []struct {
		what         string
		id           string
		at, answered int64 // ms
		legal        bool
	}{
		{"from a lease, a moment after the refusal", leased, 215, 500, true},
		{"from a lease, too long after it", leased, 350, 500, false},
		{"from a lease, after the answer", leased, 215, 212, false},
		{"of its own", "a hold", 215, 500, false},
	} {
		const user = 2 // of chaosCounts
		history := []operation{
			{kind: opReserve, id: "before", tokens: 15, ok: true, counts: counts{user: 15}, call: 10, ret: 20},
			{kind: opLimits, limits: 1 << 1, call: 100, ret: one.answered},
			{kind: opReserve, tokens: 1, counts: counts{user: 1}, call: 200, ret: 210},
			{kind: opReserve, id: one.id, tokens: 5, ok: true, counts: counts{user: 5}, call: one.at, ret: one.at + 1},
		}
		for i := range history {
			op := &history[i]
			op.port, op.call, op.ret = "port-2", op.call*int64(time.Millisecond), op.ret*int64(time.Millisecond)
		}
		if why, decided := verdict(history, checkFor); !decided || (why == "") != one.legal {
			t.Errorf("a hold %s: %q", one.what, why)
		}
	}
}
