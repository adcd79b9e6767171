package gate

import (
	"testing"
	"time"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/ledger"
)

// A gate forgets the windows that are over and the limits that there are no more, but nothing
// of a budget whose counters are being read.
func TestMemoryForgetsWindows(t *testing.T) {
	now := time.Date(2026, 11, 23, 15, 30, 0, 0, time.UTC)
	hour, _ := budget.Hour.Bounds(now)
	total, _ := budget.Total.Bounds(now)
	m := newMemory()
	limits := []budget.Limit{{Name: "hour", Window: budget.Hour, Counter: 1}, {Name: "total", Window: budget.Total, Counter: 2}}
	m.applyBudget("p", budget.Budget{Enabled: true, Period: budget.Month, Version: 1, Limits: limits})
	raise := func(port string, counter budget.CounterRef, start time.Time, used int64) {
		m.raiseCounter(ledger.Counter{PortID: port, Counter: counter, Start: start, Used: used})
	}
	raise("p", 1, hour.Add(-time.Hour), 5)
	raise("p", 1, hour, 7)
	raise("p", 1, hour, 6) // of before
	raise("p", 2, total, 11)
	raise("p", 3, hour, 13) // of a limit that is no more, or not yet
	raise("q", 4, hour, 17) // and of a port that has none

	done := m.load("p")
	m.forgetWindows(now)
	if got := len(m.limits["p"].used); got != 4 {
		t.Errorf("while counters are read %d windows are left, want 4", got)
	}
	done()
	m.forgetWindows(now)
	if got := len(m.limits["p"].used); got != 2 || m.limits["q"] != nil {
		t.Errorf("%d windows are left of p, want 2, and %v of q", got, m.limits["q"])
	}
	for i, want := range []int64{7, 11} {
		start, _ := limits[i].Window.Bounds(now)
		if got := m.count("p", &limits[i], "", start); got.Used != want || got.Held != 0 {
			t.Errorf("%s: %+v, want %d used", limits[i].Name, got, want)
		}
	}
	if got := m.count("p", &limits[0], "", hour.Add(time.Hour)); got.Used != 0 {
		t.Errorf("the next hour begins with %d used", got.Used)
	}
	m.forgetWindows(now.Add(time.Hour))
	if got := len(m.limits["p"].used); got != 1 {
		t.Errorf("an hour later %d windows are left, want 1", got)
	}
}
