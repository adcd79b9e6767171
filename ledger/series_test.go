package ledger_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

func TestSeries(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	spend := func(feature, model, user, run string, tokens int64, at time.Time) ledger.Entry {
		return call("p1", at, func(u *events.Usage) {
			u.Feature, u.Model, u.UserID, u.RunID, u.InputTokens, u.OutputTokens, u.Details = feature, model, user, run, tokens, 0, events.Details{}
		})
	}
	day := func(n int) time.Time { return date(2026, 11, n) }
	s.book(t, // the 23rd is a Monday
		spend("ocr", "claude", "anna", "a-1", 100, day(23)), spend("ocr", "gpt", "anna", "a-2", 20, day(23).Add(23*time.Hour+59*time.Minute)),
		spend("chat", "gpt", "", "", 7, day(22).Add(12*time.Hour)), spend("summary", "ada", "ben", "", 300, day(21)),
		spend("ocr", "claude", "anna", "a-1", 9000, day(21).Add(-time.Millisecond)), spend("ocr", "claude", "anna", "a-1", 9000, day(24)), // outside
		call("p2", day(22)), // somebody else's
	)
	type steps map[time.Time][2]int64 // tokens, requests
	byDay := steps{day(21): {300, 1}, day(22): {7, 1}, day(23): {120, 2}}
	byWeek := steps{day(16): {307, 2}, day(23): {120, 2}}
	byHour := steps{day(21): {300, 1}, day(22).Add(12 * time.Hour): {7, 1}, day(23): {100, 1}, day(23).Add(23 * time.Hour): {20, 1}}
	for _, c := range []struct {
		by    events.Dimension
		step  budget.Period
		count int
		want  steps
		keys  map[string]int64 // the two with most tokens
	}{
		{events.ByFeature, budget.Day, 3, byDay, map[string]int64{"summary": 300, "ocr": 120}},
		{events.ByModel, budget.Week, 2, byWeek, map[string]int64{"ada": 300, "claude": 100}},
		{events.ByUser, budget.Day, 3, byDay, map[string]int64{"ben": 300, "anna": 120}},
		{events.ByUser, budget.Week, 2, byWeek, map[string]int64{"ben": 300, "anna": 120}},
		{events.ByRun, budget.Day, 3, byDay, map[string]int64{"": 307, "a-1": 100}},
		{events.ByFeature, budget.Hour, 72, byHour, map[string]int64{"summary": 300, "ocr": 120}},
		{events.ByUser, budget.Hour, 72, byHour, map[string]int64{"ben": 300, "anna": 120}},
	} {
		got, err := s.Series(t.Context(), ledger.SeriesQuery{PortID: "p1", By: c.by, Step: c.step, Start: day(21), End: day(24), Top: 2})
		if err != nil {
			t.Fatal(err)
		}
		found, keys := steps{}, map[string]int64{}
		for _, step := range got.Steps {
			if step.Tokens > 0 {
				found[step.Start] = [2]int64{step.Tokens, step.Requests}
			}
		}
		for i, k := range got.Keys {
			keys[k.Key] = k.Total
			var sum int64
			for _, n := range k.Tokens {
				sum += n
			}
			if sum != k.Total || len(k.Tokens) != len(got.Steps) || i > 0 && k.Total > got.Keys[i-1].Total {
				t.Errorf("by %s and %s: %+v in place %d", c.by, c.step, k, i)
			}
		}
		if diff := cmp.Diff(c.want, found); diff != "" || len(got.Steps) != c.count {
			t.Errorf("by %s and %s: %d steps (-want +got):\n%s", c.by, c.step, len(got.Steps), diff)
		}
		if diff := cmp.Diff(c.keys, keys); diff != "" {
			t.Errorf("by %s and %s (-want +got):\n%s", c.by, c.step, diff)
		}
	}
	got, err := s.Series(t.Context(), ledger.SeriesQuery{PortID: "nobody", By: events.ByUser, Step: budget.Day, Start: day(21), End: day(23), Top: 2})
	if err != nil || len(got.Steps) != 2 || got.Keys == nil || len(got.Keys) != 0 {
		t.Errorf("a port without usage: %+v, %v", got, err)
	}
}

// Of a port that has a name, the name stays.
func TestNamePort(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.book(t, call("p1", noon))
	for _, name := range []string{"Harbour North", "Another"} {
		for _, port := range []string{"p1", "p2"} {
			if err := s.NamePort(t.Context(), port, name); err != nil {
				t.Fatal(err)
			}
		}
	}
	ports, err := s.Ports(t.Context(), ledger.PortQuery{Limit: 10}, noon)
	if err != nil || len(ports) != 2 || ports[0].Name != "Harbour North" || ports[1].Name != "Harbour North" {
		t.Errorf("%+v, %v", ports, err)
	}
}
