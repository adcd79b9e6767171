package gate

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/internal/bus"
	"github.com/tidegate/tidegate/internal/reservation/hold"
	"github.com/tidegate/tidegate/ledger"
)

// portLimits is what a gate knows of the limits of a port beside its own caps. Ports
// without such limits have none of it.
type portLimits struct {
	used  map[window]*counts
	tally *budget.Tally // nil: nothing is held
}

// window is one of a limit's.
type window struct {
	counter budget.CounterRef
	start   int64
}

// counts are those of a port, as far as they are known now.
func (m *memory) counts(port string) budget.Counts {
	m.mu.RLock()
	defer m.mu.RUnlock()
	p := m.limits[port]
	return func(l *budget.Limit, value string, start time.Time) (c budget.Count) {
		if p == nil {
			return c
		}
		m.mu.RLock()
		defer m.mu.RUnlock()
		if w := p.used[window{l.Counter, start.Unix()}]; w != nil {
			c.Used = w.used[value].used()
		}
		if p.tally != nil {
			c.Held = p.tally.Held(l, value, start)
		}
		return c
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

// forgetWindows forgets those that are over, and those of limits that there are no more. It
// looks at some ports under the lock at a time. Where counters are being read that no budget names yet,
// that is for the next time.
func (m *memory) forgetWindows(now time.Time) {
	now = now.Add(-setBack)
	m.eachLimited(func(id string, p *portLimits) {
		if m.loading.Load() == 0 {
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
func (m *memory) setUnderWay(list []hold.UnderWay, now time.Time) {
	tallies := map[string]*budget.Tally{} // made without the lock, since it takes long
	for i := range list {
		u := &list[i]
		t := tallies[u.PortID]
		if t == nil {
			m.mu.RLock()
			limits := m.limitsOf(u.PortID)
			m.mu.RUnlock()
			if len(limits) == 0 {
				continue
			}
			t = budget.NewTally(limits, now)
			tallies[u.PortID] = t
		}
		u.AddTo(t)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.limits {
		p.tally = nil
	}
	for id, t := range tallies {
		m.portLimits(id).tally = t
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
		g.memory.loading.Add(1)
		defer g.memory.loading.Add(-1)
		if err := g.cfg.Ledger.Counters(ctx, port, limits, g.memory.raiseCounter); err != nil {
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
