package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
)

// Snapshot streams, from one moment, the counters of limits whose windows are not over,
// every stored budget, and every port's days
// since the given one, in the order of the ports. It returns that moment, by the
// database's clock.
func (l *Ledger) Snapshot(ctx context.Context, since Day, counter func(Counter), budget func(port string, b budget.Budget), days func([]PortDay)) (asOf time.Time, err error) {
	tx, err := l.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return asOf, fmt.Errorf("ledger: snapshot: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	// now() is when the transaction began, just before this first statement takes
	// the snapshot: whatever was committed by then is in it.
	if err := tx.QueryRow(ctx, "select now()").Scan(&asOf); err != nil {
		return asOf, fmt.Errorf("ledger: snapshot: %w", err)
	}
	rows, err := tx.Query(ctx, "select port_id, counter, value, start, used from ai_limit_counters where ends > $1", asOf.Add(-startSlack))
	if err == nil {
		err = eachCounter(rows, counter)
	}
	if err != nil {
		return asOf, fmt.Errorf("ledger: snapshot of counters: %w", err)
	}
	rows, err = tx.Query(ctx, "select port_id, value, version, updated_at, updated_by from system_settings where key = $1", BudgetKey)
	if err != nil {
		return asOf, fmt.Errorf("ledger: snapshot of budgets: %w", err)
	}
	for rows.Next() {
		var port string
		b, err := scanBudget(portRow{rows, &port})
		if err != nil {
			rows.Close()
			return asOf, fmt.Errorf("ledger: snapshot of budgets: %w", err)
		}
		budget(port, b)
	}
	if err := rows.Err(); err != nil {
		return asOf, fmt.Errorf("ledger: snapshot of budgets: %w", err)
	}
	// One row a port: a gate with a hundred thousand ports waits for this.
	rows, err = tx.Query(ctx, `select port_id, array_agg(day - date '1970-01-01' order by day), array_agg(requests order by day), array_agg(total_tokens order by day)
		from ai_usage_port_days where day >= date '1970-01-01' + $1::int group by port_id order by port_id`, int32(since))
	if err != nil {
		return asOf, fmt.Errorf("ledger: snapshot of totals: %w", err)
	}
	var port string
	var numbers []int32
	var requests, tokens []int64
	var of []PortDay
	_, err = pgx.ForEachRow(rows, []any{&port, &numbers, &requests, &tokens}, func() error {
		of = of[:0]
		for i, n := range numbers {
			of = append(of, PortDay{PortID: port, Day: Day(n), Requests: requests[i], TotalTokens: tokens[i]})
		}
		days(of)
		return nil
	})
	if err != nil {
		return asOf, fmt.Errorf("ledger: snapshot of totals: %w", err)
	}
	return asOf.UTC(), nil
}

// Counters streams the counters of a port's limits whose windows are not over; of all ports,
// for [budget.DefaultPort].
func (l *Ledger) Counters(ctx context.Context, port string, limits []budget.Limit, counter func(Counter)) error {
	var counters []int64
	for i := range limits {
		counters = append(counters, int64(limits[i].Counter))
	}
	rows, err := l.pool.Query(ctx, "select port_id, counter, value, start, used from ai_limit_counters where (port_id = $1 or $1 = $4) and counter = any($2) and ends > clock_timestamp() - $3::interval", port, counters, startSlack, budget.DefaultPort)
	if err == nil {
		err = eachCounter(rows, counter)
	}
	if err != nil {
		return fmt.Errorf("ledger: read counters of %s: %w", port, err)
	}
	return nil
}

func eachCounter(rows pgx.Rows, f func(Counter)) error {
	var c Counter
	_, err := pgx.ForEachRow(rows, []any{&c.PortID, &c.Counter, &c.Value, &c.Start, &c.Used}, func() error {
		c.Start = c.Start.UTC()
		f(c)
		return nil
	})
	return err
}

// portRow scans the port, then whatever a budget needs.
type portRow struct {
	row  pgx.Row
	port *string
}

func (r portRow) Scan(dest ...any) error { return r.row.Scan(append([]any{r.port}, dest...)...) }
