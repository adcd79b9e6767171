package gate

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/bus"
	"github.com/tidegate/tidegate/ledger"
)

// crowded is a gate that knows many ports, all with budgets and some use.
func crowded(n int) *Gate {
	g := bare(Config{Now: time.Now}, nil)
	g.memory = fill(n, 15)
	return g
}

// walks are what goes over all ports, for the nth time.
var walks = map[string]func(g *Gate, n int){
	"alerts": func(g *Gate, _ int) { g.considerAllAlerts(ledger.Day(20_015).Time()) },
	"the end of a reading": func(g *Gate, n int) {
		g.memory.oldest = ledger.Day(20_001 + n%15) // each forgets a day
		g.memory.endReading(time.Now())
	},
}

// meanwhile looks a port up, again and again, while walk goes over all of them. It
// returns how often it was answered before the walk had ended, and the longest wait.
func (g *Gate) meanwhile(walk func()) (answers int, longest time.Duration) {
	var over atomic.Bool
	g.memory.mu.RLock()
	go func() { defer over.Store(true); walk() }()
	for g.memory.mu.TryRLock() { // until the walk waits for the lock
		g.memory.mu.RUnlock()
		time.Sleep(time.Millisecond)
	}
	g.memory.mu.RUnlock()
	for !over.Load() {
		begun := time.Now()
		g.memory.lookup("port-0000007", begun)
		longest = max(longest, time.Since(begun))
		answers++
	}
	return answers, longest
}

// Nothing that goes over all ports keeps checks waiting until it has.
func TestChecksAreAnsweredDuringAWalk(t *testing.T) {
	t.Parallel()
	for name, walk := range walks {
		g := crowded(20_000)
		if answers, _ := g.meanwhile(func() { walk(g, 0) }); answers < 20 {
			t.Errorf("%s: %d checks were answered while 20,000 ports were gone over, want many", name, answers)
		}
	}
}

// A port that comes or goes while all are gone over hurts nobody, and one that is there
// all along is visited.
func TestPortsComeAndGoDuringAWalk(t *testing.T) {
	t.Parallel()
	m := newMemory()
	for i := range 5_000 {
		m.applyBudget(fmt.Sprintf("stays-%d", i), events.Budget{Enabled: true, Version: 1})
		m.applyBudget(fmt.Sprintf("goes-%d", i), events.Budget{Enabled: true, Version: 1})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 5_000 {
			m.applyTotals(bus.Totals{Deleted: []string{fmt.Sprintf("goes-%d", i)}}, 0, time.Time{})
			m.applyBudget(fmt.Sprintf("comes-%d", i), events.Budget{Enabled: true, Version: 1})
		}
	}()
	stayed := map[string]int{}
	m.ports.walk(&m.mu, func(id string, _ *port) {
		if id[0] == 's' {
			stayed[id]++
		}
	})
	<-done
	if len(stayed) != 5_000 || m.ports.len() != 10_000 {
		t.Errorf("%d of 5,000 ports that stay were visited, %d of 10,000 are there", len(stayed), m.ports.len())
	}
	for id, times := range stayed {
		if times != 1 {
			t.Errorf("%s was visited %d times", id, times)
		}
	}
}

// BenchmarkWalk goes over a million ports and reports the longest that a check had to
// wait meanwhile: in the walk in which that was least, and in the worst, in which others on
// the same cores may have caused it.
func BenchmarkWalk(b *testing.B) {
	for name, walk := range walks {
		b.Run(name, func(b *testing.B) {
			g := crowded(1_000_000)
			best, worst := time.Hour, time.Duration(0)
			for n := 0; b.Loop(); n++ {
				_, longest := g.meanwhile(func() { walk(g, n) })
				best, worst = min(best, longest), max(worst, longest)
			}
			b.ReportMetric(float64(best)/1e6, "ms-longest-wait")
			b.ReportMetric(float64(worst)/1e6, "ms-in-the-worst-walk")
		})
	}
}
