package ledger

import (
	"cmp"
	"context"
	_ "embed"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
)

//go:embed sql/limit_page.sql
var limitPageSQL string

// LimitReport is a page of what a limit of the port's budget counts in the window that contains
// now. held says what is held for a value of it.
func (l *Ledger) LimitReport(ctx context.Context, r events.ReportRequest, now time.Time, held func(l *budget.Limit, value string, start time.Time) int64) (events.LimitReport, error) {
	var report events.LimitReport
	b, err := l.Budget(ctx, r.PortID)
	if err != nil {
		return report, err
	}
	at := slices.IndexFunc(b.Limits, func(l budget.Limit) bool { return l.Name == r.LimitName })
	if at < 0 {
		return report, noSuchLimit(r.LimitName, b.Limits)
	}
	tokens, value, err := parseNext(r.After)
	if err != nil {
		return report, err
	}
	r.Limit = cmp.Or(r.Limit, events.DefaultReportLimit)
	lim := &b.Limits[at]
	none := lim.Standing("", budget.Count{}, now)
	report = events.LimitReport{PortID: r.PortID, Limit: lim.Name, Per: lim.Per, Unit: none.Unit, Period: lim.Window, PeriodStart: none.PeriodStart,
		SoftCapTokens: lim.Soft, HardCapTokens: lim.Hard, Counters: []events.CounterUsed{}, AsOf: now.UTC()}
	if !none.ResetsAt.IsZero() {
		report.ResetsAt = &none.ResetsAt
	}
	rows, _ := l.reportPool.Query(ctx, limitPageSQL, r.PortID, lim.Counter, none.PeriodStart, tokens, value, r.Limit+1)
	var last string // where the next page begins
	var counted *string
	var used *int64
	_, err = pgx.ForEachRow(rows, []any{&report.Values, &counted, &used}, func() error {
		switch {
		case counted == nil: // the page is empty
			return nil
		case len(report.Counters) == r.Limit: // one more than asked for tells that there are more
			report.More, report.Next = true, last
			return nil
		}
		d := lim.Standing(*counted, budget.Count{Used: *used, Held: held(lim, *counted, none.PeriodStart)}, now)
		report.Counters = append(report.Counters, events.CounterUsed{Value: *counted, UsedTokens: d.UsedTokens, HeldTokens: d.HeldTokens, RemainingTokens: d.RemainingTokens})
		last = strconv.FormatInt(*used, 10) + ":" + *counted
		return nil
	})
	return report, wrap(err, "limit %s of %s", lim.Name, r.PortID)
}

func noSuchLimit(name string, limits []budget.Limit) error {
	rule := "is no limit of the port's budget, which has none beside the port's own caps"
	if len(limits) > 0 {
		names := make([]string, len(limits))
		for i := range limits {
			names[i] = limits[i].Name
		}
		rule = "is no limit of the port's budget; there are: " + strings.Join(names, ", ")
	}
	if name == budget.PortLimit {
		rule += "; without limit_name, usage is of the port's own caps"
	}
	return &events.FieldError{Reason: events.ReasonInvalidField, Field: "limit_name", Value: strconv.Quote(name), Rule: rule}
}
