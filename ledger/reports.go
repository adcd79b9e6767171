package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/events"
)

// Feature, model and day come from the totals; users are in the ledger only.
var reportSQL = map[events.Dimension]string{
	events.ByFeature: shareOfTotals("feature", "5 desc, 1"),
	events.ByModel:   shareOfTotals("model", "5 desc, 1"),
	events.ByDay:     shareOfTotals("to_char(day, 'YYYY-MM-DD')", "1"),
	events.ByUser: `select coalesce(user_id, ''), count(*), sum(input_tokens)::bigint, sum(output_tokens)::bigint, sum(total_tokens)::bigint
		from ai_usage_ledger where port_id = $1 and created_at >= $2 and created_at < $3 group by 1 order by 5 desc, 1`,
}

func shareOfTotals(key, order string) string {
	return `select ` + key + `, sum(requests)::bigint, sum(input_tokens)::bigint, sum(output_tokens)::bigint, sum(total_tokens)::bigint
		from ai_usage_totals where port_id = $1 and day >= ($2::timestamptz at time zone 'UTC')::date
		and day < ($3::timestamptz at time zone 'UTC')::date group by 1 order by ` + order
}

// Shares breaks a port's usage in [start, end) down by one dimension, most
// tokens first, days in order. start and end are whole UTC days.
func (l *Ledger) Shares(ctx context.Context, port string, by events.Dimension, start, end time.Time) ([]events.Share, error) {
	sql, ok := reportSQL[by]
	if !ok {
		return nil, &events.FieldError{Reason: events.ReasonInvalidField, Field: "by", Value: string(by), Rule: "must be feature, model, user or day"}
	}
	rows, err := l.reportPool.Query(ctx, sql, port, start, end)
	if err != nil {
		return nil, fmt.Errorf("ledger: usage of %s by %s: %w", port, by, err)
	}
	shares, err := pgx.CollectRows(rows, pgx.RowToStructByPos[events.Share])
	if err != nil {
		return nil, fmt.Errorf("ledger: usage of %s by %s: %w", port, by, err)
	}
	return shares, nil
}

// Report is the port's usage in the current period of its budget.
func (l *Ledger) Report(ctx context.Context, port string, by events.Dimension, now time.Time) (events.Report, error) {
	if by == "" {
		by = events.ByFeature
	}
	budget, err := l.Budget(ctx, port)
	if err != nil {
		return events.Report{}, err
	}
	start, end := budget.Period.Bounds(now)
	shares, err := l.Shares(ctx, port, by, start, end)
	if err != nil {
		return events.Report{}, err
	}
	r := events.Report{PortID: port, Period: budget.Period, PeriodStart: start, ResetsAt: end, Dimension: by, By: shares, AsOf: now.UTC()}
	for _, s := range shares {
		r.UsedTokens += s.TotalTokens
		r.Requests += s.Requests
	}
	return r, nil
}

// Used is the port's tokens in [start, end), whole UTC days.
func (l *Ledger) Used(ctx context.Context, port string, start, end time.Time) (tokens int64, err error) {
	err = l.pool.QueryRow(ctx, `select coalesce(sum(total_tokens), 0)::bigint from ai_usage_port_days
		where port_id = $1 and day >= ($2::timestamptz at time zone 'UTC')::date and day < ($3::timestamptz at time zone 'UTC')::date`,
		port, start, end).Scan(&tokens)
	if err != nil {
		return 0, fmt.Errorf("ledger: tokens of %s: %w", port, err)
	}
	return tokens, nil
}

// PortTokens is what one port has spent in some time.
type PortTokens struct {
	PortID string
	Tokens int64
}

// UsedByPort lists at most limit ports after the given one ("": the first), in the
// order of their ids, with their tokens in [start, end), whole UTC days.
func (l *Ledger) UsedByPort(ctx context.Context, after string, limit int, start, end time.Time) ([]PortTokens, error) {
	return l.portTokens(ctx, "p.id in (select id from ports where id > $3 order by id limit $4)", start, end, after, limit)
}

// UsedOf is the tokens of the given ports in [start, end), those that exist.
func (l *Ledger) UsedOf(ctx context.Context, ports []string, start, end time.Time) ([]PortTokens, error) {
	return l.portTokens(ctx, "p.id = any($3)", start, end, ports)
}

func (l *Ledger) portTokens(ctx context.Context, where string, args ...any) ([]PortTokens, error) {
	rows, err := l.pool.Query(ctx, `select p.id, coalesce(sum(d.total_tokens), 0)::bigint from ports p
		left join ai_usage_port_days d on d.port_id = p.id
			and d.day >= ($1::timestamptz at time zone 'UTC')::date and d.day < ($2::timestamptz at time zone 'UTC')::date
		where `+where+` group by p.id order by p.id`, args...)
	if err != nil {
		return nil, fmt.Errorf("ledger: tokens by port: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[PortTokens])
	if err != nil {
		return nil, fmt.Errorf("ledger: tokens by port: %w", err)
	}
	return list, nil
}
