package ledger_test

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

// replayLimit is the rule of a limit as one would explain it: all calls in their order, and a
// count for each value and window.
func replayLimit(entries []ledger.Entry, l *budget.Limit, from, to time.Time) budget.LimitSimulation {
	slices.SortFunc(entries, func(a, b ledger.Entry) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID.String(), b.ID.String()))
	})
	sim := budget.LimitSimulation{From: from, To: to, Unit: cmp.Or(l.Unit, budget.Tokens), Refused: []budget.ValueRefused{}}
	if l.Window != budget.Total {
		sim.From, _ = l.Window.Bounds(from)
		_, sim.To = l.Window.Bounds(to.Add(-time.Nanosecond))
	}
	scale := int64(1)
	if l.Unit == budget.Weighted {
		scale = 1000
	}
	type window struct {
		value string
		start time.Time
	}
	used := map[window]int64{}
	values := map[string]*budget.ValueRefused{}
	var all, refused int64
	for _, e := range entries {
		u := e.Usage
		if e.At.Before(sim.From) || !e.At.Before(sim.To) || l.Match.Feature != "" && u.Feature != l.Match.Feature ||
			l.Match.Model != "" && !strings.HasPrefix(u.Model, strings.TrimSuffix(l.Match.Model, "*")) {
			continue
		}
		w := window{value: map[budget.Per]string{budget.PerUser: u.UserID, budget.PerRun: u.RunID, budget.PerFeature: u.Feature}[l.Per]}
		if l.Window != budget.Total {
			w.start, _ = l.Window.Bounds(e.At)
		}
		asks := u.InputTokens + u.OutputTokens
		switch l.Unit {
		case budget.Requests:
			asks = 1
		case budget.Weighted: // 0.1 a cached token, 4 one of output
			asks = 1000*(u.InputTokens-u.Details.CacheReadInputTokens) + 100*u.Details.CacheReadInputTokens + 4000*u.OutputTokens
		}
		sim.Calls++
		all += asks
		v := values[w.value]
		if v == nil {
			v = &budget.ValueRefused{Value: w.value}
			values[w.value] = v
		}
		if l.Hard != nil && (used[w] >= *l.Hard*scale || used[w]+asks > *l.Hard*scale) {
			v.RefusedCalls++
			v.RefusedTokens += asks
			refused += asks
			if v.FirstRefusedAt.IsZero() {
				v.FirstRefusedAt = e.At
			}
			if sim.FirstRefusedAt.IsZero() {
				sim.FirstRefusedAt = e.At
			}
			continue
		}
		used[w] += asks
		if l.Soft != nil && used[w] >= *l.Soft*scale {
			sim.WarnedCalls++
			if sim.FirstWarnedAt.IsZero() {
				sim.FirstWarnedAt = e.At
			}
		}
	}
	sim.UsedTokens, sim.RefusedTokens = (all-refused+scale-1)/scale, (refused+scale-1)/scale
	sim.Values = int64(len(values))
	for _, v := range values {
		sim.RefusedCalls += v.RefusedCalls
		if v.RefusedCalls > 0 {
			v.RefusedTokens = (v.RefusedTokens + scale - 1) / scale
			sim.RefusedValues++
			sim.Refused = append(sim.Refused, *v)
		}
	}
	slices.SortFunc(sim.Refused, func(a, b budget.ValueRefused) int {
		return cmp.Or(cmp.Compare(b.RefusedCalls, a.RefusedCalls), cmp.Compare(a.Value, b.Value))
	})
	return sim
}

// Whatever the calls and the limit, the simulation says what the plain loop says.
func TestSimulateLimitIsTheLoop(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	start := time.Date(2026, 10, 28, 0, 0, 0, 0, time.UTC) // its week and month end within the calls
	port := 0
	rapid.Check(t, func(rt *rapid.T) {
		port++
		name := fmt.Sprintf("p%d", port)
		span := rapid.SampledFrom([]time.Duration{5 * time.Millisecond, 3 * time.Hour, 24 * time.Hour, 8 * 24 * time.Hour}).Draw(rt, "span")
		sizes := rapid.SampledFrom([][]int64{{0, 1}, {0, 7, 100}, {3, 50, 51, 52, 900}, {0}}).Draw(rt, "sizes")
		calls := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) ledger.Entry {
			at := start.Add(time.Duration(rapid.Int64Range(0, span.Milliseconds()-1).Draw(rt, "ms")) * time.Millisecond)
			return call(name, at, func(u *events.Usage) {
				u.Feature = rapid.SampledFrom([]string{"ocr", "summary"}).Draw(rt, "feature")
				u.Model = rapid.SampledFrom([]string{"gpt-5", "gpt-5-mini", "claude"}).Draw(rt, "model")
				u.UserID = rapid.SampledFrom([]string{"", "anna", "ben"}).Draw(rt, "user")
				u.RunID = rapid.SampledFrom([]string{"", "r1", "r2", "r3", "r4"}).Draw(rt, "run")
				u.InputTokens, u.OutputTokens = rapid.SampledFrom(sizes).Draw(rt, "input"), rapid.SampledFrom(sizes).Draw(rt, "output")
				u.Details = events.Details{CacheReadInputTokens: rapid.Int64Range(0, u.InputTokens).Draw(rt, "cached")}
			})
		}), 0, 60).Draw(rt, "calls")
		if _, err := s.Book(t.Context(), calls); err != nil {
			rt.Fatal(err)
		}
		var sum int64
		for _, c := range calls {
			sum += c.Usage.TotalTokens()
		}
		l := budget.Limit{Name: "tried",
			Match:  budget.Match{Feature: rapid.SampledFrom([]string{"", "", "ocr"}).Draw(rt, "match feature"), Model: rapid.SampledFrom([]string{"", "", "gpt-5*"}).Draw(rt, "match model")},
			Per:    rapid.SampledFrom([]budget.Per{"", budget.PerUser, budget.PerRun, budget.PerFeature}).Draw(rt, "per"),
			Window: rapid.SampledFrom([]budget.Period{budget.Hour, budget.Day, budget.Week, budget.Month, budget.Total}).Draw(rt, "window"),
			Unit:   rapid.SampledFrom([]budget.Unit{"", budget.Tokens, budget.Requests, budget.Weighted}).Draw(rt, "unit"),
		}
		if l.Unit == budget.Weighted {
			l.Weights = budget.Weights{CacheRead: new(budget.Weight(100)), Output: new(budget.Weight(4000))}
		}
		most := sum + 2
		if l.Unit == budget.Requests {
			most = int64(len(calls)) + 1
		}
		caps := rapid.Custom(func(rt *rapid.T) *int64 {
			return new(rapid.OneOf(rapid.Int64Range(0, most), rapid.Int64Range(0, most/5), rapid.Just(int64(0))).Draw(rt, "cap"))
		})
		l.Soft, l.Hard = caps.Draw(rt, "soft"), caps.Draw(rt, "hard")
		if *l.Soft > *l.Hard {
			l.Soft, l.Hard = l.Hard, l.Soft
		}
		switch rapid.IntRange(0, 3).Draw(rt, "only") {
		case 0:
			l.Soft = nil
		case 1:
			l.Hard = nil
		}
		from := start.AddDate(0, 0, rapid.IntRange(-1, 2).Draw(rt, "from"))
		to := from.AddDate(0, 0, rapid.IntRange(1, 9).Draw(rt, "days"))
		got, err := s.SimulateLimit(t.Context(), name, &l, from, to)
		if err != nil {
			rt.Fatal(err)
		}
		if diff := gocmp.Diff(replayLimit(calls, &l, from, to), got); diff != "" {
			rt.Fatalf("(-loop +simulated):\n%s", diff)
		}
	})
}

// However many users there are, the answer lists some of them, those with most refused calls.
func TestSimulateLimitListsSomeValues(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	const users, listed = 350, budget.MaxValuesRefused
	var calls []ledger.Entry
	for i := range users {
		for range 1 + i%7 { // the first is allowed
			calls = append(calls, call("p1", noon, by(fmt.Sprintf("u%03d", i))))
		}
	}
	s.book(t, append(calls, call("p2", noon, by("u000")))...)
	l := budget.Limit{Name: "each-user", Per: budget.PerUser, Window: budget.Day, Unit: budget.Requests, Hard: new(int64(1))}
	from, to := budget.Day.Bounds(noon)
	got, err := s.SimulateLimit(t.Context(), "p1", &l, from, to)
	if err != nil {
		t.Fatal(err)
	}
	if got.Values != users || got.RefusedValues != users-users/7 || got.Calls != int64(len(calls)) || got.RefusedCalls != int64(len(calls)-users) || len(got.Refused) != listed {
		t.Errorf("%+v, want %d of %d values and %d of %d calls refused, %d values listed", got, users-users/7, users, len(calls)-users, len(calls), listed)
	}
	for i, v := range got.Refused {
		want := int64(6 - i/(users/7))
		if v.RefusedCalls != want || v.RefusedTokens != want {
			t.Fatalf("%d. is %+v, want %d calls refused", i+1, v, want)
		}
	}
	if got.Refused[0].Value != "u006" || got.Refused[1].Value != "u013" {
		t.Errorf("first are %s and %s, want u006 and u013", got.Refused[0].Value, got.Refused[1].Value)
	}
	if got, err := s.SimulateLimit(t.Context(), "nobody", &l, from, to); err != nil || got.Calls != 0 || got.Refused == nil {
		t.Errorf("a port without calls: %+v, %v", got, err)
	}
}

func TestSimulateLimitRefusesWhatItCannotKnow(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	var field *events.FieldError
	_, err := s.SimulateLimit(t.Context(), "p1", &budget.Limit{Name: "a", Window: "year", Hard: new(int64(1))}, noon, noon.Add(1))
	if !errors.As(err, &field) || field.Field != "limit (a).window" {
		t.Errorf("an invalid limit: %v", err)
	}
	old := noon.AddDate(-8, 0, 0)
	s.book(t, call("p1", old))
	if err := s.Maintain(t.Context(), noon); err != nil { // drops the month, keeps its totals
		t.Fatal(err)
	}
	_, err = s.SimulateLimit(t.Context(), "p1", &budget.Limit{Name: "a", Window: budget.Month, Hard: new(int64(1))}, old, old.Add(1))
	if !errors.As(err, &field) || field.Field != "from" {
		t.Errorf("a month that has left the ledger: %v", err)
	}
}
