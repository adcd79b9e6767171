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

// sumLimit is what the ledger has for a limit, of one user or of all, in the windows that
// are counted; and what its counter has, of all, by the same snapshot.
func sumLimit(ctx context.Context, tx pgx.Tx, port string, c *counted, user *string) (sums []addition, have map[valueAt]int64, err error) {
	args := append([]any{port, c.Since}, matchArgs(&c.Match)...)
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
