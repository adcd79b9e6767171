package budget_test

import (
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tidegate/tidegate/budget"
)

func weight(thousandths int64) *budget.Weight { return new(budget.Weight(thousandths)) }

func TestLimit_Matches(t *testing.T) {
	call := budget.Labels{Feature: "ocr", Model: "gpt-5-mini", UserID: "u1"}
	for _, c := range []struct {
		match budget.Match
		want  bool
	}{
		{budget.Match{}, true},
		{budget.Match{Feature: "ocr"}, true},
		{budget.Match{Feature: "oc"}, false},
		{budget.Match{Feature: "oc*"}, true},
		{budget.Match{Model: "gpt-5*"}, true},
		{budget.Match{Model: "gpt-5-mini"}, true},
		{budget.Match{Model: "gpt-5-mini-2*"}, false},
		{budget.Match{Feature: "ocr", Model: "gpt-4*"}, false},
		{budget.Match{UserID: "*"}, true},
		{budget.Match{RunID: "*"}, false}, // the call names none
		{budget.Match{Provider: "openai"}, false},
	} {
		l := budget.Limit{Match: c.match}
		if got := l.Matches(&call); got != c.want {
			t.Errorf("%+v: %v, want %v", c.match, got, c.want)
		}
	}
}

func TestLimit_Validate(t *testing.T) {
	for field, text := range map[string]string{
		"":                          `[{"name":"a","window":"hour","hard":5},{"name":"b","match":{"model":"gpt-5*"},"per":"user_id","window":"total","unit":"weighted","weights":{"cache_read":0.125,"output":4},"soft":1,"hard":2}]`,
		"limits[0].name":            `[{"name":"port","window":"day","hard":5}]`,
		"limits[1].name":            `[{"name":"a","window":"day","hard":5},{"name":"a","window":"hour","hard":5}]`,
		"limits[0] (a).window":      `[{"name":"a","window":"year","hard":5}]`,
		"limits[0] (a).per":         `[{"name":"a","per":"user","window":"day","hard":5}]`,
		"limits[0] (a).unit":        `[{"name":"a","unit":"euro","window":"day","hard":5}]`,
		"limits[0] (a).hard":        `[{"name":"a","window":"day"}]`,
		"limits[0] (a).soft":        `[{"name":"a","window":"day","soft":6,"hard":5}]`,
		"limits[0] (a).weights":     `[{"name":"a","window":"day","hard":5,"weights":{"output":2}}]`,
		"limits[0] (a).match.model": `[{"name":"a","match":{"model":"gpt-*-mini"},"window":"day","hard":5}]`,
		"limits":                    "[" + strings.Repeat(`{"name":"a","window":"day","hard":5},`, 50) + `{"name":"b","window":"day","hard":5}]`,
	} {
		b := budget.Budget{Period: budget.Month}
		if err := json.Unmarshal([]byte(text), &b.Limits); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		err := b.Validate()
		var e *budget.FieldError
		if field == "" && err != nil || field != "" && (!errors.As(err, &e) || e.Field != field) {
			t.Errorf("%s\nwant %q, got %v", text, field, err)
		}
	}
}

func TestWeight_JSON(t *testing.T) {
	for text, want := range map[string]int64{"1": 1000, "0.1": 100, "4": 4000, "0": 0, "0.125": 125, "1e2": 100_000, "1000000": 1_000_000_000} {
		var w budget.Weight
		if err := json.Unmarshal([]byte(text), &w); err != nil || int64(w) != want {
			t.Errorf("%s: %d, %v", text, w, err)
		}
	}
	for _, text := range []string{"0.0001", "-1", `"1"`, "1000001", "1e400", "true"} {
		var w budget.Weight
		if err := json.Unmarshal([]byte(text), &w); err == nil {
			t.Errorf("%s is taken for %d", text, w)
		}
	}
	if text, err := json.Marshal(budget.Weights{CacheRead: weight(100), Output: weight(4000), Input: weight(1250)}); err != nil || string(text) != `{"input":1.25,"cache_read":0.1,"output":4}` {
		t.Errorf("%s, %v", text, err)
	}
}

func TestLimit_Used(t *testing.T) {
	u := budget.Usage{Input: 1000, CacheRead: 700, CacheWrite: 100, Output: 50}
	for _, c := range []struct {
		limit budget.Limit
		want  int64
	}{
		{budget.Limit{}, 1050},
		{budget.Limit{Unit: budget.Requests}, 1},
		{budget.Limit{Unit: budget.Weighted}, 1_050_000},
		{budget.Limit{Unit: budget.Weighted, Weights: budget.Weights{CacheRead: weight(100), CacheWrite: weight(1250), Output: weight(4000)}}, 200_000 + 70_000 + 125_000 + 200_000},
	} {
		if got := c.limit.Used(1, &u); got != c.want {
			t.Errorf("%+v: %d, want %d", c.limit, got, c.want)
		}
	}
	huge := budget.Usage{Input: math.MaxInt64, Output: math.MaxInt64}
	if got := (&budget.Limit{Unit: budget.Weighted, Weights: budget.Weights{Output: weight(9000)}}).Used(1, &huge); got != math.MaxInt64 {
		t.Errorf("a sum beyond 64 bits: %d", got)
	}
}

func TestPeriod_BoundsOfLimits(t *testing.T) {
	at := time.Date(2026, 11, 23, 15, 59, 59, 999, time.UTC)
	if start, end := budget.Hour.Bounds(at); start != time.Date(2026, 11, 23, 15, 0, 0, 0, time.UTC) || end != start.Add(time.Hour) {
		t.Errorf("an hour: %s, %s", start, end)
	}
	if start, end := budget.Total.Bounds(at); start.Unix() != 0 || !end.IsZero() {
		t.Errorf("total: %s, %s", start, end)
	}
}

// genLimits draws limits over a few values, so that many match.
func genLimits(t *rapid.T) []budget.Limit {
	few := func(name string, of ...string) string { return rapid.SampledFrom(of).Draw(t, name) }
	var limits []budget.Limit
	for i := range rapid.IntRange(0, 4).Draw(t, "limits") {
		l := budget.Limit{
			Name:   string(rune('a' + i)),
			Match:  budget.Match{Feature: few("feature", "", "ocr", "o*"), UserID: few("user", "", "", "u1", "*")},
			Per:    budget.Per(few("per", "", "user_id", "feature")),
			Window: rapid.SampledFrom([]budget.Period{budget.Hour, budget.Day, budget.Week, budget.Month, budget.Total}).Draw(t, "window"),
			Unit:   budget.Unit(few("unit", "", "tokens", "requests", "weighted")),
		}
		if l.Unit == budget.Weighted {
			l.Weights.Output = weight(rapid.Int64Range(0, 3000).Draw(t, "weight"))
		}
		if rapid.Bool().Draw(t, "has soft") {
			l.Soft = n(rapid.Int64Range(0, 50).Draw(t, "soft"))
		}
		if l.Soft == nil || rapid.Bool().Draw(t, "has hard") {
			l.Hard = n(rapid.Int64Range(0, 100).Draw(t, "hard"))
		}
		limits = append(limits, l)
	}
	return limits
}

// What limits mean together: a call is allowed exactly if it fits under every one that it
// matches, the answer is about one that decides, and what Fit grants is allowed, while more
// would not be.
func TestDecideLimits(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b := budget.Budget{Enabled: true, Period: budget.Month, Limits: genLimits(t)}
		if rapid.Bool().Draw(t, "has hard") {
			b.HardCapTokens = n(rapid.Int64Range(0, 200).Draw(t, "hard of the port"))
		}
		r := b.Rule()
		port := budget.Count{Used: rapid.Int64Range(0, 100).Draw(t, "used"), Held: rapid.Int64Range(0, 50).Draw(t, "held")}
		spent := map[string]budget.Count{}
		for _, l := range b.Limits {
			scale := int64(1)
			if l.Unit == budget.Weighted {
				scale = 1000
			}
			spent[l.Name] = budget.Count{Used: scale * rapid.Int64Range(0, 60).Draw(t, "used of "+l.Name), Held: rapid.Int64Range(0, 20).Draw(t, "held of "+l.Name)}
		}
		counts := func(l *budget.Limit, _ string, _ time.Time) budget.Count { return spent[l.Name] }
		call := budget.Call{Labels: budget.Labels{Feature: rapid.SampledFrom([]string{"", "ocr", "other"}).Draw(t, "feature of the call"),
			UserID: rapid.SampledFrom([]string{"", "u1", "u2"}).Draw(t, "user of the call")}}
		call.Tokens = rapid.Int64Range(0, 60).Draw(t, "tokens")
		if call.Tokens > 0 && rapid.Bool().Draw(t, "parts") {
			call.Output = rapid.Int64Range(0, call.Tokens).Draw(t, "output")
			call.Input = call.Tokens - call.Output
		}
		now := time.Date(2026, 11, 23, 15, 30, 0, 0, time.UTC)

		fits := b.HardCapTokens == nil || port.Used+port.Held < *b.HardCapTokens && port.Used+port.Held+call.Tokens <= *b.HardCapTokens
		for i := range b.Limits {
			l := &b.Limits[i]
			if !l.Matches(&call.Labels) || l.Hard == nil {
				continue
			}
			hard, asks := *l.Hard, l.Asks(call.Estimate)
			if l.Unit == budget.Weighted {
				hard *= 1000
			}
			all := spent[l.Name].Used + spent[l.Name].Held
			fits = fits && all < hard && all+asks <= hard
		}
		d := budget.Decide(r, port, &call, counts, now)
		if d.Allowed != fits {
			t.Fatalf("allowed %v, fits %v: %+v", d.Allowed, fits, d)
		}
		warned, refused := false, ""
		for _, one := range budget.Explain(r, port, &call, counts, now) {
			warned = warned || one.SoftCapWarning
			if refused == "" && !one.Allowed {
				refused = one.Limit
			}
			if d.Allowed && one.RemainingTokens != nil && *one.HardCapTokens > 0 &&
				(d.RemainingTokens == nil || *one.RemainingTokens**d.HardCapTokens < *d.RemainingTokens**one.HardCapTokens) {
				t.Fatalf("%s has a smaller share left than %s", one.Limit, d.Limit)
			}
		}
		if d.SoftCapWarning != warned || !d.Allowed && d.Limit != refused {
			t.Fatalf("%+v, but warned %v, refused by %q", d, warned, refused)
		}

		e, ok := budget.Fit(r, port, &call, counts, now)
		if ok && e.Tokens > call.Tokens {
			t.Fatalf("%d tokens of %d", e.Tokens, call.Tokens)
		}
		if fits && (!ok || e != call.Estimate) {
			t.Fatalf("fits, but is made %+v, %v", e, ok)
		}
		if ok && !fits {
			less := call
			less.Estimate = e
			if d := budget.Decide(r, port, &less, counts, now); d.Reason == budget.ReasonEstimateExceedsHardCap {
				t.Fatalf("%+v does not fit: %+v", e, d)
			}
		}
	})
}

// A tally says of each limit what its calls hold, and of calls whose user is not known too much
// rather than too little.
func TestTally(t *testing.T) {
	now := time.Date(2026, 11, 23, 15, 30, 0, 0, time.UTC)
	limits := []budget.Limit{
		{Name: "user", Per: budget.PerUser, Window: budget.Hour},
		{Name: "ocr", Match: budget.Match{Feature: "ocr"}, Window: budget.Day, Unit: budget.Requests},
		{Name: "model", Match: budget.Match{Model: "m*"}, Window: budget.Day},
	}
	tally := budget.NewTally(limits, now)
	hold := func(feature, user, model string, tokens int64, since time.Time) {
		tally.Hold(&budget.Call{Labels: budget.Labels{Feature: feature, UserID: user, Model: model}, Estimate: budget.Estimate{Tokens: tokens}}, 1, since)
	}
	hold("ocr", "u1", "", 5, now)
	hold("ocr", "u2", "m1", 7, now)
	hold("x", "u1", "n", 11, now.Add(-time.Hour)) // of the hour before
	hour, _ := budget.Hour.Bounds(now)
	day, _ := budget.Day.Bounds(now)
	want := func(what string, got, want int64) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	want("u1", tally.Held(&limits[0], "u1", hour), 5)
	want("u2", tally.Held(&limits[0], "u2", hour), 7)
	want("the next hour", tally.Held(&limits[0], "u1", hour.Add(time.Hour)), 0)
	want("requests", tally.Held(&limits[1], "", day), 2)
	want("a model", tally.Held(&limits[2], "", day), 7)
	tally.HoldLeased(&budget.Leased{Feature: "ocr"}, nil, 100, 3, now)
	tally.HoldLeased(&budget.Leased{Feature: "x"}, nil, 1000, 3, now.Add(-time.Hour)) // of a lease of the hour before
	want("u1, with calls of somebody", tally.Held(&limits[0], "u1", hour), 1105)
	want("a user of whom nothing is held", tally.Held(&limits[0], "u3", hour), 1100)
	want("requests, with calls of ocr", tally.Held(&limits[1], "", day), 5)
	want("a model, with calls of some model", tally.Held(&limits[2], "", day), 1107)
	for i, want := range [][]string{{"u1", "u2"}, {""}, {""}} { // those of anybody name nobody
		if diff := cmp.Diff(want, tally.Values(&limits[i])); diff != "" {
			t.Errorf("values of %s (-want +got):\n%s", limits[i].Name, diff)
		}
	}
}

// What is left of a lease counts for those alone whose calls it is for, in limits that look at
// nothing else, and for everybody in others.
func TestTallyOfLeases(t *testing.T) {
	now := time.Date(2026, 11, 23, 15, 30, 0, 0, time.UTC)
	limits := []budget.Limit{
		{Name: "user", Per: budget.PerUser, Window: budget.Day},
		{Name: "user-of-m", Match: budget.Match{Model: "m*"}, Per: budget.PerUser, Window: budget.Day},
		{Name: "models", Per: budget.PerModel, Window: budget.Day},
		{Name: "requests", Match: budget.Match{UserID: "u1"}, Window: budget.Day, Unit: budget.Requests},
		{Name: "weighted", Match: budget.Match{Feature: "o*"}, Per: budget.PerFeature, Window: budget.Day, Unit: budget.Weighted, Weights: budget.Weights{Output: new(budget.Weight(4000))}},
		{Name: "other", Match: budget.Match{Feature: "other"}, Window: budget.Day},
	}
	day, _ := budget.Day.Bounds(now)
	for _, c := range []struct {
		name  string
		lease *budget.Leased
		ended []budget.Sum
		want  map[string]int64 // by limit and value
	}{
		{"of two users", &budget.Leased{Feature: "ocr", By: []budget.Per{budget.PerUser}, Calls: []budget.Labels{{UserID: "u1"}, {UserID: "u2"}}}, nil,
			map[string]int64{"user u1": 100, "user u2": 100, "user-of-m u1": 100, "user-of-m u2": 100, "models m1": 100, "models n": 100, "models ": 100, "requests ": 3, "weighted ocr": 400_000}},
		{"of a user and a model, and of nobody", &budget.Leased{Feature: "ocr", By: []budget.Per{budget.PerModel, budget.PerUser}, Calls: []budget.Labels{{UserID: "u2", Model: "n"}, {UserID: "u1", Model: "m1"}, {}}}, nil,
			map[string]int64{"user u1": 100, "user u2": 100, "user ": 100, "user-of-m u1": 100, "models m1": 100, "models n": 100, "models ": 100, "requests ": 3, "weighted ocr": 400_000}},
		{"that is sealed", &budget.Leased{Feature: "ocr", By: []budget.Per{budget.PerUser}, Calls: []budget.Labels{{UserID: "u1"}, {UserID: "u2"}, {UserID: "u9"}},
			Made: []budget.Sum{{Calls: 1, Estimate: budget.Estimate{Tokens: 60, Input: 10, Output: 20}}, {Calls: 4, Estimate: budget.Estimate{Tokens: 200}}, {}}},
			nil,
			map[string]int64{"user u1": 60, "user u2": 100, "user-of-m u1": 60, "user-of-m u2": 100, "models m1": 100, "models n": 100, "models ": 100, "requests ": 1, "weighted ocr": 10_000 + 80_000 + 30_000 + 200_000}},
		{"of which some has ended", &budget.Leased{Feature: "ocr", By: []budget.Per{budget.PerUser}, Calls: []budget.Labels{{UserID: "u1"}, {UserID: "u2"}},
			Made: []budget.Sum{{Calls: 3, Estimate: budget.Estimate{Tokens: 60, Input: 10, Output: 20}}, {Calls: 4, Estimate: budget.Estimate{Tokens: 200}}}},
			[]budget.Sum{{Calls: 1, Estimate: budget.Estimate{Tokens: 20, Input: 10, Output: 10}}, {Calls: 4, Estimate: budget.Estimate{Tokens: 200}}},
			map[string]int64{"user u1": 40, "user-of-m u1": 40, "models m1": 100, "models n": 100, "models ": 100, "requests ": 2, "weighted ocr": 40_000 + 30_000}},
		{"of others", &budget.Leased{Feature: "x", By: []budget.Per{budget.PerModel, budget.PerUser}, Calls: []budget.Labels{{UserID: "u3", Model: "o"}}}, nil, map[string]int64{}},
		{"of anybody", &budget.Leased{Feature: "ocr"}, nil, map[string]int64{"user u1": 100, "user u2": 100, "user ": 100, "user u9": 100, "user-of-m u1": 100, "user-of-m u2": 100, "user-of-m ": 100, "user-of-m u9": 100,
			"models m1": 100, "models n": 100, "models ": 100, "requests ": 3, "weighted ocr": 400_000}},
		{"of any user, with so much for one", &budget.Leased{Feature: "ocr", Calls: []budget.Labels{{}}, Each: map[budget.Per]budget.Allowance{budget.PerUser: {Tokens: 30, Calls: 2}}}, nil,
			map[string]int64{"user u1": 30, "user u2": 30, "user ": 30, "user u9": 30, "user-of-m u1": 30, "user-of-m u2": 30, "user-of-m ": 30, "user-of-m u9": 30,
				"models m1": 100, "models n": 100, "models ": 100, "requests ": 3, "weighted ocr": 400_000}},
		{"of any user but u2", &budget.Leased{Feature: "ocr", Calls: []budget.Labels{{}}, Each: map[budget.Per]budget.Allowance{budget.PerUser: {Tokens: 30, Calls: 2, Except: []string{"u2"}}}}, nil,
			map[string]int64{"user u1": 30, "user ": 30, "user u9": 30, "user-of-m u1": 30, "user-of-m ": 30, "user-of-m u9": 30,
				"models m1": 100, "models n": 100, "models ": 100, "requests ": 3, "weighted ocr": 400_000}},
	} {
		tally := budget.NewTally(limits, now)
		tally.HoldLeased(c.lease, c.ended, 100, 3, now)
		got := map[string]int64{}
		for i, values := range [][]string{{"u1", "u2", "", "u9"}, {"u1", "u2", "", "u9"}, {"m1", "n", ""}, {""}, {"ocr", "x"}, {""}} {
			for _, v := range values {
				if n := tally.Held(&limits[i], v, day); n != 0 {
					got[limits[i].Name+" "+v] = n
				}
			}
		}
		for i := range limits[:3] {
			named := tally.Values(&limits[i])
			for _, v := range []string{"u1", "u2", "u9", "m1", "n", ""} { // what is held for one but not for all is named
				differs := tally.Held(&limits[i], v, day) > tally.Held(&limits[i], "somebody else", day)
				if differs != slices.Contains(named, v) && (differs || c.ended == nil && c.lease.Made == nil) {
					t.Errorf("a lease %s: values of %s are %q", c.name, limits[i].Name, named)
				}
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("a lease %s: (-want +got)\n%s", c.name, diff)
		}
	}
}
