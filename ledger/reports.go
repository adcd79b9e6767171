package ledger

import (
	"cmp"
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/events"
)

//go:embed sql/shares.sql
var sharesSQL string

// Feature, model and day come from the totals; users and runs are in the ledger only, and in
// what is kept of its days.
var reportSQL = map[events.Dimension]string{
	events.ByFeature: mostFirst(ofTotals("feature")),
	events.ByModel:   mostFirst(ofTotals("model")),
	events.ByDay:     fmt.Sprintf(sharesSQL, ofTotals("to_char(day, 'YYYY-MM-DD')"), "key > $5", "key", "key"),
	events.ByUser:    mostFirst(ofLedger(events.ByUser)),
	events.ByRun:     mostFirst(ofLedger(events.ByRun)),
}

func mostFirst(shares string) string {
	return fmt.Sprintf(sharesSQL, shares, "tokens < $4 or tokens = $4 and key > $5", "tokens desc, key", "tokens desc, key")
}

// saturated makes a sum a bigint. One beyond that is the largest there is, and no error.
func saturated(sum string) string { return "least(" + sum + ", 9223372036854775807)::bigint" }

func ofTotals(key string) string {
	return `select ` + key + ` as key, sum(requests)::bigint as requests, ` + saturated("sum(input_tokens)") + ` as input,
		` + saturated("sum(output_tokens)") + ` as output, ` + saturated("sum(total_tokens)") + ` as tokens
		from ai_usage_totals where port_id = $1 and day >= ($2::timestamptz at time zone 'UTC')::date
		and day < ($3::timestamptz at time zone 'UTC')::date`
}

func ofLedger(by events.Dimension) string {
	return `select key, sum(calls)::bigint as requests, ` + saturated("sum(input)") + ` as input, ` + saturated("sum(output)") + ` as output,
		` + saturated("sum(input) + sum(output)") + ` as tokens from (` + daysOfLedger(by) + `) parts`
}

func daysOfLedger(by events.Dimension) string {
	return fmt.Sprintf(daysOfLedgerSQL, ledgerColumn[by], by)
}

// SharePage is a page of a port's usage.
type SharePage struct {
	Shares     []events.Share
	Next       string // what the next page comes after; "": this is the last one
	UsedTokens int64  // of all pages
	Requests   int64  // of all pages
}

// Shares breaks a port's usage in [start, end) down by one dimension, most
// tokens first, days in order. start and end are whole UTC days. A limit of 0 is none.
func (l *Ledger) Shares(ctx context.Context, r events.ReportRequest, start, end time.Time) (SharePage, error) {
	page := SharePage{Shares: []events.Share{}}
	sql, ok := reportSQL[r.By]
	if !ok {
		return page, &events.FieldError{Reason: events.ReasonInvalidField, Field: "by", Value: string(r.By), Rule: "must be feature, model, user, run or day"}
	}
	tokens, key, err := parseNext(r.After)
	if err != nil {
		return page, err
	}
	var limit *int // one more than asked for tells whether there are more
	if r.Limit > 0 {
		limit = new(r.Limit + 1)
	}
	args := []any{r.PortID, start, end, tokens, key, limit}
	if ledgerColumn[r.By] != "" {
		if err := l.keepDays(ctx, r.PortID, r.By, start, end, true); err != nil {
			return page, err
		}
	}
	rows, _ := l.reportPool.Query(ctx, sql, args...)
	var s events.Share
	var name *string
	_, err = pgx.ForEachRow(rows, []any{&page.UsedTokens, &page.Requests, &name, &s.Requests, &s.InputTokens, &s.OutputTokens, &s.TotalTokens}, func() error {
		if name != nil { // null: the page is empty
			s.Key = *name
			page.Shares = append(page.Shares, s)
		}
		return nil
	})
	if err != nil {
		return page, wrap(err, "usage of %s by %s", r.PortID, r.By)
	}
	if r.Limit > 0 && len(page.Shares) > r.Limit {
		page.Shares = page.Shares[:r.Limit]
		last := page.Shares[r.Limit-1]
		page.Next = strconv.FormatInt(last.TotalTokens, 10) + ":" + last.Key
	}
	return page, nil
}

// parseNext reads a page's Next.
func parseNext(after string) (tokens *int64, key string, err error) {
	if after == "" {
		return nil, "", nil
	}
	number, key, ok := strings.Cut(after, ":")
	n, err := strconv.ParseInt(number, 10, 64)
	if !ok || err != nil || !utf8.ValidString(key) || strings.ContainsRune(key, 0) {
		return nil, "", &events.FieldError{Reason: events.ReasonInvalidField, Field: "after", Value: strconv.QuoteToASCII(after[:min(len(after), 80)]), Rule: "must be the next of the page before"}
	}
	return &n, key, nil
}

// Report is a page of the port's usage in the current period of its budget.
func (l *Ledger) Report(ctx context.Context, r events.ReportRequest, now time.Time) (events.Report, error) {
	r.By = cmp.Or(r.By, events.ByFeature)
	r.Limit = cmp.Or(r.Limit, events.DefaultReportLimit)
	budget, err := l.Budget(ctx, r.PortID)
	if err != nil {
		return events.Report{}, err
	}
	start, end := budget.Period.Bounds(now)
	page, err := l.Shares(ctx, r, start, end)
	if err != nil {
		return events.Report{}, err
	}
	return events.Report{PortID: r.PortID, Period: budget.Period, PeriodStart: start, ResetsAt: end, UsedTokens: page.UsedTokens, Requests: page.Requests,
		Dimension: r.By, By: page.Shares, More: page.Next != "", Next: page.Next, AsOf: now.UTC()}, nil
}

// PortTokens is what one port has spent in some time.
type PortTokens struct {
	PortID string
	Tokens int64
}

// UsedByPorts calls each with the tokens of all ports in [start, end), whole UTC days, so many
// ports at a time and in no order, until it returns an error.
func (l *Ledger) UsedByPorts(ctx context.Context, start, end time.Time, atOnce int, each func([]PortTokens) error) error {
	err := pgx.BeginTxFunc(ctx, l.reportPool, oneMoment, func(tx pgx.Tx) error {
		// One pass: to look up the days of each port takes many times as long, and Postgres cannot know
		// that they lie all over the table.
		if _, err := tx.Exec(ctx, "set local enable_indexscan = off; set local work_mem = '64MB'"); err != nil {
			return err
		}
		rows, _ := tx.Query(ctx, `select p.id, `+saturated("coalesce(d.tokens, 0)")+` from ports p
			left join (select port_id, sum(total_tokens) as tokens from ai_usage_port_days
				where day >= ($1::timestamptz at time zone 'UTC')::date and day < ($2::timestamptz at time zone 'UTC')::date group by port_id) d on d.port_id = p.id`, start, end)
		var p PortTokens
		some := make([]PortTokens, 0, atOnce)
		_, err := pgx.ForEachRow(rows, []any{&p.PortID, &p.Tokens}, func() error {
			if some = append(some, p); len(some) < atOnce {
				return nil
			}
			full := some
			some = some[:0]
			return each(full)
		})
		if err == nil && len(some) > 0 {
			err = each(some)
		}
		return err
	})
	return wrap(err, "tokens by port")
}

// UsedOf is the tokens of the given ports in [start, end), those that exist.
func (l *Ledger) UsedOf(ctx context.Context, ports []string, start, end time.Time) ([]PortTokens, error) {
	rows, _ := l.reportPool.Query(ctx, `select p.id, `+saturated("coalesce(sum(d.total_tokens), 0)")+` from ports p
		left join ai_usage_port_days d on d.port_id = p.id
			and d.day >= ($1::timestamptz at time zone 'UTC')::date and d.day < ($2::timestamptz at time zone 'UTC')::date
		where p.id = any($3) group by p.id`, start, end, ports)
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[PortTokens])
	return list, wrap(err, "tokens by port")
}
