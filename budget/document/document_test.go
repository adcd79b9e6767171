package document_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/budget/document"
)

// parse takes a document that must be right.
func parse(t testing.TB, text string) document.Document {
	t.Helper()
	d, err := document.Parse([]byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return d
}

// What a document leaves out is as in a new budget, and what is Tidegate's to say is ignored.
func TestParse(t *testing.T) {
	d := parse(t, `{"port_id":"p1","hard_cap_tokens":5,"version":3,"updated_at":"yesterday","updated_by":7,
		"limits":[{"name":"a","window":"day","hard":1,"counter":9}]}`)
	want := document.Document{PortID: "p1", Version: new(int64(3)), Budget: budget.Budget{Enabled: true, Period: budget.Month, HardCapTokens: new(int64(5)),
		Limits: []budget.Limit{{Name: "a", Window: budget.Day, Hard: new(int64(1))}}}}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Error("want (-), got (+):\n", diff)
	}
	if d := parse(t, `{"enabled":false,"period":"week"}`); d.Budget.Enabled || d.Budget.Period != budget.Week || d.Version != nil || d.PortID != "" {
		t.Errorf("%+v", d)
	}
}

func TestParse_Wrong(t *testing.T) {
	for text, want := range map[string]string{
		`{"hard_cap":1}`: "hard_cap: there is no such field",
		`{"limits":[{"name":"a","window":"day","hard":1},{"name":"b","window":"day","hrad":1}]}`:      "limits[1].hrad: there is no such field",
		`{"limits":[{"name":"a","match":{"modell":"x"}}]}`:                                            "limits[0].match.modell: there is no such field",
		`{"limits":[{"name":"a","window":"day","hard":"1M"}]}`:                                        "limits[0].hard: must be a whole number",
		`{"limits":[{"name":"a","window":"day","hard":1.5}]}`:                                         "limits[0].hard: must be a whole number",
		`{"limits":[{"name":"a","window":"day","hard":1,"unit":"weighted","weights":{"output":-1}}]}`: "limits[0].weights.output = \"-1\": must be a number from 0",
		`{"limits":[{"name":"a","window":"year","hard":1}]}`:                                          `limits[0] (a).window = "year": must be hour`,
		`{"limits":{}}`:     "limits: must be a list",
		`{"enabled":"yes"}`: "enabled: must be true or false",
		`{"version":"3"}`:   "version: must be a whole number",
		`{"soft_cap_tokens":6,"hard_cap_tokens":5}`: "soft_cap_tokens = 6: must be at most hard_cap_tokens (5)",
		`{"period":"year"}`:                         `period = "year": must be day, week or month`,
		`[]`:                                        "must be a JSON object",
		"":                                          "line 1 is no JSON",
		"{\n\"enabled\": true,\n}":                  "line 2 is no JSON",
		"{\"enabled\": true,\n\"enabled\": true}": "line 2: enabled: is there twice",
	} {
		if d, err := document.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\nis %+v, %v\nwant an error with %s", text, d, err, want)
		}
	}
}

func TestParsePorts(t *testing.T) {
	all, err := document.ParsePorts([]byte(`{"p1":{"hard_cap_tokens":1},"p2":{"port_id":"p2","period":"day"}}`))
	if err != nil || len(all) != 2 || *all["p1"].Budget.HardCapTokens != 1 || all["p2"].Budget.Period != budget.Day {
		t.Errorf("%+v, %v", all, err)
	}
	_, err = document.ParsePorts([]byte(`{"p3":{"port_id":"p1"},"p1":{"hard":1},"p0":{},"p2":7}`))
	want := "p1: hard: there is no such field\np2: must be a JSON object\np3: port_id: names the port p1"
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant\n%s", err, want)
	}
	if _, err := document.ParsePorts([]byte("{\"p1\":{},\n\"p1\":{}}")); err == nil || !strings.Contains(err.Error(), "line 2: p1: is there twice") {
		t.Errorf("a port that is there twice: %v", err)
	}
}

func TestDiff(t *testing.T) {
	before := parse(t, `{"hard_cap_tokens":5,"limits":[
		{"name":"a","window":"day","hard":1},
		{"name":"b","match":{"model":"x","feature":"f"},"window":"day","unit":"weighted","hard":1},
		{"name":"c","window":"hour","hard":7}]}`).Budget
	after := parse(t, `{"hard_cap_tokens":6,"soft_cap_tokens":2,"enabled":false,"limits":[
		{"name":"d","per":"user_id","window":"total","soft":3},
		{"name":"b","match":{"model":"y*"},"window":"day","unit":"weighted","weights":{"output":4,"input":1},"hard":1},
		{"name":"a","window":"day","unit":"tokens","hard":1}]}`).Budget
	var got []string
	for _, c := range document.Diff(before, after) {
		got = append(got, fmt.Sprintf("%s|%s|%s|%s", c.Limit, c.Field, c.Old, c.New))
	}
	want := []string{
		"|enabled|true|false", "|hard_cap_tokens|5|6", "|soft_cap_tokens||2",
		`d|||{"name":"d","per":"user_id","window":"total","unit":"tokens","soft":3}`,
		`b|match.feature|"f"|`, `b|match.model|"x"|"y*"`, "b|weights.output|1|4",
		`c||{"name":"c","window":"hour","unit":"tokens","hard":7}|`,
		`|limits|["a","b"]|["b","a"]`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("want (-), got (+):\n", diff)
	}
	stored := before
	stored.Version, stored.UpdatedBy = 7, "ada"
	stored.Limits = append([]budget.Limit{}, before.Limits...)
	stored.Limits[1].Counter = 12
	if same := document.Diff(before, stored); len(same) > 0 {
		t.Errorf("what Tidegate says of a budget makes it another one: %+v", same)
	}
}

// What is printed of a budget is read as the same, and two budgets differ exactly if Diff
// says how.
func TestRoundTrip(t *testing.T) {
	gen := rapid.Custom(func(t *rapid.T) budget.Budget {
		number := func(name string) *int64 { return new(rapid.Int64Range(1, 2).Draw(t, name)) }
		b := budget.Budget{Enabled: rapid.Bool().Draw(t, "enabled"), Period: rapid.SampledFrom(budget.Periods[:]).Draw(t, "period"), Version: rapid.Int64Range(0, 9).Draw(t, "version")}
		if rapid.Bool().Draw(t, "capped") {
			b.HardCapTokens = number("hard cap")
		}
		for _, name := range rapid.Permutation([]string{"a", "b", "c"}).Draw(t, "names")[:rapid.IntRange(0, 3).Draw(t, "limits")] {
			l := budget.Limit{Name: name, Window: rapid.SampledFrom([]budget.Period{budget.Hour, budget.Total}).Draw(t, "window"), Hard: number("hard"), Counter: 3}
			l.Match.Model = rapid.SampledFrom([]string{"", "m*"}).Draw(t, "model")
			if rapid.Bool().Draw(t, "weighted") {
				l.Unit, l.Weights.Output = budget.Weighted, new(budget.Weight(rapid.Int64Range(1, 2).Draw(t, "weight")))
			}
			b.Limits = append(b.Limits, l)
		}
		return b
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := gen.Draw(t, "a"), gen.Draw(t, "b")
		text, err := json.Marshal(document.Of("p1", a))
		if err != nil {
			t.Fatal(err)
		}
		d, err := document.Parse(text)
		if err != nil || d.PortID != "p1" || *d.Version != a.Version || len(document.Diff(a, d.Budget)) > 0 {
			t.Fatalf("%s is read as %+v, %v", text, d, err)
		}
		bare := func(b budget.Budget) string {
			b.Version = 0
			b.Limits = append([]budget.Limit{}, b.Limits...)
			for i := range b.Limits {
				b.Limits[i].Counter = 0
			}
			text, _ := json.Marshal(b)
			return string(text)
		}
		if changes := document.Diff(a, b); len(changes) > 0 == (bare(a) == bare(b)) {
			t.Fatalf("%s\n%s\ndiffer by %+v", bare(a), bare(b), changes)
		}
	})
}
