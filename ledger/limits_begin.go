package ledger

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
)

// How a limit that counts something new begins, while calls are booked. A booking that is
// under way when the limit comes does not count in it; one that begins later does. So:
//
//  1. The limit is made known to bookings, and to nobody else.
//  2. Those that were under way, and may not know it, are waited for. None is held up.
//  3. One snapshot says what the ledger has for the limit, and what was counted already. The
//     difference is what is missing, however many bookings go on meanwhile. It is added.
//  4. The budget is stored with the limit. Reservations and checks decide by it from then on.

//go:embed sql/sum_limit.sql
var sumLimitSQL string

// limitsLock is held by who changes ai_limited_ports, so that versions become visible in
// their order.
const limitsLock = 0x71de6a80

// storeCounted stores a budget, and begins limits of it that count something new.
func (l *Ledger) storeCounted(ctx context.Context, port string, b budget.Budget, ifVersion *int64) (budget.Budget, error) {
	if !events.ValidPort(port) {
		return budget.Budget{}, &events.FieldError{Reason: events.ReasonInvalidField, Field: "port_id", Value: port, Rule: "must be 1 to 64 of A-Z a-z 0-9 _ -"}
	}
	if err := b.Validate(); err != nil {
		return budget.Budget{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	b.Limits = slices.Clone(b.Limits)
	var begun []counted
	for range 5 { // others may change the same budget meanwhile
		stored, missing, err := l.storeBudget(ctx, port, b, ifVersion, begun)
		if err != nil || len(missing) == 0 {
			return stored, err
		}
		if begun, err = l.beginLimits(ctx, port, missing); err != nil {
			return budget.Budget{}, err
		}
	}
	return budget.Budget{}, ErrConflict
}

// storeLimits makes bookings count for limits, in the transaction that stores these, and for
// no others. Limits that count the same as one of the budget before go on with its counter.
// What counts something new and was not begun, or not by now, is returned.
func storeLimits(ctx context.Context, tx pgx.Tx, port string, limits, before []budget.Limit, begun []counted) (missing []budget.Limit, err error) {
	known, err := lockLimited(ctx, tx, port)
	if err != nil {
		return nil, err
	}
	var next []counted
	for i := range limits {
		l := &limits[i]
		at := slices.IndexFunc(known, func(c counted) bool {
			return slices.ContainsFunc(before, func(b budget.Limit) bool { return b.Counter == c.Counter && b.CountsLike(l) }) ||
				slices.ContainsFunc(begun, func(b counted) bool { return b.Counter == c.Counter && b.CountsLike(l) })
		})
		if at < 0 {
			missing = append(missing, *l)
			continue
		}
		l.Counter = known[at].Counter
		if !slices.ContainsFunc(next, func(c counted) bool { return c.Counter == l.Counter }) {
			next = append(next, known[at])
		}
	}
	if len(missing) > 0 || len(next) == len(known) {
		return missing, nil
	}
	return nil, writeLimited(ctx, tx, port, func(int64) []counted { return next })
}

// lockLimited reads what bookings count for a port, and holds the lock that guards it.
func lockLimited(ctx context.Context, tx pgx.Tx, port string) (limits []counted, err error) {
	if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock($1)", limitsLock); err != nil {
		return nil, err
	}
	var value []byte
	err = tx.QueryRow(ctx, "select limits from ai_limited_ports where port_id = $1", port).Scan(&value)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(value, &limits)
	}
	return limits, err
}

// countersApart is how many numbers a version has for counters.
const countersApart = 2 * budget.MaxLimits

// writeLimited writes what bookings count for a port; limits are made for a version.
func writeLimited(ctx context.Context, tx pgx.Tx, port string, limits func(version int64) []counted) error {
	var version int64
	err := tx.QueryRow(ctx, "select greatest(coalesce(max(version), 0) + $1, (extract(epoch from clock_timestamp()) * 1000000)::bigint) from ai_limited_ports", countersApart).Scan(&version)
	if err != nil {
		return err
	}
	value, err := json.Marshal(limits(version))
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `insert into ai_limited_ports (port_id, version, limits) values ($1, $2, $3)
		on conflict (port_id) do update set version = excluded.version, limits = excluded.limits`, port, version, value)
	return err
}

// beginLimits does the first three steps.
func (l *Ledger) beginLimits(ctx context.Context, port string, limits []budget.Limit) (begun []counted, err error) {
	err = l.inTx(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "insert into ports (id) values ($1) on conflict do nothing", port); err != nil {
			return err
		}
		known, err := lockLimited(ctx, tx, port)
		if err != nil {
			return err
		}
		var now time.Time
		if err := tx.QueryRow(ctx, "select clock_timestamp()").Scan(&now); err != nil {
			return err
		}
		return writeLimited(ctx, tx, port, func(version int64) []counted {
			for i := range limits {
				if slices.ContainsFunc(begun, func(b counted) bool { return b.CountsLike(&limits[i]) }) {
					continue
				}
				c := counted{Limit: limits[i]}
				c.Counter = budget.CounterRef(version + int64(i))
				c.Since, _ = c.Window.Bounds(now.Add(-startSlack))
				begun, known = append(begun, c), append(known, c)
			}
			return known
		})
	})
	if err == nil {
		err = l.awaitBookings(ctx)
	}
	var missing []addition
	if err == nil {
		missing, err = l.missing(ctx, port, begun)
	}
	if err == nil && len(missing) > 0 {
		err = l.inTx(ctx, func(tx pgx.Tx) error {
			var send pgx.Batch
			addToCounters(&send, missing)
			return tx.SendBatch(ctx, &send).Close()
		})
	}
	if err != nil {
		return nil, fmt.Errorf("ledger: begin limits of %s: %w", port, err)
	}
	return begun, nil
}

// startSlack is how long before now a window may have ended to be counted from its start:
// gates still ask for it, by their clocks.
const startSlack = time.Minute

// awaitBookings returns once every booking that was under way has ended.
func (l *Ledger) awaitBookings(ctx context.Context) error {
	under, err := l.bookings(ctx)
	for ; err == nil && len(under) > 0; time.Sleep(2 * time.Millisecond) {
		var now []string
		now, err = l.bookings(ctx)
		under = slices.DeleteFunc(under, func(b string) bool { return !slices.Contains(now, b) })
	}
	return err
}

// bookings are the transactions that have bookLock.
func (l *Ledger) bookings(ctx context.Context) ([]string, error) {
	rows, err := l.pool.Query(ctx, `select pid || ' ' || virtualtransaction from pg_locks
		where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())
			and classid = 0 and objid = $1::bigint::oid and objsubid = 1 and granted`, int64(bookLock))
	if err != nil {
		return nil, fmt.Errorf("ledger: look for bookings: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("ledger: look for bookings: %w", err)
	}
	return list, nil
}

// missing is what counters of limits lack, by one snapshot.
func (l *Ledger) missing(ctx context.Context, port string, begun []counted) (missing []addition, err error) {
	err = pgx.BeginTxFunc(ctx, l.reportPool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		for i := range begun {
			sums, err := sumLimit(ctx, tx, port, &begun[i], nil)
			if err != nil {
				return err
			}
			have, err := usedOf(ctx, tx, port, begun[i].Counter)
			if err != nil {
				return err
			}
			for _, a := range sums {
				if a.Used -= have[valueAt{a.Value, a.Start.Unix()}]; a.Used != 0 {
					missing = append(missing, a)
				}
			}
		}
		return nil
	})
	sortAdditions(missing)
	return missing, err
}

// sumLimit is what the ledger has for a limit, of one user or of all, in the windows that
// are counted.
func sumLimit(ctx context.Context, tx pgx.Tx, port string, c *counted, user *string) (sums []addition, err error) {
	args := []any{port, c.Since}
	labels := budget.Labels(c.Match)
	for _, d := range budget.Pers {
		var exact, prefix *string
		if pattern := labels.Of(d); pattern != "" {
			if p, ok := strings.CutSuffix(pattern, "*"); ok {
				prefix = &p
			} else {
				exact = &pattern
			}
		}
		args = append(args, exact, prefix)
	}
	rows, err := tx.Query(ctx, sumLimitSQL, append(args, string(c.Per), string(c.Window), user)...)
	if err != nil {
		return nil, fmt.Errorf("ledger: sum up for limit %s: %w", c.Name, err)
	}
	var value string
	var start time.Time
	var calls int64
	var u budget.Usage
	_, err = pgx.ForEachRow(rows, []any{&value, &start, &calls, &u.Input, &u.CacheRead, &u.CacheWrite, &u.Output}, func() error {
		start, end := c.Window.Bounds(start)
		sums = append(sums, addition{Counter{port, c.Counter, value, start, c.Used(calls, &u)}, pgEnd(end)})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("ledger: sum up for limit %s: %w", c.Name, err)
	}
	return sums, nil
}

// valueAt names one of a limit's counts.
type valueAt struct {
	value string
	start int64
}

// usedOf is what a counter has.
func usedOf(ctx context.Context, tx pgx.Tx, port string, counter budget.CounterRef) (map[valueAt]int64, error) {
	rows, err := tx.Query(ctx, "select port_id, counter, value, start, used from ai_limit_counters where port_id = $1 and counter = $2", port, counter)
	if err != nil {
		return nil, fmt.Errorf("ledger: read counters: %w", err)
	}
	used := map[valueAt]int64{}
	if err := eachCounter(rows, func(c Counter) { used[valueAt{c.Value, c.Start.Unix()}] = c.Used }); err != nil {
		return nil, fmt.Errorf("ledger: read counters: %w", err)
	}
	return used, nil
}
