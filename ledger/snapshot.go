package ledger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/tidegate/tidegate/budget"
)

// rowsTogether are handed over at once.
const rowsTogether = 1000

// Snapshot streams, from one moment, first the counters of limits whose windows are not over, then every
// stored budget, then the days of all ports since the given one: their tokens only, some at a time, in
// the order in which they lie on disk, since sorting ten million of them, or looking each up, takes
// Postgres half a minute. It returns that moment, by the database's clock.
//
// Budgets and days are handed over in two goroutines at once, while Postgres is read in a third: at a gate's start,
// with a million ports, that is most of the work.
func (l *Ledger) Snapshot(ctx context.Context, since Day, counter func(Counter), budget func(port string, b budget.Budget), days func([]PortDay)) (asOf time.Time, err error) {
	err = pgx.BeginTxFunc(ctx, l.pool, oneMoment, func(tx pgx.Tx) error {
		// now() is when the transaction began, just before this first statement takes
		// the snapshot: whatever was committed by then is in it.
		if err := tx.QueryRow(ctx, "select now()").Scan(&asOf); err != nil {
			return err
		}
		rows, _ := tx.Query(ctx, "select port_id, counter, value, start, used from ai_limit_counters where ends > $1", asOf.Add(-startSlack))
		if err := eachCounter(rows, counter); err != nil {
			return err
		}
		rows, _ = tx.Query(ctx, "select port_id, value, version, updated_at, updated_by from system_settings where key = $1", BudgetKey)
		if err := eachBudget(rows, budget); err != nil {
			return err
		}
		rows, _ = tx.Query(ctx, "select port_id, day - date '1970-01-01', total_tokens from ai_usage_port_days where day >= date '1970-01-01' + $1::int", int32(since))
		return eachDays(rows, days)
	})
	return asOf, wrap(err, "snapshot")
}

// takers run what is made of the rows, two at a time; more wait, and with them the reading.
func takers() *errgroup.Group {
	var g errgroup.Group
	g.SetLimit(2)
	return &g
}

// readBudget is a row of a budget whose value is still to be read.
type readBudget struct {
	port  string
	value []byte
	of    budget.Budget // without its value
}

func eachBudget(rows pgx.Rows, f func(port string, b budget.Budget)) error {
	takers := takers()
	var some []readBudget
	flush := func() {
		take := some
		some = nil
		takers.Go(func() error {
			for i := range take {
				if err := take[i].of.Complete(take[i].value); err != nil {
					return fmt.Errorf("%s: %w", take[i].port, err)
				}
				f(take[i].port, take[i].of)
			}
			return nil
		})
	}
	var s readBudget
	_, err := pgx.ForEachRow(rows, []any{&s.port, &s.value, &s.of.Version, &s.of.UpdatedAt, &s.of.UpdatedBy}, func() error {
		if some = append(some, s); len(some) == rowsTogether {
			flush()
		}
		s = readBudget{}
		return nil
	})
	flush()
	return errors.Join(err, takers.Wait())
}

// eachDays reads rows of a port, a day and its tokens. Ten million of them are read at a gate's start: a
// string for each, and the general way to scan, would take longer than Postgres does.
func eachDays(rows pgx.Rows, f func([]PortDay)) (err error) {
	defer rows.Close()
	takers := takers()
	some, ids, ends := make([]PortDay, 0, rowsTogether), []byte(nil), make([]int, 0, rowsTogether)
	flush := func() {
		all, begin := string(ids), 0
		for i, end := range ends {
			some[i].PortID, begin = all[begin:end], end
		}
		take := some
		takers.Go(func() error { f(take); return nil })
		some, ids, ends = make([]PortDay, 0, rowsTogether), ids[:0], ends[:0]
	}
	for rows.Next() {
		raw := rows.RawValues()
		if len(raw[1]) != 4 || len(raw[2]) != 8 {
			err = fmt.Errorf("a day of %d and tokens of %d bytes", len(raw[1]), len(raw[2]))
			break
		}
		ids = append(ids, raw[0]...)
		ends = append(ends, len(ids))
		some = append(some, PortDay{Day: Day(binary.BigEndian.Uint32(raw[1])), TotalTokens: int64(binary.BigEndian.Uint64(raw[2]))})
		if len(some) == rowsTogether {
			flush()
		}
	}
	flush()
	return errors.Join(err, takers.Wait(), rows.Err())
}

// Counters streams the counters of a port's limits whose windows are not over; of all ports,
// for [budget.DefaultPort].
func (l *Ledger) Counters(ctx context.Context, port string, limits []budget.Limit, counter func(Counter)) error {
	var counters []int64
	for i := range limits {
		counters = append(counters, int64(limits[i].Counter))
	}
	rows, _ := l.pool.Query(ctx, "select port_id, counter, value, start, used from ai_limit_counters where (port_id = $1 or $1 = $4) and counter = any($2) and ends > clock_timestamp() - $3::interval", port, counters, startSlack, budget.DefaultPort)
	return wrap(eachCounter(rows, counter), "read counters of %s", port)
}

func eachCounter(rows pgx.Rows, f func(Counter)) error {
	var c Counter
	_, err := pgx.ForEachRow(rows, []any{&c.PortID, &c.Counter, &c.Value, &c.Start, &c.Used}, func() error {
		f(c)
		return nil
	})
	return err
}
