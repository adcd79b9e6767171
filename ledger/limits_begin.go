package ledger

import (
	"context"
	_ "embed"
	"encoding/json"
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
//
// A limit of the default budget is made known for all ports that go by it at once. The third step
// is then done for each of these that has used something, one after the other. A port that is given
// back to the default budget later does the same for itself, before it goes by it.

//go:embed sql/sum_limit.sql
var sumLimitSQL string

// limitsLock is held by who changes ai_limited_ports, so that versions become visible in
// their order.
const limitsLock = 0x71de6a80

// storeCounted stores a budget, and begins limits of it that count something new.
func (l *Ledger) storeCounted(ctx context.Context, port string, b budget.Budget, ifVersion *int64) (budget.Budget, error) {
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
		stored, missing, err := l.storeBudget(ctx, port, b, ifVersion, begun)
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

// storeLimits makes bookings count for limits, in the transaction that stores these, and for
// no others. Limits that count the same as one of the budget before go on with its counter.
// What counts something new and was not begun, or not by now, is returned.
func storeLimits(ctx context.Context, tx pgx.Tx, port string, limits, before []budget.Limit, begun []counted) (missing []counted, err error) {
	known, err := lockLimited(ctx, tx, port)
	if err != nil {
		return nil, err
	}
	next := []counted{}
	for i := range limits {
		l := &limits[i]
		at := slices.IndexFunc(known.own, func(c counted) bool {
			return slices.ContainsFunc(before, func(b budget.Limit) bool { return b.Counter == c.Counter && b.CountsLike(l) }) ||
				slices.ContainsFunc(begun, func(b counted) bool { return b.Counter == c.Counter && b.CountsLike(l) })
		})
		if at < 0 {
			l.Counter = 0
			missing = append(missing, counted{Limit: *l})
			continue
		}
		l.Counter = known.own[at].Counter
		if !slices.ContainsFunc(next, func(c counted) bool { return c.Counter == l.Counter }) {
			next = append(next, known.own[at])
		}
	}
	// Where bookings would take it for a port that goes by the default budget, they must learn.
	unlisted := known.own == nil && port != budget.DefaultPort && len(known.standard) > 0
	if len(missing) > 0 || len(next) == len(known.own) && !unlisted {
		return missing, nil
	}
	_, err = writeLimited(ctx, tx, port, func(int64) []counted { return next })
	return nil, err
}

// dropOwnLimits makes bookings count for a port what they count for all that have the default
// budget. What they do not count for it yet, or may not have counted from the start, is returned.
func dropOwnLimits(ctx context.Context, tx pgx.Tx, port string, begun []counted) (missing []counted, err error) {
	known, err := lockLimited(ctx, tx, port)
	if err != nil || known.own == nil {
		return nil, err // they do already
	}
	for _, c := range known.standard {
		if !has(known.own, c.Counter) || !has(begun, c.Counter) {
			missing = append(missing, c)
		}
	}
	if len(missing) > 0 {
		return missing, nil
	}
	_, err = writeLimited(ctx, tx, port, func(int64) []counted { return nil })
	return nil, err
}

func has(list []counted, counter budget.CounterRef) bool {
	return slices.ContainsFunc(list, func(c counted) bool { return c.Counter == counter })
}

// known is what bookings count.
type known struct {
	own      []counted // for the port alone; nil: what they count for all that have the default budget
	standard []counted // for those
}

// lockLimited reads what bookings count for a port, and holds the lock that guards it.
func lockLimited(ctx context.Context, tx pgx.Tx, port string) (k known, err error) {
	if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock($1)", limitsLock); err != nil {
		return k, err
	}
	rows, err := tx.Query(ctx, "select port_id, limits from ai_limited_ports where port_id in ($1, $2) and limits is not null", port, budget.DefaultPort)
	if err != nil {
		return k, err
	}
	var of string
	var value []byte
	_, err = pgx.ForEachRow(rows, []any{&of, &value}, func() error {
		limits := []counted{}
		err := json.Unmarshal(value, &limits)
		if of == port {
			k.own = limits
		}
		if of == budget.DefaultPort {
			k.standard = limits
		}
		return err
	})
	return k, err
}

// countersApart is how many numbers a version has for counters.
const countersApart = 2 * budget.MaxLimits

// writeLimited writes what bookings count for a port; limits are made for a version. nil: what
// they count for all that have the default budget.
func writeLimited(ctx context.Context, tx pgx.Tx, port string, limits func(version int64) []counted) (version int64, err error) {
	err = tx.QueryRow(ctx, "select greatest(coalesce(max(version), 0) + $1, (extract(epoch from clock_timestamp()) * 1000000)::bigint) from ai_limited_ports", countersApart).Scan(&version)
	if err != nil {
		return 0, err
	}
	var value []byte
	if list := limits(version); list != nil {
		if value, err = json.Marshal(list); err != nil {
			return 0, err
		}
	}
	_, err = tx.Exec(ctx, `insert into ai_limited_ports (port_id, version, limits) values ($1, $2, $3)
		on conflict (port_id) do update set version = excluded.version, limits = excluded.limits`, port, version, value)
	return version, err
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
	if err != nil {
		return nil, fmt.Errorf("ledger: begin limits of %s: %w", port, err)
	}
	return begun, nil
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
	rows, err := tx.Query(ctx, `select distinct d.port_id from ai_usage_port_days d
		where d.day >= ($1::timestamptz at time zone 'UTC')::date
			and not exists (select from ai_limited_ports p where p.port_id = d.port_id and p.limits is not null)
		order by 1`, since)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// countBefore adds to counters of a port what bookings did not count.
func (l *Ledger) countBefore(ctx context.Context, port string, begun []counted) error {
	return pgx.BeginFunc(ctx, l.reportPool, func(tx pgx.Tx) error {
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
		if len(missing) == 0 {
			return nil
		}
		sortAdditions(missing)
		var send pgx.Batch
		addToCounters(&send, missing)
		return tx.SendBatch(ctx, &send).Close()
	})
}

// startSlack is how long before now a window may have ended to be counted from its start:
// gates still ask for it, by their clocks.
const startSlack = time.Minute

// awaitBookings returns once every booking that was under way has ended.
func (l *Ledger) awaitBookings(ctx context.Context) error {
	return l.awaitHolders(ctx, "(classid, objid) = (0, $1::bigint::oid)")
}

// awaitHolders returns once every transaction has ended that had an advisory lock of one
// number, either bookLock or others than that.
func (l *Ledger) awaitHolders(ctx context.Context, which string) error {
	under, err := l.holders(ctx, which)
	for ; err == nil && len(under) > 0; time.Sleep(2 * time.Millisecond) {
		var now []string
		now, err = l.holders(ctx, which)
		under = slices.DeleteFunc(under, func(b string) bool { return !slices.Contains(now, b) })
	}
	return err
}

func (l *Ledger) holders(ctx context.Context, which string) ([]string, error) {
	rows, err := l.pool.Query(ctx, `select distinct pid || ' ' || virtualtransaction from pg_locks
		where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())
			and `+which+` and objsubid = 1 and granted`, int64(bookLock))
	if err != nil {
		return nil, fmt.Errorf("ledger: look for transactions under way: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("ledger: look for transactions under way: %w", err)
	}
	return list, nil
}

// sumLimit is what the ledger has for a limit, of one user or of all, in the windows that
// are counted; and what its counter has, of all, by the same snapshot.
func sumLimit(ctx context.Context, tx pgx.Tx, port string, c *counted, user *string) (sums []addition, have map[valueAt]int64, err error) {
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
	rows, err := tx.Query(ctx, sumLimitSQL, append(args, string(c.Per), string(c.Window), user, int64(c.Counter))...)
	if err != nil {
		return nil, nil, fmt.Errorf("ledger: sum up for limit %s: %w", c.Name, err)
	}
	have = map[valueAt]int64{}
	var counter *int64
	var value string
	var start time.Time
	var calls int64
	var u budget.Usage
	_, err = pgx.ForEachRow(rows, []any{&counter, &value, &start, &calls, &u.Input, &u.CacheRead, &u.CacheWrite, &u.Output}, func() error {
		if counter != nil {
			have[valueAt{value, start.Unix()}] = *counter
			return nil
		}
		start, end := c.Window.Bounds(start)
		sums = append(sums, addition{Counter{port, c.Counter, value, start, c.Used(calls, &u)}, pgEnd(end)})
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("ledger: sum up for limit %s: %w", c.Name, err)
	}
	return sums, have, nil
}

// valueAt names one of a limit's counts.
type valueAt struct {
	value string
	start int64
}
