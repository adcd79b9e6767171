package budget

import (
	"maps"
	"slices"
	"time"
)

// Tally is what is held in the limits of a budget, by the calls under way at a moment.
type Tally struct {
	limits []Limit
	of     []tallied // each of them
}

// tallied is what is held in one limit, in its present window.
type tallied struct {
	start time.Time
	held  map[string]int64 // by value
	any   int64            // of each value, whichever it is
	but   []heldBut
}

// heldBut is held of each value but some.
type heldBut struct {
	except *Allowance
	held   int64
}

func (in *tallied) hold(value string, n int64) {
	if in.held == nil {
		in.held = map[string]int64{}
	}
	in.held[value] = Add(in.held[value], n)
}

// NewTally returns the tally of a moment at which nothing is held.
func NewTally(limits []Limit, now time.Time) *Tally {
	t := &Tally{limits, make([]tallied, len(limits))}
	for i := range limits {
		t.of[i].start, _ = limits[i].Window.Bounds(now)
	}
	return t
}

// Hold adds so many calls under way since a moment, which together are expected to use what c says.
func (t *Tally) Hold(c *Call, calls int64, since time.Time) {
	for i := range t.limits {
		l, in := &t.limits[i], &t.of[i]
		if !l.Matches(&c.Labels) || since.Before(in.start) {
			continue
		}
		in.hold(c.Of(l.Per), l.asked(c.Estimate, calls))
	}
}

// HoldLeased adds what is left of a lease, for at most so many calls: it counts in each value
// that one of them may have, as if all that may have it did. ended is what of the lease's calls has
// ended, in their order. since is when the lease began: they
// may have begun up to the end of that day, and so in a later hour.
func (t *Tally) HoldLeased(by *Leased, ended []Sum, tokens, calls int64, since time.Time) {
	for i := range t.limits {
		l, in := &t.limits[i], &t.of[i]
		if l.Window != Hour && since.Before(in.start) {
			continue
		}
		v, left := by.in(l), l.AsksAtMost(tokens, calls)
		if !v.all {
			for value, places := range v.some {
				if n := by.under(l, places, ended, left); n > 0 {
					in.hold(value, n)
				}
			}
			continue
		}
		a, bounded := by.Each[l.Per]
		if bounded {
			left = min(left, l.AsksAtMost(a.Tokens, a.Calls))
		}
		if len(a.Except) == 0 {
			in.any = Add(in.any, left)
		} else {
			in.but = append(in.but, heldBut{&a, left})
		}
	}
}

func (l *Limit) asked(e Estimate, calls int64) int64 {
	if l.unit() == Requests {
		return calls
	}
	return l.Asks(e)
}

// find returns what is held in a limit of that name.
func (t *Tally) find(name string) *tallied {
	for i := range t.limits {
		if t.limits[i].Name == name {
			return &t.of[i]
		}
	}
	return &tallied{}
}

// Held is what is held in a limit, for a value, in the window that began then.
func (t *Tally) Held(l *Limit, value string, start time.Time) int64 {
	in := t.find(l.Name)
	if !in.start.Equal(start) {
		return 0 // what was held before counts no more
	}
	if l.Per == "" {
		value = ""
	}
	held := Add(in.held[value], in.any)
	for _, but := range in.but {
		if !but.except.Excepts(value) {
			held = Add(held, but.held)
		}
	}
	return held
}

// Values are those for which something is held in a limit. What is held for any value, as of a lease that
// does not say whose calls it is for, counts in each of the others too, and names none.
func (t *Tally) Values(l *Limit) []string {
	return slices.Sorted(maps.Keys(t.find(l.Name).held))
}
