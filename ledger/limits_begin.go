package ledger

import (
	"context"
	"errors"
	"slices"
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
//
// A limit of the default budget is made known for all ports that go by it at once. The third step
// is then done for each of these that has used something, one after the other. A port that is given
// back to the default budget later does the same for itself, before it goes by it.

// storeCounted stores a budget, and begins limits of it that count something new.
func (l *Ledger) storeCounted(ctx context.Context, port string, b budget.Budget, how storing) (budget.Budget, error) {
	if !events.ValidPort(port) && port != budget.DefaultPort {
		return budget.Budget{}, &events.FieldError{Reason: events.ReasonInvalidField, Field: "port_id", Value: port, Rule: "must be 1 to 64 of A-Z a-z 0-9 _ -"}
	}
	if err := b.ValidateFor(port); err != nil {
		return budget.Budget{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	b.Limits = slices.Clone(b.Limits)
	var begun []counted
	for range 5 { // others may change the same budget meanwhile
		stored, missing, err := l.storeBudget(ctx, port, b, how, begun)
		if err != nil || len(missing) == 0 {
			return stored, err
		}
		more, err := l.beginLimits(ctx, port, missing)
		if err != nil {
			return budget.Budget{}, err
		}
		begun = append(begun, more...)
	}
	return budget.Budget{}, ErrConflict
}

// beginLimits does the first three steps. Those that have a counter already are the default
// budget's, and begin for a port that is given back to it.
func (l *Ledger) beginLimits(ctx context.Context, port string, limits []counted) (begun []counted, err error) {
	begun, err = l.countFromNow(ctx, port, limits)
	ports := []string{port}
	if err == nil && port == budget.DefaultPort {
		err = l.inTx(ctx, func(tx pgx.Tx) (err error) {
			ports, err = portsByDefault(ctx, tx, begun)
			return err
		})
	}
	for _, p := range ports {
		if err == nil {
			err = l.countBefore(ctx, p, begun)
		}
	}
	return begun, wrap(err, "begin limits of %s", port)
}

// countFromNow makes every booking that begins later count for limits, and waits for those
// that do not.
func (l *Ledger) countFromNow(ctx context.Context, port string, limits []counted) (begun []counted, err error) {
	err = l.inTx(ctx, func(tx pgx.Tx) error {
		if port != budget.DefaultPort {
			if _, err := tx.Exec(ctx, "insert into ports (id) values ($1) on conflict do nothing", port); err != nil {
				return err
			}
		}
		known, err := lockLimited(ctx, tx, port)
		if err != nil {
			return err
		}
		var now time.Time
		if err := tx.QueryRow(ctx, "select clock_timestamp()").Scan(&now); err != nil {
			return err
		}
		version, err := writeLimited(ctx, tx, port, func(version int64) []counted {
			next := append([]counted{}, known.own...)
			for i, c := range limits {
				from := now.Add(-startSlack)
				if c.Counter == 0 {
					if slices.ContainsFunc(begun, func(b counted) bool { return b.CountsLike(&c.Limit) }) {
						continue
					}
					c.Counter = budget.CounterRef(version + int64(i))
				} else {
					from = from.Add(-countLate) // other ports' windows of the same limit still count
				}
				if start, _ := c.Window.Bounds(from); start.After(c.Since) {
					c.Since = start
				}
				begun = append(begun, c)
				next = append(slices.DeleteFunc(next, func(n counted) bool { return n.Counter == c.Counter }), c)
			}
			return next
		})
		if err != nil || port != budget.DefaultPort {
			return err
		}
		_, err = tx.Exec(ctx, `insert into ai_limited_ports as l (port_id, version, limits)
			select port_id, $1, '[]' from system_settings where key = $2 and port_id <> $3 and value <> $4
			on conflict (port_id) do update set version = excluded.version, limits = excluded.limits where l.limits is null`, version, BudgetKey, budget.DefaultPort, byDefault)
		return err
	})
	if err == nil {
		err = l.awaitBookings(ctx)
	}
	return begun, err
}

// portsByDefault are the ports for which bookings count limits of the default budget and that
// have used something in the windows of these.
func portsByDefault(ctx context.Context, tx pgx.Tx, limits []counted) ([]string, error) {
	if len(limits) == 0 {
		return nil, nil
	}
	since := limits[0].Since
	for _, c := range limits {
		if c.Since.Before(since) {
			since = c.Since
		}
	}
	rows, _ := tx.Query(ctx, `select distinct d.port_id from ai_usage_port_days d
		where d.day >= ($1::timestamptz at time zone 'UTC')::date
			and not exists (select from ai_limited_ports p where p.port_id = d.port_id and p.limits is not null)
		order by 1`, since)
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// countBefore adds to counters of a port what bookings did not count.
func (l *Ledger) countBefore(ctx context.Context, port string, begun []counted) error {
	return pgx.BeginFunc(ctx, l.countPool, func(tx pgx.Tx) error {
		// A port that is deleted meanwhile would take its rows away, and leave what they had counted.
		err := tx.QueryRow(ctx, "select 1 from ports where id = $1 for key share", port).Scan(new(int))
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		// Two may begin the same limit of the default budget for one port. The second must see
		// what the first has added.
		if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock($1, hashtext($2))", int32(limitsLock), port); err != nil {
			return err
		}
		var missing []addition
		for i := range begun {
			sums, have, err := sumLimit(ctx, tx, port, &begun[i], nil)
			if err != nil {
				return err
			}
			for _, a := range sums {
				if a.Used -= have[valueAt{a.Value, a.Start.Unix()}]; a.Used != 0 {
					missing = append(missing, a)
				}
			}
		}
		return addCounters(ctx, tx, missing)
	})
}

// startSlack is how long before now a window may have ended to be counted from its start:
// gates still ask for it, by their clocks.
const startSlack = time.Minute

// awaitBookings returns once every booking that was under way has ended.
func (l *Ledger) awaitBookings(ctx context.Context) error {
	return l.awaitHolders(ctx, "classid = 0 and objid = any($1::bigint[]::oid[])", bookLock)
}
