package admin

import (
	"fmt"
	"time"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

// What a range has at most: longer ones are nothing to look at, and the ledger is read for hours.
const (
	maxRangeDays = 366
	maxHoursDays = 7
	maxTop       = 20
)

// seriesReply is a port's usage over time.
type seriesReply struct {
	PortID      string           `json:"port_id"`
	PeriodStart time.Time        `json:"period_start"`
	PeriodEnd   time.Time        `json:"period_end"`
	Dimension   events.Dimension `json:"dimension"`
	Step        string           `json:"step" enum:"hour,day,week"`
	Starts      []time.Time      `json:"starts" doc:"Of each step of the period, those to come too. A week begins on a Monday, so the first may begin before the period; what was used by then is not in it."`
	Tokens      []int64          `json:"tokens" doc:"In each step."`
	Requests    []int64          `json:"requests" doc:"In each step."`
	Series      []seriesOf       `json:"series" doc:"Those that used most, most tokens first, at most top. What the others used is in tokens only."`
	AsOf        time.Time        `json:"as_of" doc:"Every commit up to then is counted."`
}

type seriesOf struct {
	Key         string  `json:"key" doc:"The feature, the model, the run, or the user: empty for calls of the system and of erased users."`
	TotalTokens int64   `json:"total_tokens"`
	Tokens      []int64 `json:"tokens" doc:"In each step."`
}

// askedRange is the days that a query is about: from and to, or a period.
func (a *api) askedRange(c *call) (budget.Named, error) {
	from, to, name := c.query["from"], c.query["to"], c.query["period"]
	if from == "" && to == "" {
		period := budget.Month
		if name == budget.Current || name == budget.Previous {
			b, err := a.cfg.Ledger.Budget(c.Context(), c.port)
			if err != nil {
				return budget.Named{}, err
			}
			period = b.Period
		}
		return budget.ParseNamed("period", name, period, c.now)
	}
	if name != budget.Current {
		return budget.Named{}, invalid("period", quoted(name), "must be left out beside from and to")
	}
	start, err := day("from", from)
	if err != nil {
		return budget.Named{}, err
	}
	end, err := day("to", to)
	if err != nil {
		return budget.Named{}, err
	}
	if days := end.Sub(start) / (24 * time.Hour); days < 1 || days > maxRangeDays {
		return budget.Named{}, invalid("to", quoted(to), fmt.Sprintf("must be 1 to %d days after from (%s)", maxRangeDays, from))
	}
	return budget.Named{Start: start, End: end}, nil
}

func day(field, text string) (time.Time, error) {
	t, err := time.Parse(time.DateOnly, text)
	if err != nil || t.Year() < 1970 || t.Year() > 9998 {
		return t, invalid(field, quoted(text), "must be a day like 2026-11-23, from 1970 to 9998; from and to belong together")
	}
	return t, nil
}

func (a *api) getSeries(c *call) error {
	r, err := a.askedRange(c)
	if err != nil {
		return err
	}
	if c.query["step"] == string(budget.Hour) && r.End.Sub(r.Start) > maxHoursDays*24*time.Hour {
		return invalid("step", quoted(c.query["step"]), fmt.Sprintf("must be day or week for more than %d days", maxHoursDays))
	}
	top, _ := c.query.number("top")
	asked := ledger.SeriesQuery{PortID: c.port, By: events.Dimension(c.query["by"]), Step: budget.Period(c.query["step"]), Start: r.Start, End: r.End, Top: int(top)}
	s, err := a.cfg.Ledger.Series(c.Context(), asked)
	if err != nil {
		return err
	}
	reply := seriesReply{PortID: c.port, PeriodStart: r.Start, PeriodEnd: r.End, Dimension: asked.By, Step: c.query["step"],
		Starts: []time.Time{}, Tokens: []int64{}, Requests: []int64{}, Series: make([]seriesOf, len(s.Keys)), AsOf: c.now.UTC()}
	for _, step := range s.Steps {
		reply.Starts, reply.Tokens, reply.Requests = append(reply.Starts, step.Start), append(reply.Tokens, step.Tokens), append(reply.Requests, step.Requests)
	}
	for i, k := range s.Keys {
		reply.Series[i] = seriesOf{k.Key, k.Total, k.Tokens}
	}
	return c.reply(reply)
}
