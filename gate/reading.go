package gate

import (
	"time"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/ledger"
)

// reading is the state of the rounds in which the whole ledger is read.
type reading struct {
	// round counts them. Ports that a round does not find are gone, except those that changed since
	// it began.
	round   uint8
	deleted map[string]struct{} // ports that went after it began; nil: there is none under way
	oldest  ledger.Day          // a round is of the days since then
	// A round that is not believed only raises totals. What one that is believed found is staged until
	// it ends, since days come in no order and an answer in between must not see fewer of them.
	staged map[string][]ledger.PortDay // nil: it is not believed, or there is none
	lower  lower                       // that it found
}

func (r *reading) believed() bool { return r.staged != nil }

// beginReading starts a round; see [reading]. It is of the days since oldest, and is believed
// or not where it finds less than was known: see [lower].
func (m *memory) beginReading(believed bool, oldest ledger.Day) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reading = reading{round: m.round + 1, deleted: map[string]struct{}{}, oldest: oldest}
	if believed {
		m.staged = map[string][]ledger.PortDay{}
	}
}

// readBudget takes over a budget that a round found.
func (m *memory) readBudget(id string, b budget.Budget) {
	rule := b.Rule()
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, gone := m.deleted[id]; gone {
		return
	}
	p := m.port(id)
	p.ruleRead = m.round
	// What a notice told since the round began is newer than what the round reads. Otherwise the
	// round is right, or, where its version is lower, of an older copy of the database.
	if int64(p.rule.Version) < b.Version || p.changed != m.round && !m.keepsBudget(p.rule, rule) {
		m.setRule(id, p, rule)
	}
}

// readDays takes over some days that a round found, of any ports and in any order. At a start it looks up ten
// million of a million ports, which is most of the work: that is done while others look up theirs.
func (m *memory) readDays(days []ledger.PortDay) {
	ports := make([]*port, len(days))
	m.mu.RLock()
	m.ports.find(ports, func(i int) string { return days[i].PortID })
	m.mu.RUnlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range days {
		d, p := &days[i], ports[i]
		if _, gone := m.deleted[d.PortID]; gone {
			continue // meanwhile, too
		}
		if m.believed() {
			m.staged[d.PortID] = append(m.staged[d.PortID], *d)
			continue
		}
		if p == nil {
			p = m.port(d.PortID)
		}
		if p.tokensRead != m.round {
			p.tokensRead, p.found = m.round, 0
		}
		tokens := p.slot(d.Day)
		*tokens = max(*tokens, d.TotalTokens) // totals only grow
		if d.TotalTokens > 0 && *tokens == d.TotalTokens {
			p.found++
		}
	}
}

// endReading forgets the ports that the round did not find, unless it is not believed. Until all were
// looked at, as_of is as it was.
func (m *memory) endReading(asOf time.Time) (found lower) {
	m.healCounters()
	m.addStaged()
	m.ports.walk(&m.mu, func(id string, p *port) {
		if p.changed == m.round {
			return
		}
		if p.ruleRead != m.round && !(p.rule.Version > 0 && m.keepsBudget(p.rule, unlimited)) {
			m.setRule(id, p, unlimited)
		}
		if m.believed() {
			p.replace(m.staged[id])
		} else if p.tokensRead != m.round {
			p.found = 0
		}
		if p.nonzero(m.oldest) > int(p.found) && !m.believed() {
			m.lower.totals++
		}
		if p.rule == unlimited && len(p.tokens) == 0 {
			m.ports.remove(id)
			delete(m.over, id)
		}
		p.forgetBefore(m.oldest)
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deleted, m.staged = nil, nil
	if asOf.After(m.asOf) {
		m.asOf = asOf
	}
	return m.lower
}

// addStaged makes ports of which only a round knows, and raises those that a notice changed since it began.
func (m *memory) addStaged() {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for id, days := range m.staged { // nobody else touches it by now
		if n++; n%atATime == 0 {
			m.mu.Unlock()
			m.mu.Lock()
		}
		if _, gone := m.deleted[id]; gone {
			continue
		}
		if p := m.port(id); p.changed == m.round {
			for _, d := range days {
				p.raise(d.Day, d.TotalTokens)
			}
		}
	}
}

// abandonReading ends a round that could not be finished. What it read is true,
// but says nothing about what it did not reach.
func (m *memory) abandonReading() {
	m.keepCounters()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deleted, m.staged = nil, nil
}

// replace makes the port have these days and no others.
func (p *port) replace(days []ledger.PortDay) {
	p.tokens = nil
	for _, d := range days {
		p.raise(d.Day, d.TotalTokens)
	}
}

// nonzero is how many days have tokens, from the given one on.
func (p *port) nonzero(from ledger.Day) (n int) {
	for i, tokens := range p.tokens {
		if tokens > 0 && p.first+ledger.Day(i) >= from {
			n++
		}
	}
	return n
}
