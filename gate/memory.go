package gate

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/internal/bus"
	"github.com/tidegate/tidegate/ledger"
)

// memory is what a gate knows: for each port its rule and its tokens per day.
// A period's use is the sum of its days, at most 31 of them, so that nothing has
// to happen when a period ends.
type memory struct {
	mu    sync.RWMutex
	ports *ports // and [budget.DefaultPort], while there is a default budget
	// standard is the rule of the default budget. It binds the ports of which the own rule says
	// Default, and those that are not in ports. changes counts how often it was another one.
	standard *budget.Rule
	changes  uint8
	// over has the ports that had used more than their hard cap when that was set to its
	// value: how much.
	over map[string]int64
	// limits has the ports with limits beside their own caps.
	limits  map[string]*portLimits
	loading atomic.Int32 // budgets whose counters are being read
	due     *dueAlerts   // of these limits

	reading

	asOf    time.Time // every commit up to then is remembered
	stopped time.Time // as_of is not later: since then the ledger lacks something; zero while it does not
}

type port struct {
	id     string
	rule   *budget.Rule // of its budget; with Default it has none of its own: see [memory.ruleOf]
	tokens []int64      // of the days from first on
	first  ledger.Day   // meaningless while tokens is empty
	// The rounds in which the rule and the tokens were last read, and the one in
	// which a notice last changed either. One byte each: a round that looks like the
	// one 256 before it makes a port stay as it is until the next.
	ruleRead, tokensRead, changed uint8
	found                         uint8 // days of which the round in tokensRead found what is known
	alerted                       alerted
}

func newMemory() *memory {
	return &memory{ports: newPorts(), standard: unlimited, over: map[string]int64{}, limits: map[string]*portLimits{}, due: newDue()}
}

// lookup returns the port's rule, what it has used in the current period, when that
// began, and the time up to which every commit is remembered.
func (m *memory) lookup(id string, now time.Time) (r *budget.Rule, used int64, start, asOf time.Time) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	p, ok := m.ports.get(id)
	if !ok {
		start, _ = m.standard.Period().Bounds(now)
		return m.standard, 0, start, m.age()
	}
	r = m.ruleOf(p)
	start, end := r.Period().Bounds(now)
	return r, p.between(ledger.DayOf(start), ledger.DayOf(end)), start, m.age()
}

// portCount is how many ports are remembered. The caller holds the lock.
func (m *memory) portCount() int {
	if _, stored := m.ports.get(budget.DefaultPort); stored {
		return m.ports.len() - 1
	}
	return m.ports.len()
}

// ruleOf is what binds a port. The caller holds the lock.
func (m *memory) ruleOf(p *port) *budget.Rule {
	if p.rule.Default {
		return m.standard
	}
	return p.rule
}

// limitsOf are the limits of a port, which may not be in ports. The caller holds the lock.
func (m *memory) limitsOf(id string) []budget.Limit {
	if p, ok := m.ports.get(id); ok {
		return m.ruleOf(p).Limits()
	}
	return m.standard.Limits()
}

// age is the time up to which every commit is remembered. The caller holds the lock.
func (m *memory) age() time.Time {
	if !m.stopped.IsZero() && m.stopped.Before(m.asOf) {
		return m.stopped
	}
	return m.asOf
}

// stop makes as_of stand still at a time, until it is called with the zero time.
func (m *memory) stop(at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopped = at
}

// setRule takes over a budget. A cap that is another one now may be reached again.
func (m *memory) setRule(id string, p *port, own *budget.Rule) {
	old := m.ruleOf(p)
	p.rule = own
	if id == budget.DefaultPort {
		if !own.Default {
			own.Default = true // nobody else has it yet
		}
		m.standard = own
		if old.Enabled != own.Enabled || old.Period() != own.Period() || old.Soft != own.Soft || !old.SameHard(own) || len(old.Limits())+len(own.Limits()) > 0 {
			m.changes++ // who goes by it is looked at again: see alertRule
		}
		return
	}
	r := m.ruleOf(p)
	if len(r.Limits()) > 0 {
		m.portLimits(id) // though nothing is counted yet, something may be held
	}
	m.setMarks(id)
	if old.Enabled != r.Enabled || old.Period() != r.Period() {
		p.alerted = alerted{}
		return
	}
	if old.Soft != r.Soft {
		p.alerted.soft = false
	}
	if !old.SameHard(r) {
		p.alerted.hard, p.alerted.looked = false, false
	}
}

// alertRule is ruleOf, for who considers alerts: what was made of the port's use under another
// default budget is forgotten.
func (m *memory) alertRule(id string, p *port) *budget.Rule {
	if p.rule.Default && p.alerted.changes != m.changes {
		p.alerted = alerted{start: p.alerted.start, changes: m.changes}
		m.setMarks(id)
	}
	return m.ruleOf(p)
}

// between sums the days [start, end).
func (p *port) between(start, end ledger.Day) (sum int64) {
	from := max(int(start-p.first), 0)
	to := min(int(end-p.first), len(p.tokens))
	for i := from; i < to; i++ {
		sum = budget.Add(sum, p.tokens[i])
	}
	return sum
}

// raise sets a day's total unless a larger one is known: totals only grow, so the
// larger one is the later one.
func (p *port) raise(day ledger.Day, tokens int64) {
	if at := p.slot(day); *at < tokens {
		*at = tokens
	}
}

// slot makes room for day. A port with a second day is likely to have more: to make room for a week
// then, and twice as much each time, saves a start some of ten million copies.
func (p *port) slot(day ledger.Day) *int64 {
	switch {
	case len(p.tokens) == 0:
		p.first, p.tokens = day, make([]int64, 1)
	case day < p.first:
		grown := make([]int64, int(p.first-day)+len(p.tokens))
		copy(grown[p.first-day:], p.tokens)
		p.first, p.tokens = day, grown
	case int(day-p.first) >= len(p.tokens):
		n := int(day-p.first) + 1
		if n > cap(p.tokens) {
			p.tokens = append(make([]int64, 0, max(n, 8, 2*cap(p.tokens))), p.tokens...)
		}
		p.tokens = append(p.tokens, make([]int64, n-len(p.tokens))...)
	}
	return &p.tokens[day-p.first]
}

func (p *port) forgetBefore(day ledger.Day) {
	if n := min(int(day-p.first), len(p.tokens)); n > 0 {
		p.tokens = slices.Clone(p.tokens[n:])
		p.first = day
	}
}

// unlimited is the rule of a port that never had a budget, and of the default budget before
// there is one.
var unlimited = (budget.Budget{Period: budget.Month, Default: true}).Rule()

// port returns the port, new if need be. The caller holds the lock.
func (m *memory) port(id string) *port {
	p, ok := m.ports.get(id)
	if !ok {
		p = &port{id: strings.Clone(id), rule: unlimited} // not a slice of a whole notice
		m.ports.put(p)
	}
	return p
}

// setBack is how far back the database's clock may be set, or be found to be, without
// its period being forgotten already.
const setBack = time.Minute

// oldestDay is the first day that any current period can contain.
func oldestDay(now time.Time) ledger.Day {
	now = now.Add(-setBack)
	month, _ := budget.Month.Bounds(now)
	week, _ := budget.Week.Bounds(now)
	return min(ledger.DayOf(month), ledger.DayOf(week))
}

// applyTotals takes over what a commit changed. Every commit up to told is told, with this.
func (m *memory) applyTotals(n bus.Totals, oldest ledger.Day, told time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, id := range n.Ports {
		if day := ledger.Day(n.Days[i]); day >= oldest {
			p := m.port(id)
			p.raise(day, n.Tokens[i])
			p.changed = m.round
		}
	}
	for _, id := range n.Deleted {
		m.ports.remove(id)
		delete(m.over, id)
		delete(m.limits, id)
		if m.deleted != nil {
			m.deleted[id] = struct{}{}
		}
	}
	if told.After(m.asOf) {
		m.asOf = told
	}
}

// applyBudget takes over a budget unless a newer one is known.
func (m *memory) applyBudget(id string, b budget.Budget) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.port(id); int64(p.rule.Version) < b.Version {
		m.setRule(id, p, b.Rule())
		p.changed = m.round
	}
}
