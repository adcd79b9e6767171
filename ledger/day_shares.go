package ledger

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/events"
)

//go:embed sql/keep_day.sql
var keepDaySQL string

//go:embed sql/days_of_ledger.sql
var daysOfLedgerSQL string

// ledgerColumn is what the ledger alone has, and the totals have not.
var ledgerColumn = map[events.Dimension]string{events.ByUser: "user_id", events.ByRun: "run_id"}

// A day is kept by user or by run if it has at least so many calls, and ended a while ago: fewer
// are read as fast as they are asked for, and events of a day that has just ended still come.
const (
	keptCalls = 2000
	keptAfter = time.Hour
)

// keepFor is for how long a report keeps days before it is answered: most of the first one. The
// rest is kept by the next maintenance, or by the next report.
const keepFor = 2 * time.Second

// keptInAdvance is for how long days are kept in advance after a report had to wait for one.
const keptInAdvance = 35 * 24 * time.Hour

// keepDays keeps, by user or by run, the days of [start, end) that are over and are not kept as
// they are, for a report or in advance. Each is committed by itself: what a report did not come
// to, or was given up for, need not be done again.
func (l *Ledger) keepDays(ctx context.Context, port string, by events.Dimension, start, end time.Time, asked bool) error {
	began := time.Now()
	days, err := l.daysToKeep(ctx, port, by, start, end)
	kept := true
	for i := 0; err == nil && kept && i < len(days); i++ {
		kept, err = l.keepDay(ctx, port, by, days[i], asked)
		if asked && time.Since(began) > l.keepFor {
			break
		}
	}
	return wrap(err, "keep days of %s by %s", port, by)
}

func (l *Ledger) daysToKeep(ctx context.Context, port string, by events.Dimension, start, end time.Time) ([]time.Time, error) {
	rows, _ := l.reportPool.Query(ctx, `select d.day from ai_usage_port_days d
		left join ai_usage_day_shares k on k.port_id = d.port_id and k.dimension = $2 and k.day = d.day and k.requests = d.requests and k.total_tokens = d.total_tokens
		where d.port_id = $1 and d.day >= ($3::timestamptz at time zone 'UTC')::date and d.day < ($4::timestamptz at time zone 'UTC')::date
			and (d.day + 1)::timestamp at time zone 'UTC' <= now() - $5::interval and d.requests >= $6 and k.port_id is null
		order by d.day`, port, string(by), start, end, keptAfter, l.keptCalls)
	return pgx.CollectRows(rows, pgx.RowTo[time.Time])
}

// keepDay does nothing while a user is erased, or once the port is deleted: it would bring back what went.
func (l *Ledger) keepDay(ctx context.Context, port string, by events.Dimension, day time.Time, asked bool) (kept bool, err error) {
	err = pgx.BeginFunc(ctx, l.reportPool, func(tx pgx.Tx) error {
		// A statement of its own, so that the next one sees what an erasure has committed.
		err := tx.QueryRow(ctx, "select pg_try_advisory_xact_lock_shared($1) and exists (select from ports where id = $2 for key share)", eraseLock, port).Scan(&kept)
		if err != nil || !kept {
			return err
		}
		_, err = tx.Exec(ctx, fmt.Sprintf(keepDaySQL, ledgerColumn[by]), port, day, string(by), asked)
		return err
	})
	return kept, err
}

// keepAsked keeps the days of this and the last month in advance where reports are asked for.
func (l *Ledger) keepAsked(ctx context.Context, now time.Time) error {
	rows, _ := l.reportPool.Query(ctx, "select distinct port_id, dimension from ai_usage_day_shares where asked_at > now() - $1::interval", keptInAdvance)
	type report struct {
		Port string
		By   events.Dimension
	}
	asked, err := pgx.CollectRows(rows, pgx.RowToStructByPos[report])
	if err != nil {
		return wrap(err, "reports that are asked for")
	}
	month := monthOf(now)
	for _, r := range asked {
		if err := l.keepDays(ctx, r.Port, r.By, month.AddDate(0, -1, 0), month.AddDate(0, 1, 0), false); err != nil {
			return err
		}
	}
	return nil
}
