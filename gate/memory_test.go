package gate

import (
	"maps"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/bus"
	"github.com/tidegate/tidegate/ledger"
)

func notice(port string, day ledger.Day, tokens int64) bus.Totals {
	return bus.Totals{Ports: []string{port}, Days: []int32{int32(day)}, Tokens: []int64{tokens}}
}

// Whatever the order and the repetition of notices, and whatever readings come
// between them, the memory ends up with the largest total of every day.
func TestMemoryConverges(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := newMemory()
		now := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
		today := ledger.DayOf(now)
		truth := map[string]map[ledger.Day]int64{} // what Postgres has
		var told []bus.Totals
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			port := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "port")
			day := today - ledger.Day(rapid.IntRange(0, 40).Draw(t, "day"))
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0: // a commit, told at once
				if truth[port] == nil {
					truth[port] = map[ledger.Day]int64{}
				}
				truth[port][day] += rapid.Int64Range(0, 100).Draw(t, "tokens")
				told = append(told, notice(port, day, truth[port][day]))
				m.applyTotals(told[len(told)-1], oldestDay(now), time.Time{})
			case 1: // an old notice again
				if len(told) > 0 {
					m.applyTotals(told[rapid.IntRange(0, len(told)-1).Draw(t, "old")], oldestDay(now), time.Time{})
				}
			case 2: // a commit whose notice is lost, and the reading that mends it
				if truth[port] == nil {
					truth[port] = map[ledger.Day]int64{}
				}
				truth[port][day]++
				fallthrough
			case 3:
				readAll(m, truth, now, rapid.Bool().Draw(t, "believed"))
			}
		}
		readAll(m, truth, now, rapid.Bool().Draw(t, "believed"))
		for port, days := range truth {
			for _, p := range budget.Periods {
				start, end := p.Bounds(now)
				var want int64
				for day, tokens := range days {
					if !day.Time().Before(start) && day.Time().Before(end) {
						want += tokens
					}
				}
				m.applyBudget(port, events.Budget{Period: p, Version: int64(ruleOf(m, port).Version) + 1})
				if _, used, _, _ := m.lookup(port, now); used != want {
					t.Fatalf("%s of %s: %d, want %d", p, port, used, want)
				}
			}
		}
	})
}

func ruleOf(m *memory, port string) *budget.Rule {
	r, _, _, _ := m.lookup(port, time.Now())
	return r
}

func readAll(m *memory, truth map[string]map[ledger.Day]int64, now time.Time, believed bool) {
	m.beginReading(believed, oldestDay(now))
	for port := range maps.Keys(truth) {
		var days []ledger.PortDay
		for day := oldestDay(now); day <= ledger.DayOf(now); day++ {
			if tokens, ok := truth[port][day]; ok {
				days = append(days, ledger.PortDay{PortID: port, Day: day, TotalTokens: tokens})
			}
		}
		if len(days) > 0 {
			m.readDays(days)
		}
	}
	m.endReading(now)
}

func TestMemoryForgetsWhatAReadingDoesNotFind(t *testing.T) {
	t.Parallel()
	now := time.Now()
	today := ledger.DayOf(now)
	m := newMemory()
	hard := int64(5)
	m.applyBudget("gone", events.Budget{Enabled: true, HardCapTokens: &hard, Version: 3})
	m.applyTotals(notice("gone", today, 100), today, time.Time{})
	m.applyTotals(notice("deleted", today, 100), today, time.Time{})
	m.applyTotals(notice("smaller", today, 100), today, time.Time{})

	m.beginReading(true, today)
	m.applyTotals(bus.Totals{Deleted: []string{"deleted"}}, today, time.Time{})
	m.readDays([]ledger.PortDay{{PortID: "deleted", Day: today, TotalTokens: 100}}) // the snapshot is older
	m.readDays([]ledger.PortDay{{PortID: "smaller", Day: today, TotalTokens: 40}})  // deleted and made again
	m.applyTotals(notice("during", today, 7), today, time.Time{})                   // after the snapshot
	m.endReading(now)

	for port, want := range map[string]int64{"gone": 0, "deleted": 0, "smaller": 40, "during": 7} {
		if _, used, _, _ := m.lookup(port, now); used != want {
			t.Errorf("%s: %d used, want %d", port, used, want)
		}
	}
	if l, _, _, _ := m.lookup("gone", now); l != unlimited {
		t.Error("the budget of a port that is gone still binds")
	}
}

func TestMemoryKeepsTheNewerBudget(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.applyBudget("p", events.Budget{Enabled: true, Version: 2})
	m.applyBudget("p", events.Budget{Enabled: false, Version: 1})
	if l, _, _, _ := m.lookup("p", time.Now()); !l.Enabled || l.Version != 2 {
		t.Errorf("version %d, want 2", l.Version)
	}
}

func dayBudget(hard int64) events.Budget {
	return events.Budget{Enabled: true, HardCapTokens: &hard, Period: events.PeriodDay, Version: 1}
}

// A clock that goes back a little over a period's end finds the period it left.
func TestThePeriodBeforeIsRememberedForAMoment(t *testing.T) {
	t.Parallel()
	m := newMemory()
	end := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	m.applyTotals(notice("p", ledger.DayOf(end)-1, 70), oldestDay(end.Add(time.Second)), end)
	m.beginReading(true, oldestDay(end.Add(time.Second)))
	m.readDays([]ledger.PortDay{{PortID: "p", Day: ledger.DayOf(end) - 1, TotalTokens: 70}})
	m.endReading(end)
	if _, used, _, _ := m.lookup("p", end.Add(-time.Second)); used != 70 {
		t.Errorf("%d used before the month's end, want 70", used)
	}
	if got := oldestDay(end.Add(setBack)); got != ledger.DayOf(end)-1 { // a Tuesday: the week began the day before
		t.Errorf("the oldest day is %s", got.Time())
	}
}
