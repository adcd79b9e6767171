package admin

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/identity/safehttp"
	"github.com/tidegate/tidegate/ledger"
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
	limitCount
}

// limitCount is what a limit counts in its present window.
type limitCount struct {
	Used        *int64      `json:"used" doc:"Booked in this window, in the unit, rounded up; null where each value is counted by itself."`
	Held        *int64      `json:"held" doc:"Reserved by calls under way that it matches, or leased to gates for the next ones, in the unit, rounded up; null where each value is counted by itself."`
	Remaining   *int64      `json:"remaining" doc:"Hard - used - held, never below 0; null without a hard cap, and where each value is counted by itself."`
	Values      *int64      `json:"values" doc:"How many values are counted, or held for; null where all calls are counted together."`
	Top         []valueUsed `json:"top" nullable:"true" doc:"The values of which most is used and held, at most 5; null where all calls are counted together."`
	WindowStart time.Time   `json:"window_start"`
	ResetsAt    *time.Time  `json:"resets_at" doc:"null: never"`
}

type valueUsed struct {
	Value     string `json:"value" doc:"Empty: of calls that do not name the dimension, and of erased users."`
	Used      int64  `json:"used"`
	Held      int64  `json:"held" doc:"Reserved by calls under way, or leased to gates for the next ones."`
	Remaining *int64 `json:"remaining" doc:"Hard - used - held, never below 0; null without a hard cap."`
}

// limitStates are a budget's limits as they stand.
func (a *api) limitStates(c *call, limits []budget.Limit) ([]limitState, error) {
	list := make([]limitState, 0, len(limits))
	counts, err := a.cfg.Ledger.Fullest(c.Context(), c.port, limits, topValues, c.now)
	if err != nil {
		return nil, err
	}
	for i := range limits {
		list = append(list, limitState{limit(limits[i]), countOf(&limits[i], &counts[i], c.now)})
	}
	return list, nil
}

func countOf(l *budget.Limit, count *ledger.Fullest, at time.Time) limitCount {
	now := l.Standing("", budget.Count{}, at)
	r := limitCount{WindowStart: now.PeriodStart}
	if !now.ResetsAt.IsZero() {
		r.ResetsAt = &now.ResetsAt
	}
	if l.Per == "" {
		for _, v := range count.Top { // the only one, of ""
			now = l.Standing("", v.Count(), at)
		}
		r.Used, r.Held, r.Remaining = &now.UsedTokens, &now.HeldTokens, now.RemainingTokens
		return r
	}
	r.Values, r.Top = &count.Values, []valueUsed{}
	for _, v := range count.Top {
		d := l.Standing(v.Value, v.Count(), at)
		r.Top = append(r.Top, valueUsed{v.Value, d.UsedTokens, d.HeldTokens, d.RemainingTokens})
	}
	return r
}

// limitNowReply is what a limit that is not stored would count.
type limitNowReply struct {
	limitCount
	Unit    budget.Unit `json:"unit" doc:"Of all figures."`
	Reached *int64      `json:"reached" doc:"How many values have come to the hard cap, with what is held; null where all calls are counted together."`
	AsOf    time.Time   `json:"as_of"`
}

func (a *api) limitNow(c *call) error {
	l, err := readLimit(c.Request)
	if err != nil {
		return err
	}
	n, err := a.cfg.Ledger.LimitNow(c.Context(), c.port, &l, topValues, c.now)
	if err != nil {
		return err
	}
	r := limitNowReply{limitCount: countOf(&l, &n.Fullest, c.now), Unit: l.Standing("", budget.Count{}, c.now).Unit, AsOf: c.now.UTC()}
	if l.Per != "" {
		r.Reached = &n.Reached
	}
	return c.reply(r)
}

// readLimit reads the limit that is the body. What breaks the rules of a limit is found later.
func readLimit(r *http.Request) (l budget.Limit, err error) {
	body, err := readBody(r)
	if err != nil {
		return l, err
	}
	value := jsontext.Value(body)
	if !value.IsValid() || value.Kind() != '{' {
		return l, malformed(fmt.Errorf("it must be a limit"))
	}
	if wrong := readLimitsInto(&l, "limit", "must be a limit", value); wrong != nil {
		return l, invalidFields([]safehttp.FieldError{*wrong})
	}
	return l, nil
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
	e.Field, e.Value = shortened(budget.FieldAt(field, wrong.JSONPointer)), shortened(budget.ValueAt(value, wrong.JSONPointer))
	var broken *budget.FieldError
	switch {
	case errors.As(err, &broken):
		e.Rule = broken.Rule
	case errors.Is(err, json.ErrUnknownName):
		e.Rule = "is no field of a limit; there are: name, match, per, window, unit, weights, soft, hard, alert_at"
	default:
		e.Rule = "must be " + budget.Wanted(wrong.GoType)
	}
	return e
}
