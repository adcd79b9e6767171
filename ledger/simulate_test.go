package ledger_test

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

// replay is the rule as one would explain it: one call after the other.
func replay(entries []ledger.Entry, b events.Budget, from, to time.Time) budget.Simulation {
	slices.SortFunc(entries, func(a, b ledger.Entry) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID.String(), b.ID.String()))
	})
	var sim budget.Simulation
	sim.From, _ = b.Period.Bounds(from)
	_, sim.To = b.Period.Bounds(to.Add(-time.Nanosecond))
	var used int64
	var period time.Time
	for _, e := range entries {
		if e.At.Before(sim.From) || !e.At.Before(sim.To) {
			continue
		}
		if start, _ := b.Period.Bounds(e.At); start != period {
			period, used = start, 0
		}
		tokens := e.Usage.TotalTokens()
		sim.Calls++
		if hard := b.HardCapTokens; hard != nil && (used >= *hard || used+tokens > *hard) {
			sim.RefusedCalls++
			sim.RefusedTokens += tokens
			if sim.FirstRefusedAt.IsZero() {
				sim.FirstRefusedAt = e.At
			}
			continue
		}
		used += tokens
		sim.UsedTokens += tokens
		if b.SoftCapTokens != nil && used >= *b.SoftCapTokens {
			sim.WarnedCalls++
			if sim.FirstWarnedAt.IsZero() {
				sim.FirstWarnedAt = e.At
			}
		}
	}
	return sim
}

// Whatever the calls and the budget, the simulation says what the plain loop
// says, however little it reads one by one.
func TestSimulateIsTheLoop(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	start := time.Date(2026, 10, 28, 0, 0, 0, 0, time.UTC) // its week and month end within the calls
	port := 0
	rapid.Check(t, func(rt *rapid.T) {
		port++
		name := fmt.Sprintf("p%d", port)
		span := rapid.SampledFrom([]time.Duration{5 * time.Millisecond, time.Hour, 24 * time.Hour, 8 * 24 * time.Hour}).Draw(rt, "span")
		sizes := rapid.SampledFrom([][]int64{{0, 1}, {0, 7, 100}, {1, 1000}, {3, 50, 51, 52, 900}, {0}}).Draw(rt, "sizes")
		calls := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) ledger.Entry {
			at := start.Add(time.Duration(rapid.Int64Range(0, span.Milliseconds()-1).Draw(rt, "ms")) * time.Millisecond)
			return call(name, at, func(u *events.Usage) {
				u.InputTokens, u.OutputTokens, u.Details = rapid.SampledFrom(sizes).Draw(rt, "tokens"), 0, events.Details{}
			})
		}), 0, 60).Draw(rt, "calls")
		if _, err := s.Book(t.Context(), calls); err != nil {
			rt.Fatal(err)
		}
		var sum int64
		for _, c := range calls {
			sum += c.Usage.TotalTokens()
		}
		caps := rapid.Custom(func(rt *rapid.T) *int64 {
			switch rapid.IntRange(0, 5).Draw(rt, "kind") {
			case 0:
				return nil
			case 1:
				return new(int64(0))
			case 2:
				return new(sum)
			default:
				return new(rapid.Int64Range(0, sum+2).Draw(rt, "cap"))
			}
		})
		b := events.Budget{
			Period:        rapid.SampledFrom(budget.Periods[:]).Draw(rt, "period"),
			SoftCapTokens: caps.Draw(rt, "soft"), HardCapTokens: caps.Draw(rt, "hard"),
		}
		if b.SoftCapTokens != nil && b.HardCapTokens != nil && *b.SoftCapTokens > *b.HardCapTokens {
			b.SoftCapTokens, b.HardCapTokens = b.HardCapTokens, b.SoftCapTokens
		}
		from := start.AddDate(0, 0, rapid.IntRange(-1, 2).Draw(rt, "from"))
		to := from.AddDate(0, 0, rapid.IntRange(1, 9).Draw(rt, "days"))
		want := replay(calls, b, from, to)
		for _, atOnce := range []int64{1, 4, 20_000} {
			got, err := s.SimulateAtOnce(t.Context(), name, b, from, to, atOnce)
			if err != nil {
				rt.Fatal(err)
			}
			if diff := gocmp.Diff(want, got); diff != "" {
				rt.Fatalf("%d at once (-loop +simulated):\n%s", atOnce, diff)
			}
		}
	})
}

func TestSimulateLeavesOtherPortsOut(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.book(t, call("p1", noon), call("p2", noon), call("p1", noon.Add(time.Second)))
	b := events.Budget{Period: events.PeriodMonth, HardCapTokens: new(int64(150))}
	from, to := b.Period.Bounds(noon)
	got, err := s.Simulate(t.Context(), "p1", b, from, to)
	if err != nil {
		t.Fatal(err)
	}
	want := budget.Simulation{From: from, To: to, Calls: 2, RefusedCalls: 1, RefusedTokens: 110, UsedTokens: 110, FirstRefusedAt: noon.Add(time.Second)}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got, err := s.Simulate(t.Context(), "nobody", b, from, to); err != nil || got != (budget.Simulation{From: from, To: to}) {
		t.Errorf("a port without calls: %+v, %v", got, err)
	}
}

// After the day on which the cap is crossed, what still fits is admitted.
func TestSimulateGoesOnAfterTheCap(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	small := func(u *events.Usage) { u.InputTokens, u.OutputTokens, u.Details = 40, 0, events.Details{} }
	s.book(t, call("p1", noon), call("p1", noon.Add(time.Second)), call("p1", noon.AddDate(0, 0, 1)), call("p1", noon.AddDate(0, 0, 2), small), call("p1", noon.AddDate(0, 0, 3), small))
	b := events.Budget{Period: events.PeriodMonth, HardCapTokens: new(int64(150))}
	from, to := b.Period.Bounds(noon)
	got, err := s.Simulate(t.Context(), "p1", b, from, to)
	want := budget.Simulation{From: from, To: to, Calls: 5, RefusedCalls: 3, RefusedTokens: 260, UsedTokens: 150, FirstRefusedAt: noon.Add(time.Second)}
	if diff := gocmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestSimulateRefusesWhatItCannotKnow(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	var field *events.FieldError
	_, err := s.Simulate(t.Context(), "p1", events.Budget{Period: "year"}, noon, noon.Add(1))
	if !errors.As(err, &field) || field.Field != "period" {
		t.Errorf("an invalid budget: %v", err)
	}
	old := noon.AddDate(-8, 0, 0)
	s.book(t, call("p1", old))
	if err := s.Maintain(t.Context(), noon); err != nil { // drops the month, keeps its totals
		t.Fatal(err)
	}
	_, err = s.Simulate(t.Context(), "p1", events.Budget{Period: events.PeriodMonth}, old, old.Add(1))
	if !errors.As(err, &field) || field.Field != "from" {
		t.Errorf("a month that has left the ledger: %v", err)
	}
}
