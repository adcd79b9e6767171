package budget_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tidegate/tidegate/budget"
)

func TestPeriod_Bounds(t *testing.T) {
	const ns = time.Nanosecond
	at := func(s string) time.Time {
		t.Helper()
		v, err := time.Parse("2006-01-02", s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, c := range []struct {
		what       string
		period     budget.Period
		start, end string
	}{
		{"a day", budget.Day, "2026-11-23", "2026-11-24"},
		{"the last of a month", budget.Day, "2026-11-30", "2026-12-01"},
		{"the leap day", budget.Day, "2028-02-29", "2028-03-01"},
		{"28 February of no leap year", budget.Day, "2026-02-28", "2026-03-01"},
		{"28 February 2100, no leap year", budget.Day, "2100-02-28", "2100-03-01"},
		{"New Year's Eve", budget.Day, "2026-12-31", "2027-01-01"},
		{"a day on which Europe changes its clocks", budget.Day, "2026-03-29", "2026-03-30"},
		{"a week", budget.Week, "2026-11-23", "2026-11-30"},
		{"a week across the year's end", budget.Week, "2026-12-28", "2027-01-04"},
		{"a week that begins the year", budget.Week, "2024-01-01", "2024-01-08"},
		{"a week across the leap day", budget.Week, "2028-02-28", "2028-03-06"},
		{"a month of 30", budget.Month, "2026-11-01", "2026-12-01"},
		{"December", budget.Month, "2026-12-01", "2027-01-01"},
		{"February", budget.Month, "2026-02-01", "2026-03-01"},
		{"February with a leap day", budget.Month, "2028-02-01", "2028-03-01"},
		{"before 1970", budget.Month, "1969-12-01", "1970-01-01"},
		{"the default", "", "2026-11-01", "2026-12-01"},
	} {
		start, end := at(c.start), at(c.end)
		// Far from UTC on either side, and one whose offset is not whole hours.
		for _, zone := range []*time.Location{time.UTC, time.FixedZone("", 14*3600), time.FixedZone("", -12*3600), time.FixedZone("", 5*3600+45*60)} {
			for _, inside := range []time.Time{start, start.Add(ns), start.Add(end.Sub(start) / 2), end.Add(-ns)} {
				gotStart, gotEnd := c.period.Bounds(inside.In(zone))
				if !gotStart.Equal(start) || !gotEnd.Equal(end) || gotStart.Location() != time.UTC {
					t.Errorf("%s: %s lies in [%s, %s)", c.what, inside.In(zone), gotStart, gotEnd)
				}
			}
			if _, gotEnd := c.period.Bounds(start.Add(-ns).In(zone)); !gotEnd.Equal(start) {
				t.Errorf("%s: 1 ns before lies in a period that ends at %s", c.what, gotEnd)
			}
			if gotStart, _ := c.period.Bounds(end.In(zone)); !gotStart.Equal(end) {
				t.Errorf("%s: its end lies in a period that starts at %s", c.what, gotStart)
			}
		}
	}
}

// Periods tile the time: every moment lies in exactly one.
func TestPeriod_Tile(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.SampledFrom(budget.Periods[:]).Draw(t, "period")
		at := time.Unix(rapid.Int64Range(-1<<33, 1<<35).Draw(t, "s"), rapid.Int64Range(0, 1e9-1).Draw(t, "ns"))
		start, end := p.Bounds(at)
		if at.Before(start) || !at.Before(end) {
			t.Fatalf("%s outside [%s, %s)", at, start, end)
		}
		if next, _ := p.Bounds(end); !next.Equal(end) {
			t.Fatalf("after %s comes %s", end, next)
		}
		if _, before := p.Bounds(start.Add(-1)); !before.Equal(start) {
			t.Fatalf("before %s ends %s", start, before)
		}
		if p == budget.Week && start.Weekday() != time.Monday {
			t.Fatalf("a week starts on %s", start.Weekday())
		}
	})
}

func TestPeriod_Valid(t *testing.T) {
	for p, want := range map[budget.Period]bool{"day": true, "week": true, "month": true, "": false, "year": false, "Day": false} {
		if p.Valid() != want {
			t.Errorf("%q: %t", p, p.Valid())
		}
	}
}
