package gate

import (
	"strings"
	"time"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/ledger"
)

// counts are what is known of a window.
type counts struct {
	used  map[string]figure // by value
	most  int64             // of any value at any time
	marks []budget.Mark     // at which alerts are due, the lowest first; never changed once made
	told  map[string]int64  // what notices told, since a round began, of counters that it has not reached
}

// figure is what a counter has used and, in the bit of the sign, the parity of the round that knew
// it last: there are a million of them. A new one is known to the round in which it came, and
// between two rounds all are known to the last.
type figure uint64

const oddRound = 1 << 63

func figureIn(round uint8, used int64) figure {
	c := figure(max(used, 0))
	if round%2 == 1 {
		c |= oddRound
	}
	return c
}

func (c figure) used() int64         { return int64(c &^ oddRound) }
func (c figure) known(in uint8) bool { return (c >= oddRound) == (in%2 == 1) }

// raiseCounter sets a counter unless a larger one is known: counters only grow, so the
// larger one is the later one. Where it comes to a mark, an alert is due.
func (m *memory) raiseCounter(c ledger.Counter) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.countsOf(&c)
	was, ok := w.used[c.Value]
	round := m.round
	if ok && !was.known(round) { // the round that is under way has not reached it
		w.tell(c.Value, c.Used)
		round--
	}
	if !ok || c.Used > was.used() {
		c.Value = strings.Clone(c.Value) // not a slice of a whole notice
		m.setCounter(w, c, was.used(), round)
	}
}

func (w *counts) tell(value string, used int64) {
	if w.told == nil {
		w.told = map[string]int64{}
	}
	if told, ok := w.told[value]; !ok || used > told {
		w.told[strings.Clone(value)] = used
	}
}

// readCounter sets a counter that a round found. What was told since that began may be newer.
// Otherwise the round is right, even if it has less, once it is believed: what was told before may have been wrong.
// The value is a string of its own.
func (m *memory) readCounter(c ledger.Counter) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, gone := m.deleted[c.PortID]; gone {
		return
	}
	w := m.countsOf(&c)
	known, ok := w.used[c.Value]
	if ok && known.known(m.round) { // it is new since the round began
		c.Used = max(c.Used, known.used())
	} else if c.Used = max(c.Used, w.told[c.Value]); !m.believed() && c.Used < known.used() {
		c.Used = known.used()
		m.lower.counters++
	}
	m.setCounter(w, c, known.used(), m.round)
}

// countsOf returns what is known of a counter's window. The caller holds the lock.
func (m *memory) countsOf(c *ledger.Counter) *counts {
	p, at := m.portLimits(c.PortID), window{c.Counter, c.Start.Unix()}
	w := p.used[at]
	if w == nil {
		w = &counts{used: map[string]figure{}, marks: m.marks(c.PortID, c.Counter)}
		p.used[at] = w
	}
	return w
}

// setCounter sets a counter that was something else. The caller holds the lock. One that was too
// high may have come to marks unseen: what of it was told of, the ledger knows.
func (m *memory) setCounter(w *counts, c ledger.Counter, was int64, round uint8) {
	w.used[c.Value] = figureIn(round, c.Used)
	w.most = max(w.most, c.Used)
	if c.Used < was {
		was = 0
	} else if c.Used == was {
		return
	}
	if len(w.marks) > 0 && c.Used >= w.marks[0].Count {
		m.due.crossed(c, was, w.marks)
	}
}

// healCounters ends a round for counters, when it has found all that there are: those that it did not
// find are what was told of them since it began, or gone.
func (m *memory) healCounters() {
	m.eachCounter(func(id string, at window, w *counts, value string, c figure) {
		if c.known(m.round) {
			return
		}
		told, ok := w.told[value]
		if !ok {
			delete(w.used, value)
			return
		}
		m.setCounter(w, ledger.Counter{PortID: id, Counter: at.counter, Value: value, Start: time.Unix(at.start, 0).UTC(), Used: told}, c.used(), m.round)
	})
}

// keepCounters ends a round that has not found all: the next one begins as if all were known to this one.
func (m *memory) keepCounters() {
	m.eachCounter(func(_ string, _ window, w *counts, value string, c figure) {
		w.used[value] = figureIn(m.round, c.used())
	})
}

// eachCounter calls f with every counter, for the end of a round. It holds the lock for some
// counters at a time: meanwhile f may change the one that it is called with, and others any.
func (m *memory) eachCounter(f func(id string, at window, w *counts, value string, c figure)) {
	type place struct {
		id string
		at window
		w  *counts
	}
	var places []place
	m.eachLimited(func(id string, p *portLimits) {
		for at, w := range p.used {
			places = append(places, place{id, at, w})
		}
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	pause := func() {
		if n++; n%atATime == 0 {
			m.mu.Unlock()
			m.mu.Lock()
		}
	}
	for _, p := range places {
		for value, c := range p.w.used {
			f(p.id, p.at, p.w, value, c)
			pause()
		}
		p.w.told = nil
		pause()
	}
}

// atATime is how many counters are looked at under the lock.
const atATime = 1_000
