package gate

import (
	"time"

	"github.com/tidegate/tidegate/budget"
)

// A reading that finds less than was known is of a database that was put back to an older copy, or
// heals what a message said wrong, or a port was deleted and nobody told this gate. Which of these
// it is shows a moment later: while the database lacks what its streams have, processes notice.
// Until then the higher total and the stricter budget stay.

// believeAfter is how long after a reading that found less, and after the database was last known to
// lack something, a reading is believed all the same.
const believeAfter = 10 * time.Second

// lower counts what a round found to be less than was known.
type lower struct {
	totals   int // ports that had used less
	counters int // of limits
	budgets  int // of a lower version
}

func (l lower) any() bool { return l != lower{} }

// caution is whether readings that find less are believed.
type caution struct {
	since time.Time // a reading found less, or the database was behind after that; zero: none did
}

// believes reports whether a reading that begins now is believed, whatever it finds.
func (c *caution) believes(now time.Time, behind error) bool {
	if c.since.IsZero() {
		return false
	}
	if behind != nil {
		c.since = now
	}
	return now.Sub(c.since) >= believeAfter
}

// resolve notes what a reading found. It reports whether there is doubt from now on, and was none.
func (c *caution) resolve(now time.Time, believed bool, found lower) (doubtful bool) {
	switch {
	case believed, !found.any():
		c.since = time.Time{}
	case c.since.IsZero():
		c.since = now
		return true
	}
	return false
}

// noteLower tells an operator of what a reading found that is less than was known.
func (g *Gate) noteLower(now time.Time, believed bool, found lower) {
	for what, n := range map[string]int{"total": found.totals, "counter": found.counters, "budget": found.budgets} {
		g.metrics.lower.WithLabelValues(what).Add(float64(n))
	}
	if g.caution.resolve(now, believed, found) {
		g.log.Error("the database says less than it did: it was put back to an older copy, or a port was deleted of which this gate was not told. The higher totals and the stricter budgets stay until it is known that the database has all",
			"ports_with_lower_totals", found.totals, "lower_counters", found.counters, "budgets_of_lower_versions", found.budgets)
	}
}

// keepsBudget reports whether the rule that is known stays though a round found another one of a
// lower version. The caller holds the lock.
func (m *memory) keepsBudget(known *budget.Rule, found *budget.Rule) bool {
	if m.believed() || found.Version >= known.Version {
		return false
	}
	m.lower.budgets++
	return !stricter(found, known)
}

// stricter reports whether a refuses what b allows. Where that is for others to say, the default budget
// or limits, it does not.
func stricter(a, b *budget.Rule) bool {
	switch {
	case a.Default || b.Default:
		return false
	case a.Enabled != b.Enabled:
		return a.Enabled
	}
	return a.Hard != budget.NoCap && (b.Hard == budget.NoCap || a.Hard < b.Hard)
}
