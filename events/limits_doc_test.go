package events_test

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
)

// What docs/limits.md shows is within the contract: budgets, questions, answers and faults.
func TestLimitsDoc_ExamplesAreWithinTheContract(t *testing.T) {
	text, err := os.ReadFile("../docs/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(text)
	var budgets, verdicts int
	for _, m := range regexp.MustCompile("(?s)```json\n(.*?)```").FindAllStringSubmatch(doc, -1) {
		if strings.Contains(m[1], `"allowed"`) {
			verdicts++
			var v events.Verdict
			if err := json.Unmarshal([]byte(m[1]), &v, json.RejectUnknownMembers(true)); err != nil || *v.RemainingTokens != *v.HardCapTokens-v.UsedTokens-v.HeldTokens || v.Limit == "" {
				t.Errorf("the example of a verdict: %+v, %v", v, err)
			}
			continue
		}
		budgets++
		r := events.SetRequest{PortID: "marina-7"}
		err := json.Unmarshal([]byte(m[1]), &r, json.RejectUnknownMembers(true)) // in limits too
		if err == nil {
			err = r.Validate()
		}
		if err != nil || len(r.Limits) == 0 {
			t.Errorf("%v\n%s", err, m[1])
		}
	}
	questions := regexp.MustCompile(`(?m)^nats req ai\.budget\.check\.\S+ '(.*)'$`).FindAllStringSubmatch(doc, -1)
	for _, m := range questions {
		r := events.CheckRequest{PortID: "marina-7"}
		if err := events.DecodeStrict([]byte(m[1]), &r); err != nil || r.Validate() != nil {
			t.Errorf("%v, %v\n%s", err, r.Validate(), m[1])
		}
	}
	if budgets < 3 || verdicts < 1 || len(questions) < 1 {
		t.Errorf("found %d budgets, %d verdicts and %d questions: are they still written as this test reads them?", budgets, verdicts, len(questions))
	}

	faults := 0
	for _, l := range []events.Limit{
		{Name: "frontier", Window: "year"}, {Name: budget.PortLimit}, {Name: "ocr-daily", Window: budget.Day, Soft: new(int64(300000)), Hard: new(int64(200000))},
	} {
		for i := range 5 {
			limits := make([]events.Limit, i, i+1)
			for j := range limits {
				limits[j] = events.Limit{Name: "before-" + string(rune('a'+j)), Window: budget.Day, Hard: new(int64(1))}
			}
			if err := (events.SetRequest{PortID: "p", Limits: append(limits, l)}).Validate(); err != nil && strings.Contains(doc, "\n"+err.Error()+"\n") {
				faults++
			}
		}
	}
	if faults != 3 {
		t.Errorf("%d of the 3 faults are worded as they are", faults)
	}
	for _, of := range []any{budget.Limit{}, budget.Match{}, budget.Weights{}} {
		for field := range reflect.TypeOf(of).Fields() {
			if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); !strings.Contains(doc, "`"+name+"`") {
				t.Errorf("it does not explain %s", name)
			}
		}
	}
}
