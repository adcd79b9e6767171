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
var sumLimitSQL string

// sumLimitByDefaultSQL is the same of all ports that go by the default budget, port by port.
var sumLimitByDefaultSQL = strings.ReplaceAll(sumLimitSQL, "port_id = $1",
	"$1::text = '"+budget.DefaultPort+"' and port_id not in (select port_id from ai_limited_ports where limits is not null)") + "order by 1"

// sumLimit is what the ledger has for a limit, of one user or of all, in the windows that
// are counted; and what its counter has, of all, by the same snapshot.
func sumLimit(ctx context.Context, tx pgx.Tx, port string, c *counted, user *string) (sums []addition, have map[valueAt]int64, err error) {
	err = sumLimits(ctx, tx, sumLimitSQL, port, c, user, func(_ string, s []addition, h map[valueAt]int64) { sums, have = s, h })
	return sums, have, err
}

// sumLimits is that of each port that the statement is about, which must have their rows one after the other.
func sumLimits(ctx context.Context, tx pgx.Tx, sql, port string, c *counted, user *string, each func(port string, sums []addition, have map[valueAt]int64)) error {
	args := append([]any{port, c.Since}, matchArgs(&c.Match)...)
	rows, err := tx.Query(ctx, sql, append(args, string(c.Per), string(c.Window), user, int64(c.Counter))...)
	if err != nil {
		return fmt.Errorf("ledger: sum up for limit %s: %w", c.Name, err)
	}
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
	_, err = pgx.ForEachRow(rows, []any{&of, &counter, &value, &start, &calls, &u.Input, &u.CacheRead, &u.CacheWrite, &u.Output}, func() error {
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
		return fmt.Errorf("ledger: sum up for limit %s: %w", c.Name, err)
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
