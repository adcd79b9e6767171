package admin

import (
	"errors"
	"reflect"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/identity/safehttp"
)

// topValues is how many values are told of a limit that counts each by itself.
const topValues = 5

// limit is a [budget.Limit], as it describes itself.
type limit struct {
	Name    string             `json:"name" doc:"1 to 64 of a-z 0-9 _ . -, not port."`
	Match   budget.Match       `json:"match,omitzero" doc:"Which calls: each dimension a value, or a prefix and *. Left out: any."`
	Per     budget.Per         `json:"per,omitempty" doc:"Each value of it is counted by itself; left out: all calls together."`
	Window  budget.Period      `json:"window" enum:"hour,day,week,month,total" doc:"In which it counts, in UTC; total never starts anew."`
	Unit    budget.Unit        `json:"unit,omitempty" doc:"What it counts; left out: tokens."`
	Weights budget.Weights     `json:"weights,omitzero" doc:"Of unit weighted: what a token of each kind counts. Left out: 1."`
	Soft    *int64             `json:"soft,omitempty" minimum:"0" maximum:"9007199254740991" doc:"In the unit. From here on calls are allowed with a warning."`
	Hard    *int64             `json:"hard,omitempty" minimum:"0" maximum:"9007199254740991" doc:"In the unit. Here calls are refused until the window ends. One of both must be given."`
	AlertAt []budget.Threshold `json:"alert_at,omitempty" doc:"Where an alert is sent beside soft and hard cap, at most 10: a percentage of the hard cap such as 80%, or a number in the unit."`
	Counter budget.CounterRef  `json:"-"`
}

// limitState is a limit and what it counts in its present window.
type limitState struct {
	limit
	Used        *int64      `json:"used" doc:"Booked in this window, in the unit, rounded up; null where each value is counted by itself."`
	Remaining   *int64      `json:"remaining" doc:"Hard - used, never below 0. What calls under way hold is not taken off. null without a hard cap, and where each value is counted by itself."`
	Values      *int64      `json:"values" doc:"How many values are counted; null where all calls are counted together."`
	Top         []valueUsed `json:"top" nullable:"true" doc:"The values that have used most, at most 5; null where all calls are counted together."`
	WindowStart time.Time   `json:"window_start"`
	ResetsAt    *time.Time  `json:"resets_at" doc:"null: never"`
}

type valueUsed struct {
	Value     string `json:"value" doc:"Empty: of calls that do not name the dimension, and of erased users."`
	Used      int64  `json:"used"`
	Remaining *int64 `json:"remaining" doc:"null without a hard cap"`
}

// limitStates are a budget's limits as they stand.
func (a *api) limitStates(c *call, limits []budget.Limit) ([]limitState, error) {
	list := make([]limitState, 0, len(limits))
	counts, err := a.cfg.Ledger.Fullest(c.Context(), c.port, limits, topValues, c.now)
	if err != nil {
		return nil, err
	}
	for i := range limits {
		l := &limits[i]
		r := limitState{limit: limit(*l)}
		now := l.Standing("", budget.Count{}, c.now)
		r.WindowStart = now.PeriodStart
		if !now.ResetsAt.IsZero() {
			r.ResetsAt = &now.ResetsAt
		}
		if l.Per == "" {
			for _, v := range counts[i].Top { // the only one, of ""
				now = l.Standing("", budget.Count{Used: v.Used}, c.now)
			}
			r.Used, r.Remaining = &now.UsedTokens, now.RemainingTokens
		} else {
			r.Values, r.Top = &counts[i].Values, []valueUsed{}
			for _, v := range counts[i].Top {
				d := l.Standing(v.Value, budget.Count{Used: v.Used}, c.now)
				r.Top = append(r.Top, valueUsed{v.Value, d.UsedTokens, d.RemainingTokens})
			}
		}
		list = append(list, r)
	}
	return list, nil
}

// readLimits reads those of a PUT. What breaks the rules of a limit is found later.
func readLimits(value jsontext.Value) ([]budget.Limit, *safehttp.FieldError) {
	limits := []budget.Limit{}
	if value.Kind() == 'n' {
		return nil, &safehttp.FieldError{Field: "limits", Value: "null", Rule: "must be a list; without it the limits stay as they are, and [] removes all"}
	}
	return limits, readLimitsInto(&limits, "limits", "must be a list of limits", value)
}

// readLimitsInto reads a limit, or a list of them, which is what field is.
func readLimitsInto(limits any, field, rule string, value jsontext.Value) *safehttp.FieldError {
	err := json.Unmarshal(value, limits, json.RejectUnknownMembers(true))
	if err == nil {
		return nil
	}
	e := &safehttp.FieldError{Field: field, Value: shortened(string(value)), Rule: rule}
	var wrong *json.SemanticError
	if !errors.As(err, &wrong) {
		return e
	}
	for name := range wrong.JSONPointer.Tokens() {
		var list []jsontext.Value
		var object map[string]jsontext.Value
		if i, err := strconv.Atoi(name); err == nil && json.Unmarshal(value, &list) == nil {
			e.Field, value = e.Field+"["+name+"]", list[i]
		} else if json.Unmarshal(value, &object) == nil {
			e.Field, value = e.Field+"."+shortened(name), object[name]
		}
	}
	e.Value = shortened(string(value))
	var broken *budget.FieldError
	switch {
	case errors.As(err, &broken):
		e.Rule = broken.Rule
	case errors.Is(err, json.ErrUnknownName):
		e.Rule = "is no field of a limit; there are: name, match, per, window, unit, weights, soft, hard, alert_at"
	default:
		e.Rule = "must be " + wanted(wrong.GoType)
	}
	return e
}

func wanted(t reflect.Type) string {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == nil || t.Kind() == reflect.Struct:
		return "a JSON object"
	case t.Kind() == reflect.Slice:
		return "a list"
	case t.Kind() == reflect.Int64:
		return "a whole number"
	default:
		return "a string"
	}
}
