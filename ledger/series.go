package ledger

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
)

//go:embed sql/series.sql
var seriesSQL string

// SeriesQuery asks for a port's usage over time.
type SeriesQuery struct {
	PortID     string
	By         events.Dimension // feature, model, user or run
	Step       budget.Period    // hour, day or week
	Start, End time.Time        // whole UTC days, [Start, End)
	Top        int              // how many keys are told apart
}

// Series is a port's usage over time.
type Series struct {
	Steps []Step    // all of the range, those without usage and those to come too
	Keys  []StepsOf // those with most tokens, most first
}

// Step is what was used in an hour, a day or a week.
type Step struct {
	Start            time.Time // of a week a Monday, so the first may begin before the range
	Tokens, Requests int64     // of all keys, within the range
}

// StepsOf is what one key used in each step.
type StepsOf struct {
	Key    string
	Total  int64
	Tokens []int64
}

// Series reads days and weeks by feature and by model from the totals, by user and by run as
// [Ledger.Shares] does, and hours call by call.
func (l *Ledger) Series(ctx context.Context, q SeriesQuery) (s Series, err error) {
	defer func() { err = wrap(err, "series of %s by %s", q.PortID, q.By) }()
	s = Series{Steps: []Step{}, Keys: []StepsOf{}}
	at := map[time.Time]int{}
	for start, end := q.Step.Bounds(q.Start); start.Before(q.End); start, end = q.Step.Bounds(end) {
		at[start] = len(s.Steps)
		s.Steps = append(s.Steps, Step{Start: start})
	}
	if ledgerColumn[q.By] != "" && q.Step != budget.Hour {
		if err := l.keepDays(ctx, q.PortID, q.By, q.Start, q.End, true); err != nil {
			return s, err
		}
	}
	rows, _ := l.reportPool.Query(ctx, fmt.Sprintf(seriesSQL, parts(q)), q.PortID, q.Start, q.End, q.Top)
	var step time.Time
	var rank *int
	var key string
	var tokens, requests int64
	byRank := map[int]*StepsOf{}
	_, err = pgx.ForEachRow(rows, []any{&step, &rank, &key, &tokens, &requests}, func() error {
		i := at[step]
		s.Steps[i].Tokens, s.Steps[i].Requests = budget.Add(s.Steps[i].Tokens, tokens), s.Steps[i].Requests+requests
		if rank == nil {
			return nil
		}
		of := byRank[*rank]
		if of == nil {
			of = &StepsOf{Key: key, Tokens: make([]int64, len(s.Steps))}
			byRank[*rank] = of
		}
		of.Tokens[i], of.Total = tokens, budget.Add(of.Total, tokens)
		return nil
	})
	for rank := 1; byRank[rank] != nil; rank++ {
		s.Keys = append(s.Keys, *byRank[rank])
	}
	return s, err
}

// parts is what a series sums up.
func parts(q SeriesQuery) string {
	column := ledgerColumn[q.By]
	step := fmt.Sprintf("date_trunc('%s', day::timestamp) as step", q.Step)
	switch {
	case q.Step == budget.Hour:
		if column == "" {
			column = string(q.By)
		}
		return `select date_trunc('hour', created_at at time zone 'UTC') as step, coalesce(` + column + `, '') as key, sum(total_tokens) as tokens, count(*) as calls
			from ai_usage_ledger where port_id = $1 and created_at >= $2 and created_at < $3 group by 1, 2`
	case column == "":
		return `select ` + step + `, ` + string(q.By) + ` as key, total_tokens as tokens, requests as calls from ai_usage_totals
			where port_id = $1 and day >= ($2::timestamptz at time zone 'UTC')::date and day < ($3::timestamptz at time zone 'UTC')::date`
	default:
		return `select ` + step + `, key, input + output as tokens, calls from (` + daysOfLedger(q.By) + `) days`
	}
}
