package ledger

import (
	"context"
	_ "embed"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
)

//go:embed sql/sum_limit.sql
var sumOfRowsSQL string

const (
	sumOfCountersSQL = "select port_id, used, value, start, 0, 0, 0, 0, 0 from ai_limit_counters where %s and counter = $16"
	anyWindow        = "limit_window($14, created_at)"
	goByDefault      = "$1::text = '" + budget.DefaultPort + "' and port_id not in (select port_id from ai_limited_ports where limits is not null)"
)

// sumLimitSQL is what the ledger has for a limit of a port since $2, and what its counter has, by the same
// snapshot. The window [$17, $18) is by itself: Postgres cannot tell how few windows there are, and where it
// groups by them it sorts all calls, on disk.
var sumLimitSQL = union(
	fmt.Sprintf(sumOfRowsSQL, "port_id = $1", "created_at >= $2 and created_at < $17", anyWindow),
	fmt.Sprintf(sumOfRowsSQL, "port_id = $1", "created_at >= greatest($2, $17::timestamptz) and created_at < $18", "$17::timestamptz"),
	fmt.Sprintf(sumOfRowsSQL, "port_id = $1", "created_at >= greatest($2, $18::timestamptz)", anyWindow),
	fmt.Sprintf(sumOfCountersSQL, "port_id = $1"))

// sumLimitByDefaultSQL is the same of all ports that go by the default budget, port by port, in one
// reading of the ledger.
var sumLimitByDefaultSQL = union(
	fmt.Sprintf(sumOfRowsSQL, goByDefault, "created_at >= $2", anyWindow),
	fmt.Sprintf(sumOfCountersSQL, goByDefault)) + " order by 1"

func union(parts ...string) string { return strings.Join(parts, "\nunion all\n") }

// sumLimit is what the ledger has for a limit, of one user or of all, in the windows that
// are counted; and what its counter has, of all, by the same snapshot.
func sumLimit(ctx context.Context, tx pgx.Tx, port string, c *counted, user *string) (sums []addition, have map[valueAt]int64, err error) {
	err = sumLimits(ctx, tx, limitSums{sumLimitSQL, time.Now()}, port, c, user, func(_ string, s []addition, h map[valueAt]int64) { sums, have = s, h })
	return sums, have, err
}

// limitSums is how to add up for limits.
type limitSums struct {
	sql string
	at  time.Time // in the window that is by itself, if one is; whichever it is, the sums are the same
}

// sumLimits is that of each port that the statement is about, which must have their rows one after the other.
func sumLimits(ctx context.Context, tx pgx.Tx, how limitSums, port string, c *counted, user *string, each func(port string, sums []addition, have map[valueAt]int64)) error {
	args := append([]any{port, c.Since}, matchArgs(&c.Match)...)
	args = append(args, string(c.Per), string(c.Window), user, int64(c.Counter))
	if !how.at.IsZero() {
		start, end := c.Window.Bounds(how.at)
		args = append(args, start, pgEnd(end))
	}
	rows, _ := tx.Query(ctx, how.sql, args...)
	var of, last, value string
	var counter *int64
	var start time.Time
	var calls int64
	var u budget.Usage
	var sums []addition
	have := map[valueAt]int64{}
	flush := func() {
		if len(sums) > 0 || len(have) > 0 {
			each(last, sums, have)
		}
		last, sums, have = of, nil, map[valueAt]int64{}
	}
	_, err := pgx.ForEachRow(rows, []any{&of, &counter, &value, &start, &calls, &u.Input, &u.CacheRead, &u.CacheWrite, &u.Output}, func() error {
		if of != last {
			flush()
		}
		if counter != nil {
			have[valueAt{value, start.Unix()}] = *counter
			return nil
		}
		start, end := c.Window.Bounds(start)
		sums = append(sums, addition{Counter{of, c.Counter, value, start, c.Used(calls, &u)}, pgEnd(end)})
		return nil
	})
	if err != nil {
		return wrap(err, "sum up for limit %s", c.Name)
	}
	flush()
	return nil
}

// matchArgs are, of each dimension, the value and the prefix that calls must have.
func matchArgs(m *budget.Match) (args []any) {
	labels := budget.Labels(*m)
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
	return args
}

// valueAt names one of a limit's counts.
type valueAt struct {
	value string
	start int64
}
