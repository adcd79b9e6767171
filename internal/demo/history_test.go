package demo

import (
	"testing"
	"time"

	"github.com/tidegate/tidegate/events"
)

// A start some days later tells the same of the days that both have, so that nothing is
// booked twice, and everything keeps to the wire's contract.
func TestHistory(t *testing.T) {
	now := time.Date(2026, 11, 23, 15, 30, 6, 123456, time.UTC) // a Monday
	all := 0
	for i := range ports {
		p := &ports[i]
		first, known := p.history(historyDays, now), map[string]events.Usage{}
		all += len(first)
		byDay, weekends := map[string]int64{}, 0
		for _, u := range first {
			if err := u.Validate(); err != nil {
				t.Fatalf("%+v: %v", u, err)
			}
			if _, twice := known[u.ID]; twice || u.PortID != p.id || u.OccurredAt.After(now) || !u.OccurredAt.Equal(u.OccurredAt.Truncate(time.Millisecond)) {
				t.Errorf("%+v at %s", u, now)
			}
			known[u.ID] = u
			byDay[u.OccurredAt.Format(time.DateOnly)] += u.TotalTokens()
			if day := u.OccurredAt.Weekday(); day == time.Saturday || day == time.Sunday {
				weekends++
			}
		}
		for day, tokens := range byDay {
			if p.daily > 0 && tokens > p.daily {
				t.Errorf("%s used %d on %s, more than its cap of %d a day", p.id, tokens, day, p.daily)
			}
		}
		if weekends*7 > len(first) && p.daily == 0 { // two days of seven are a weekend
			t.Errorf("%s made %d of %d calls at weekends", p.id, weekends, len(first))
		}
		last := now.AddDate(0, 0, -p.silent).Format(time.DateOnly)
		if _, today := byDay[last]; today != (!p.live && p.silent == 0) {
			t.Errorf("%s has calls on %s: %t", p.id, last, today)
		}
		shared := 0
		const again = 10
		for _, u := range p.history(again, now.AddDate(0, 0, 3).Add(-5*time.Hour)) {
			if before, ok := known[u.ID]; ok {
				if shared++; before != u {
					t.Fatalf("first\n%+v, three days later\n%+v", before, u)
				}
			}
		}
		if shared < len(first)*5/historyDays && p.silent == 0 {
			t.Errorf("three days later %d of %d calls of %s are known", shared, len(first), p.id)
		}
	}
	if all < 15_000 || all > 40_000 {
		t.Errorf("there are %d calls: too few to look at, or too many to book at a start", all)
	}
}

// Caps of a port follow what it used, on the first of a month too.
func TestUsedPart(t *testing.T) {
	for _, c := range []struct {
		used  used
		share float64
		want  int64
	}{
		{used{month: 12_345_678, day: 100_000}, 1, 12_000_000}, {used{month: 12_345_678, day: 100_000}, 0.5, 6_200_000},
		{used{day: 123_456}, 0.5, 62_000}, {used{}, 1, 0}, {used{month: 7}, 1, 7},
	} {
		if got := c.used.part(c.share); got != c.want {
			t.Errorf("%.1f of %+v is %d, want %d", c.share, c.used, got, c.want)
		}
	}
}
