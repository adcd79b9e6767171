package gate

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/internal/bus"
	"github.com/tidegate/tidegate/internal/reservation"
	"github.com/tidegate/tidegate/ledger"
)

// portLimits is what a gate knows of the limits of a port beside its own caps. Ports
// without such limits have none of it.
type portLimits struct {
	used    map[window]*counts
	tally   *budget.Tally // nil: nothing is held
	loading int           // budgets whose counters are being read
}

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

// window is one of a limit's.
type window struct {
	counter budget.CounterRef
	start   int64
}

// count is what is known of a limit, for a value.
func (m *memory) count(port string, l *budget.Limit, value string, start time.Time) (c budget.Count) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if p := m.limits[port]; p != nil {
		if w := p.used[window{l.Counter, start.Unix()}]; w != nil {
			c.Used = w.used[value].used()
		}
		if p.tally != nil {
			c.Held = p.tally.Held(l, value, start)
		}
	}
	return c
}

// counts are those of a port.
func (m *memory) counts(port string) budget.Counts {
	return func(l *budget.Limit, value string, start time.Time) budget.Count {
		return m.count(port, l, value, start)
	}
}

// portLimits returns what is known of a port's limits, nothing if need be. The caller holds the lock.
func (m *memory) portLimits(id string) *portLimits {
	p := m.limits[id]
	if p == nil {
		p = &portLimits{used: map[window]*counts{}}
		m.limits[strings.Clone(id)] = p
	}
	return p
}

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
// Otherwise the round is right, even if it has less: what was told before may have been wrong.
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
	} else {
		c.Used = max(c.Used, w.told[c.Value])
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

// load keeps the counters of a port's limits that no budget names yet, until the function
// that it returns is called.
func (m *memory) load(port string) (done func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if port == budget.DefaultPort {
		m.loading++
		return func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.loading--
		}
	}
	p := m.portLimits(port)
	p.loading++
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		p.loading--
	}
}

// forgetWindows forgets those that are over, and those of limits that there are no more. It
// looks at some ports under the lock at a time.
func (m *memory) forgetWindows(now time.Time) {
	now = now.Add(-setBack)
	m.eachLimited(func(id string, p *portLimits) {
		if p.loading+m.loading == 0 {
			m.forgetWindowsOf(id, p, now)
		}
	})
}

// eachLimited calls f with all that there is of limits. It holds the lock for some ports at a time.
func (m *memory) eachLimited(f func(id string, p *portLimits)) {
	m.mu.RLock()
	ids := slices.Collect(maps.Keys(m.limits))
	m.mu.RUnlock()
	for some := range slices.Chunk(ids, 100) {
		m.mu.Lock()
		for _, id := range some {
			if p := m.limits[id]; p != nil {
				f(id, p)
			}
		}
		m.mu.Unlock()
	}
}

func (m *memory) forgetWindowsOf(id string, p *portLimits, now time.Time) {
	windows := map[budget.CounterRef]budget.Period{}
	for _, l := range m.limitsOf(id) {
		windows[l.Counter] = l.Window
	}
	if len(windows) == 0 {
		delete(m.limits, id)
		return
	}
	for w := range p.used {
		kind, ok := windows[w.counter]
		if _, end := kind.Bounds(time.Unix(w.start, 0)); !ok || !end.IsZero() && end.Before(now) {
			delete(p.used, w)
		}
	}
}

// setUnderWay takes over which calls are under way of ports that have limits.
func (m *memory) setUnderWay(list []reservation.UnderWay, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.limits {
		p.tally = nil
	}
	for i := range list {
		u := &list[i]
		limits := m.limitsOf(u.PortID)
		if len(limits) == 0 {
			continue
		}
		p := m.portLimits(u.PortID)
		if p.tally == nil {
			p.tally = budget.NewTally(limits, now)
		}
		u.AddTo(p.tally)
	}
}

// counters is how many there are.
func (m *memory) counters() (n int) {
	m.eachLimited(func(_ string, p *portLimits) {
		for _, w := range p.used {
			n += len(w.used)
		}
	})
	return n
}

func (m *memory) hasLimits() bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.limits) > 0 || len(m.standard.Limits()) > 0
}

// learnBudgets takes over budgets with limits that were heard of, until ctx ends.
func (g *Gate) learnBudgets(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case n := <-g.learning:
			g.learnBudget(ctx, n.PortID, n.Budget)
		}
	}
}

// learnBudget takes over a budget. Counters of limits that count something new are read
// first, so that no check is answered without them.
func (g *Gate) learnBudget(ctx context.Context, port string, b budget.Budget) {
	limits := b.Limits
	if b.Default {
		limits = g.memory.standardLimits()
	}
	if len(limits) > 0 {
		done := g.memory.load(port)
		err := g.cfg.Ledger.Counters(ctx, port, limits, g.memory.raiseCounter)
		defer done()
		if err != nil {
			if ctx.Err() == nil {
				g.log.Warn("counters of limits cannot be read; checks go by the budget before until all is read again", "port_id", port, "error", err)
				g.hearing.Missed()
			}
			return
		}
	}
	g.memory.applyBudget(port, b)
	if port == budget.DefaultPort {
		g.considerAllAlerts(g.now())
	} else {
		g.considerAlert(port, g.now())
	}
	if len(limits) > 0 {
		_ = g.readHolds(ctx) // what calls under way hold in them; else it comes with the next reading
	}
}

func (m *memory) standardLimits() []budget.Limit {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.standard.Limits()
}

// hearLimits takes over what bookings have made of counters.
func (g *Gate) hearLimits(n *bus.Totals) {
	for _, l := range n.Limits {
		g.memory.raiseCounter(ledger.Counter{PortID: l.PortID, Counter: budget.CounterRef(l.Counter), Value: l.Value, Start: time.Unix(l.Start, 0).UTC(), Used: l.Used})
	}
}
