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
	start  time.Time
	held   map[string]int64 // by value
	leased []leasedIn
}

// leasedIn is what is left of a lease, in a limit.
type leasedIn struct {
	lease  *Leased
	values values
	ended  []Sum
	left   int64
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
		if in.held == nil {
			in.held = map[string]int64{}
		}
		value := c.Of(l.Per)
		in.held[value] = Add(in.held[value], l.asked(c.Estimate, calls))
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
		if v := by.in(l); v.all || len(v.some) > 0 {
			in.leased = append(in.leased, leasedIn{by, v, ended, l.AsksAtMost(tokens, calls)})
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
	held := in.held[value]
	for i := range in.leased {
		at := &in.leased[i]
		held = Add(held, at.lease.heldIn(l, &at.values, value, at.ended, at.left))
	}
	return held
}

// Values are those for which something is held in a limit. What is held for any value, as of a lease that
// does not say whose calls it is for, counts in each of the others too, and names none.
func (t *Tally) Values(l *Limit) []string {
	in, values := t.find(l.Name), map[string]bool{}
	for value := range in.held {
		values[value] = true
	}
	for i := range in.leased {
		if v := &in.leased[i].values; !v.all {
			for value := range v.some {
				values[value] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(values))
}
