package ledger

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
)

// What bookings count, for which ports: the table ai_limited_ports. A port that has no row, or
// one that says null, is counted for what the row of [budget.DefaultPort] says.

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
	ports, err := limitedPorts(ctx, tx, "port_id in ($1, $2)", port, budget.DefaultPort)
	return known{ports[port], ports[budget.DefaultPort]}, err
}

// limitedPorts reads what bookings count for ports. Those that are not there go by the default budget.
func limitedPorts(ctx context.Context, tx pgx.Tx, which string, args ...any) (map[string][]counted, error) {
	rows, _ := tx.Query(ctx, "select port_id, limits from ai_limited_ports where limits is not null and "+which, args...)
	ports := map[string][]counted{}
	var port string
	var limits []counted
	_, err := pgx.ForEachRow(rows, []any{&port, &limits}, func() error {
		ports[port], limits = limits, nil // the next row gets memory of its own
		return nil
	})
	return ports, err
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
