package budget_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/budget"
)

func limitOf(t *testing.T, text string) budget.Limit {
	t.Helper()
	var l budget.Limit
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return l
}

func TestThreshold_JSON(t *testing.T) {
	const text = `["1%","100%",1,9007199254740991]`
	var all []budget.Threshold
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		t.Fatal(err)
	}
	if got, err := json.Marshal(all); err != nil || string(got) != text {
		t.Errorf("%s, %v, want %s", got, err, text)
	}
	for _, text := range []string{`"0%"`, `"101%"`, `"50"`, `"050%"`, `"5e1%"`, `"+5%"`, `0`, `-1`, `1.5`, `9007199254740992`, `null`, `true`, `"half"`, `"%"`, `{}`} {
		var got budget.Threshold
		err := json.Unmarshal([]byte(text), &got)
		var e *budget.FieldError
		if !errors.As(err, &e) || e.Value != fmt.Sprintf("%q", text) || !strings.Contains(e.Rule, `"100%"`) {
			t.Errorf("%s is taken for %v: %v", text, got, err)
		}
	}
}

func TestLimit_AlertAtIsValidated(t *testing.T) {
	for text, want := range map[string]string{
		`{"name":"a","window":"day","hard":5,"alert_at":["50%","80%",4,9]}`:         "",
		`{"name":"a","window":"day","soft":5,"alert_at":[4]}`:                       "",
		`{"name":"a","window":"day","soft":5,"alert_at":[4,"50%"]}`:                 `invalid_field: limits[0] (a).alert_at[1] = "50%": is of the hard cap: give that, or a number in the limit's unit`,
		`{"name":"a","window":"day","hard":5,"alert_at":[4,"50%",4]}`:               `invalid_field: limits[0] (a).alert_at[2] = "4": is there twice, as [0] too`,
		`{"name":"a","window":"day","hard":5,"alert_at":[1,2,3,4,5,6,7,8,9,10,11]}`: `invalid_field: limits[0] (a).alert_at = 11: must be at most 10 thresholds`,
		`{"name":"a","window":"day","alert_at":[4]}`:                                `invalid_field: limits[0] (a).hard = "null": or soft must be set: a limit without a cap limits nothing`,
	} {
		err := budget.Budget{Period: budget.Month, Limits: []budget.Limit{limitOf(t, text)}}.Validate()
		if got := fmt.Sprint(err); got != want && (want != "" || err != nil) {
			t.Errorf("%s\n got %s\nwant %s", text, got, want)
		}
	}
	// Also where no JSON was read.
	l := budget.Limit{Name: "a", Window: budget.Day, Hard: new(int64(5))}
	for _, wrong := range []budget.Threshold{{}, {Percent: 101}, {Value: -1}, {Percent: 5, Value: 5}} {
		l.AlertAt = []budget.Threshold{wrong}
		if err := l.Validate("limit"); err == nil {
			t.Errorf("%+v is allowed", wrong)
		}
	}
}

// Marks are the caps and what alert_at says, the lowest first, in the unit and as it is counted.
func TestLimit_Marks(t *testing.T) {
	for text, want := range map[string][]string{
		`{"name":"a","window":"day","soft":80,"hard":101,"alert_at":["50%",150,7]}`: {"7 7 7", "50% 51 51", "soft 80 80", "hard 101 101", "150 150 150"},
		`{"name":"a","window":"day","unit":"weighted","hard":10,"alert_at":["5%"]}`: {"5% 1 1000", "hard 10 10000"},
		`{"name":"a","window":"day","unit":"requests","soft":3}`:                    {"soft 3 3"},
		`{"name":"a","window":"day","hard":9007199254740991,"alert_at":["100%"]}`:   {"100% 9007199254740991 9007199254740991", "hard 9007199254740991 9007199254740991"},
		`{"name":"a","window":"day","hard":0,"alert_at":["50%"]}`:                   {"50% 0 0", "hard 0 0"},
	} {
		l := limitOf(t, text)
		var got []string
		for _, m := range l.Marks() {
			got = append(got, fmt.Sprint(m.Threshold, " ", m.At, " ", m.Count))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}
