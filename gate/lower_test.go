package gate

import (
	"errors"
	"testing"
	"time"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/ledger"
)

// A reading that finds less than was known is not believed at first: the higher total and the
// stricter budget stay, whatever else it finds.
func TestAReadingThatFindsLess(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	today, oldest := ledger.DayOf(now), oldestDay(now)
	start, _ := budget.Day.Bounds(now)
	limit := budget.Limit{Name: "day", Window: budget.Day, Counter: 1}
	capped := func(version, hard int64) budget.Budget {
		return budget.Budget{Enabled: true, HardCapTokens: &hard, Period: budget.Month, Version: version}
	}
	limited := capped(1, 1000)
	limited.Limits = []budget.Limit{limit}
	type found struct {
		port    string
		budget  budget.Budget
		days    []ledger.PortDay
		counter int64
	}
	days := func(yesterday, tokens int64) []ledger.PortDay {
		return []ledger.PortDay{{Day: today - 1, TotalTokens: yesterday}, {Day: today, TotalTokens: tokens}}
	}
	m := newMemory()
	read := func(believed bool, all ...found) lower {
		m.beginReading(believed, oldest)
		for _, f := range all {
			if f.budget.Version > 0 {
				m.readBudget(f.port, f.budget)
			}
			if f.counter > 0 {
				m.readCounter(ledger.Counter{PortID: f.port, Counter: 1, Start: start, Used: f.counter})
			}
			if f.days != nil {
				for i := range f.days {
					f.days[i].PortID = f.port
				}
				m.readDays(f.days)
			}
		}
		return m.endReading(now)
	}
	want := func(what, port string, used, hard int64) {
		t.Helper()
		if r, got, _, _ := m.lookup(port, now); got != used || r.Hard != hard {
			t.Errorf("%s: %s has used %d of %d, want %d of %d", what, port, got, r.Hard, used, hard)
		}
	}
	full := []found{{"lowered", capped(3, 50), days(10, 100), 0}, {"raised", capped(3, 500), days(10, 100), 0}, {"new", capped(1, 7), days(0, 5), 0},
		{"limited", limited, days(1, 2), 30}, {"same", capped(1, 9), days(1, 1), 0}}
	older := []found{{"lowered", capped(2, 100), days(10, 40), 0}, {"raised", capped(2, 200), days(10, 100), 0},
		{"limited", limited, days(1, 2), 20}, {"same", capped(1, 9), days(1, 4), 0}}
	if got := read(false, full...); got.any() {
		t.Errorf("the first reading finds %+v less", got)
	}
	if got, wanted := read(false, older...), (lower{totals: 2, counters: 1, budgets: 3}); got != wanted {
		t.Errorf("the reading of an older copy finds %+v less, want %+v", got, wanted)
	}
	want("an older copy", "lowered", 110, 50)
	want("an older copy", "raised", 110, 200)
	want("an older copy", "new", 5, 7)
	want("an older copy", "same", 5, 9)
	if got := m.counts("limited")(&limit, "", start).Used; got != 30 {
		t.Errorf("an older copy: the counter is %d, want 30", got)
	}
	m.applyTotals(notice("lowered", today, 120), oldest, time.Time{}) // booked again, and more
	read(false, older...)
	want("booked meanwhile", "lowered", 130, 50)
	full[0].days, full[4].days = days(10, 120), days(1, 4)
	if got := read(false, full...); got.any() {
		t.Errorf("once all is there again a reading finds %+v less", got)
	}
	want("all is there again", "raised", 110, 500)

	if got := read(true, older...); got.any() {
		t.Errorf("a reading that is believed finds %+v less", got)
	}
	want("believed", "lowered", 50, 100)
	want("believed", "raised", 110, 200)
	want("believed", "new", 0, budget.NoCap)
	if got := m.counts("limited")(&limit, "", start).Used; got != 20 {
		t.Errorf("believed: the counter is %d, want 20", got)
	}
	if _, kept := m.ports.get("new"); kept {
		t.Error("a port that is gone is remembered")
	}
}

// Less is believed once the database is known to have had everything for a while.
func TestLessIsBelievedAWhileLater(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	less, behind := lower{totals: 1}, errors.New("behind")
	var c caution
	if c.believes(now, nil) || c.resolve(now, false, lower{}) {
		t.Error("there is doubt without a reason")
	}
	if !c.resolve(now, false, less) || c.resolve(now.Add(time.Second), false, less) {
		t.Error("doubt is not told once")
	}
	for _, step := range []struct {
		after  time.Duration
		behind error
		want   bool
	}{
		{believeAfter - 1, nil, false},
		{believeAfter, nil, true},
		{believeAfter, behind, false}, // and begins anew
		{2*believeAfter - 1, nil, false},
		{2 * believeAfter, nil, true},
	} {
		if got := c.believes(now.Add(step.after), step.behind); got != step.want {
			t.Errorf("%s later, %v: believed: %t", step.after, step.behind, got)
		}
	}
	c.resolve(now, true, less)
	if c.believes(now.Add(time.Hour), nil) {
		t.Error("doubt goes on after a reading was believed")
	}
	c.resolve(now, false, less)
	c.resolve(now, false, lower{})
	if c.believes(now.Add(time.Hour), nil) {
		t.Error("doubt goes on after a reading found everything")
	}
}
