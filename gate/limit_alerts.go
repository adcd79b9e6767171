package gate

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/ledger"
)

// How alerts of limits come about. A gate keeps nothing for a counter that has been told of:
// a counter that grows past a mark is noticed then, and never again. What may have been missed
// (when a gate starts, a mark is new, or more is due than is kept) is found by reading the
// counters of the port's limits in pages; the ledger knows which of them were told of.

const (
	maxDue     = 10_000 // alerts that are kept, of all ports
	countsRead = 500    // at once
)

// dueAlerts has the ports whose limits call for alerts. Each has its turn.
type dueAlerts struct {
	mu    sync.Mutex
	ports map[string]*duePort
	turns []string // the ports, in the order of their turns
	kept  int
	some  chan struct{} // has one while there may be ports
}

// duePort is what is due of a port.
type duePort struct {
	alerts []ledger.Alert // at most alertsAtOnce
	read   bool           // there may be more: counters are to be read
	again  bool           // and once more when all have been
	limit  int            // whose counters are read
	after  *string        // a value; those up to it have been read
}

func newDue() *dueAlerts {
	return &dueAlerts{ports: map[string]*duePort{}, some: make(chan struct{}, 1)}
}

// of returns what is due of a port. The caller holds the lock.
func (d *dueAlerts) of(port string) *duePort {
	p := d.ports[port]
	if p == nil {
		p = &duePort{}
		d.ports[port] = p
		d.turns = append(d.turns, port)
	}
	d.wake()
	return p
}

func (d *dueAlerts) wake() {
	select {
	case d.some <- struct{}{}:
	default:
	}
}

// crossed notes a counter that grew from was.
func (d *dueAlerts) crossed(c ledger.Counter, was int64, marks []budget.Mark) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range marks {
		m := &marks[i]
		if m.Count > c.Used {
			return
		}
		if was > 0 && m.Count <= was || c.Used == 0 { // a cap of 0 is reached by the first use
			continue
		}
		p := d.of(c.PortID)
		if d.kept >= maxDue || len(p.alerts) >= alertsAtOnce {
			p.again = p.read
			p.read = true
			return
		}
		p.alerts = append(p.alerts, alertOf(c, m))
		d.kept++
	}
}

// alertOf leaves out what the limit's budget says: period and when it was noticed.
func alertOf(c ledger.Counter, m *budget.Mark) ledger.Alert {
	return ledger.Alert{PortID: c.PortID, Limit: m.Limit, Counter: c.Counter, Value: c.Value, Unit: m.Unit, PeriodStart: c.Start, Threshold: m.Threshold,
		Reached: m.At, Used: m.InUnit(c.Used)}
}

// readAll has a port's counters read.
func (d *dueAlerts) readAll(port string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.of(port)
	p.again = p.read // what has been read may have changed
	p.read = true
}

// next takes the port whose turn it is: what is due of it, and where to go on reading.
func (d *dueAlerts) next() (port string, now duePort, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.turns) == 0 {
		return "", now, false
	}
	port, d.turns = d.turns[0], d.turns[1:]
	p := d.ports[port]
	now = *p
	d.kept -= len(p.alerts)
	p.alerts = nil
	if now.read {
		d.turns = append(d.turns, port)
	} else {
		delete(d.ports, port)
	}
	if len(d.turns) > 0 {
		d.wake()
	}
	return port, now, true
}

// readTo notes how far a port's counters have been read; done: all.
func (d *dueAlerts) readTo(port string, limit int, after *string, done bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.ports[port] // it is there until nothing is to be read
	if done {
		p.read, p.again, limit, after = p.again, false, 0, nil
	}
	p.limit, p.after = limit, after
}

// marks are where a counter of a port's limits calls for alerts. The caller holds the lock.
func (m *memory) marks(port string, counter budget.CounterRef) (marks []budget.Mark) {
	limits := m.alerting(port)
	for i := range limits {
		if limits[i].Counter == counter { // more than one may count the same
			marks = append(marks, limits[i].Marks()...)
		}
	}
	budget.SortMarks(marks)
	return marks
}

// setMarks is for a port whose budget was set. The caller holds the lock.
func (m *memory) setMarks(port string) {
	p := m.limits[port]
	if p == nil {
		return
	}
	read := false
	for at, w := range p.used {
		old := w.marks
		w.marks = m.marks(port, at.counter)
		read = read || slices.ContainsFunc(w.marks, func(m budget.Mark) bool { return m.Count <= w.most && !slices.Contains(old, m) })
	}
	if read {
		m.due.readAll(strings.Clone(port))
	}
}

// alerting are the limits of a port while its budget is enabled. The caller holds the lock.
func (m *memory) alerting(port string) []budget.Limit {
	rule := m.standard
	if p, ok := m.ports.get(port); ok {
		rule = m.ruleOf(p)
	}
	if !rule.Enabled {
		return nil
	}
	return rule.Limits()
}

// alertOfLimits publishes alerts of limits until ctx ends, each unless some gate has already.
func (g *Gate) alertOfLimits(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.memory.due.some:
		}
		if !g.cfg.Conn.IsConnected() { // another gate may be
			g.memory.due.wake()
			pause(ctx, time.Second)
			continue
		}
		port, now, ok := g.memory.due.next()
		if !ok {
			continue
		}
		if err := g.alertOfPort(ctx, port, now); err != nil && ctx.Err() == nil {
			g.cannotAlert(fmt.Errorf("those of limits of port %s cannot be claimed: %w", port, err))
			g.memory.due.readAll(port)
			pause(ctx, time.Second)
		}
	}
}

// alertOfPort publishes what is due of a port, and reads on in its counters if need be.
func (g *Gate) alertOfPort(ctx context.Context, port string, what duePort) error {
	g.memory.mu.RLock()
	limits := g.memory.alerting(port)
	g.memory.mu.RUnlock()
	if err := g.claimAndPublish(ctx, limits, what.alerts); err != nil || !what.read {
		return err
	}
	if what.limit >= len(limits) {
		g.memory.due.readTo(port, 0, nil, true)
		return nil
	}
	l := &limits[what.limit]
	start, _ := l.Window.Bounds(g.now())
	page, cancel := context.WithTimeout(ctx, alertTimeout)
	defer cancel()
	counters, err := g.cfg.Ledger.CountersPage(page, port, l.Counter, start, what.after, countsRead)
	if err != nil {
		return err
	}
	var alerts []ledger.Alert
	marks := l.Marks()
	for _, c := range counters {
		for i := range marks {
			if c.Used > 0 && c.Used >= marks[i].Count {
				alerts = append(alerts, alertOf(c, &marks[i]))
			}
		}
	}
	if err := g.claimAndPublish(ctx, limits, alerts); err != nil {
		return err
	}
	if len(counters) < countsRead {
		g.memory.due.readTo(port, what.limit+1, nil, what.limit+1 == len(limits))
	} else {
		g.memory.due.readTo(port, what.limit, &counters[len(counters)-1].Value, false)
	}
	return nil
}

// claimAndPublish leaves out alerts of limits that there are no more, and of windows that
// are over.
func (g *Gate) claimAndPublish(ctx context.Context, limits []budget.Limit, alerts []ledger.Alert) error {
	now := g.now()
	current := alerts[:0:0]
	for _, a := range alerts {
		i := slices.IndexFunc(limits, func(l budget.Limit) bool { return l.Name == a.Limit && l.Counter == a.Counter })
		if i < 0 {
			continue
		}
		if _, end := limits[i].Window.Bounds(a.PeriodStart); !end.IsZero() && !now.Before(end) {
			continue
		}
		a.Period, a.NoticedAt = limits[i].Window, now
		current = append(current, a)
	}
	for some := range slices.Chunk(current, alertsAtOnce) {
		if err := g.publishMine(ctx, some); err != nil {
			return err
		}
	}
	return nil
}
