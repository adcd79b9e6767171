package budget

import "time"

// Tally is what is held in the limits of a budget, by the calls under way at a moment.
type Tally struct {
	limits []Limit
	now    time.Time
	held   map[heldIn]int64
	leased map[string][]leasedIn // by the limit's name
}

type heldIn struct {
	limit string // its name
	value string
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
	return &Tally{limits, now, map[heldIn]int64{}, map[string][]leasedIn{}}
}

// Hold adds so many calls under way since a moment, which together are expected to use what c says.
func (t *Tally) Hold(c *Call, calls int64, since time.Time) {
	for i := range t.limits {
		if l := &t.limits[i]; l.Matches(&c.Labels) && t.current(l, since) {
			at := heldIn{l.Name, c.Of(l.Per)}
			t.held[at] = Add(t.held[at], l.asked(c.Estimate, calls))
		}
	}
}

// HoldLeased adds what is left of a lease, for at most so many calls: it counts in each value
// that one of them may have, as if all that may have it did. ended is what of the lease's calls has
// ended, in their order. since is when the lease began: they
// may have begun up to the end of that day, and so in a later hour.
func (t *Tally) HoldLeased(by *Leased, ended []Sum, tokens, calls int64, since time.Time) {
	for i := range t.limits {
		l := &t.limits[i]
		if l.Window != Hour && !t.current(l, since) {
			continue
		}
		if v := by.in(l); v.all || len(v.some) > 0 {
			t.leased[l.Name] = append(t.leased[l.Name], leasedIn{by, v, ended, l.AsksAtMost(tokens, calls)})
		}
	}
}

func (l *Limit) asked(e Estimate, calls int64) int64 {
	if l.unit() == Requests {
		return calls
	}
	return l.Asks(e)
}

func (t *Tally) current(l *Limit, since time.Time) bool {
	start, _ := l.Window.Bounds(t.now)
	return !since.Before(start)
}

// Held is what is held in a limit, for a value, in the window that began then.
func (t *Tally) Held(l *Limit, value string, start time.Time) int64 {
	if now, _ := l.Window.Bounds(t.now); !now.Equal(start) {
		return 0 // what was held before counts no more
	}
	if l.Per == "" {
		value = ""
	}
	held := t.held[heldIn{l.Name, value}]
	for _, in := range t.leased[l.Name] {
		held = Add(held, in.lease.heldIn(l, &in.values, value, in.ended, in.left))
	}
	return held
}

// Values are those of a limit of which something is held that is not held of every value.
func (t *Tally) Values(l *Limit) map[string]struct{} {
	values := map[string]struct{}{}
	for at := range t.held {
		if at.limit == l.Name {
			values[at.value] = struct{}{}
		}
	}
	for _, in := range t.leased[l.Name] {
		if in.values.all {
			continue
		}
		for value := range in.values.some {
			values[value] = struct{}{}
		}
	}
	return values
}
