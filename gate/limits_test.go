package gate

import (
	"fmt"
	"math"
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

	m.loading.Add(1)
	m.forgetWindows(now)
	if got := len(m.limits["p"].used); got != 4 {
		t.Errorf("while counters are read %d windows are left, want 4", got)
	}
	m.loading.Add(-1)
	m.forgetWindows(now)
	if got := len(m.limits["p"].used); got != 2 || m.limits["q"] != nil {
		t.Errorf("%d windows are left of p, want 2, and %v of q", got, m.limits["q"])
	}
	for i, want := range []int64{7, 11} {
		start, _ := limits[i].Window.Bounds(now)
		if got := m.counts("p")(&limits[i], "", start); got.Used != want || got.Held != 0 {
			t.Errorf("%s: %+v, want %d used", limits[i].Name, got, want)
		}
	}
	if got := m.counts("p")(&limits[0], "", hour.Add(time.Hour)); got.Used != 0 {
		t.Errorf("the next hour begins with %d used", got.Used)
	}
	m.forgetWindows(now.Add(time.Hour))
	if got := len(m.limits["p"].used); got != 1 {
		t.Errorf("an hour later %d windows are left, want 1", got)
	}
}

// What notices said wrong of counters is right after the next reading, however often true ones
// come meanwhile, and what these tell stays.
func TestMemoryHealsCountersByTheNextReading(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	start, _ := budget.Day.Bounds(now)
	m := newMemory()
	limit := budget.Limit{Name: "each", Per: budget.PerUser, Window: budget.Day, Hard: new(int64(100)), Counter: 1}
	b := budget.Budget{Enabled: true, Period: budget.Month, Version: 1, Limits: []budget.Limit{limit}}
	m.applyBudget("p", b)
	counter := func(user string, used int64) ledger.Counter {
		return ledger.Counter{PortID: "p", Counter: 1, Value: user, Start: start, Used: used}
	}
	read := func(end func(), during func(), counters ...ledger.Counter) {
		m.beginReading(true, oldestDay(now))
		m.readBudget("p", b)
		for i, c := range counters {
			if i == 1 {
				during()
			}
			m.readCounter(c)
		}
		end()
	}
	whole := func() { m.endReading(now); m.forgetWindows(now) }
	want := func(what string, figures map[string]int64) {
		t.Helper()
		for user, used := range figures {
			if got := m.counts("p")(&limit, user, start).Used; got != used {
				t.Errorf("%s: %s has %d, want %d", what, user, got, used)
			}
		}
		if got := m.counters(); got != len(figures) {
			t.Errorf("%s: %d counters, want %d", what, got, len(figures))
		}
	}
	nothing := func() {}
	read(whole, nothing, counter("ada", 10), counter("ben", 20))
	want("at first", map[string]int64{"ada": 10, "ben": 20})

	forge := func() {
		for _, user := range []string{"ada", "ben", "nobody", "somebody"} {
			m.raiseCounter(counter(user, math.MaxInt64))
		}
	}
	forge()
	read(whole, func() {
		m.raiseCounter(counter("ben", 21))
		m.raiseCounter(counter("ada", 12))
		m.raiseCounter(counter("somebody", 3))
		m.raiseCounter(counter("cy", 5))
		if got := m.counts("p")(&limit, "ben", start).Used; got != math.MaxInt64 {
			t.Errorf("while all is read, ben has %d before it is read", got)
		}
	}, counter("ada", 10), counter("ben", 20))
	want("healed", map[string]int64{"ada": 12, "ben": 21, "somebody": 3, "cy": 5})
	read(whole, nothing, counter("ada", 12), counter("ben", 21), counter("somebody", 3))
	want("of one that is gone", map[string]int64{"ada": 12, "ben": 21, "somebody": 3})

	forge()
	read(m.abandonReading, nothing, counter("ben", 21))
	if got := m.counters(); got != 4 {
		t.Errorf("after a reading that was not finished there are %d counters, want all 4", got)
	}
	m.raiseCounter(counter("dan", math.MaxInt64))
	read(whole, nothing, counter("ada", 12), counter("ben", 22))
	want("after the next one", map[string]int64{"ada": 12, "ben": 22})
}

// Many counters are looked at some at a time, while others change them.
func TestMemoryHealsManyCounters(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	start, _ := budget.Day.Bounds(now)
	limit := budget.Limit{Name: "each", Per: budget.PerUser, Window: budget.Day, Hard: new(int64(100)), Counter: 1}
	b := budget.Budget{Enabled: true, Period: budget.Month, Version: 1, Limits: []budget.Limit{limit}}
	m := newMemory()
	m.applyBudget("p", b)
	counter := func(n int, used int64) ledger.Counter {
		return ledger.Counter{PortID: "p", Counter: 1, Value: fmt.Sprint("user-", n), Start: start, Used: used}
	}
	const many = 5*atATime + 1
	for n := range 2 * many { // the second half is of nobody
		m.raiseCounter(counter(n, 1_000_000))
	}
	m.beginReading(true, oldestDay(now))
	m.readBudget("p", b)
	for n := range many {
		m.readCounter(counter(n, 7))
	}
	told := make(chan struct{})
	go func() {
		defer close(told)
		for n := range many {
			m.raiseCounter(counter(n, 8))
			m.raiseCounter(counter(2*many+n, 9))
		}
	}()
	m.endReading(now)
	<-told
	for n := range 3 * many {
		want := []int64{8, 0, 9}[n/many]
		if got := m.counts("p")(&limit, fmt.Sprint("user-", n), start).Used; got != want {
			t.Fatalf("user %d has %d, want %d", n, got, want)
		}
	}
}
