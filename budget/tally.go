package budget

import "time"

// Tally is what is held in the limits of a budget, by the calls under way at a moment.
type Tally struct {
	limits []Limit
	now    time.Time
	held   map[heldIn]int64
}

type heldIn struct {
	limit string // its name
	value string
	all   bool // in the count of every value
}

// NewTally returns the tally of a moment at which nothing is held.
func NewTally(limits []Limit, now time.Time) *Tally {
	return &Tally{limits, now, map[heldIn]int64{}}
}

// Hold adds so many calls under way since a moment, which together are expected to use what c says.
func (t *Tally) Hold(c *Call, calls int64, since time.Time) {
	for i := range t.limits {
		if l := &t.limits[i]; l.Matches(&c.Labels) && t.current(l, since) {
			at := heldIn{limit: l.Name, value: c.Of(l.Per)}
			t.held[at] = Add(t.held[at], l.asked(c.Estimate, calls))
		}
	}
}

// HoldUnlabelled adds calls of which only the feature is known: they may count in any value
// of what a limit looks at, and so do in each. since is when the lease began that they are
// from: they may have begun up to the end of that day, and so in a later hour.
func (t *Tally) HoldUnlabelled(feature string, tokens, calls int64, since time.Time) {
	for i := range t.limits {
		if l := &t.limits[i]; matches(l.Match.Feature, feature) && (l.Window == Hour || t.current(l, since)) {
			at := heldIn{limit: l.Name, value: feature}
			if l.Per != PerFeature {
				at = heldIn{limit: l.Name, all: true}
			}
			t.held[at] = Add(t.held[at], l.asked(Estimate{Tokens: tokens}, calls))
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
	held := t.held[heldIn{limit: l.Name, all: true}]
	if l.Per == "" {
		value = ""
	}
	return Add(held, t.held[heldIn{limit: l.Name, value: value}])
}
