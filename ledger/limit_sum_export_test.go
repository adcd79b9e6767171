package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
)

// SumLimitAt is what the ledger has for a limit since then, by value and start, with the window of
// a time added up by itself.
func (l *Ledger) SumLimitAt(ctx context.Context, port string, limit budget.Limit, since, at time.Time) (map[string]int64, error) {
	used := map[string]int64{}
	err := l.inTx(ctx, func(tx pgx.Tx) error {
		return sumLimits(ctx, tx, limitSums{sumLimitSQL, at}, port, &counted{limit, since}, nil, func(_ string, sums []addition, _ map[valueAt]int64) {
			for _, a := range sums {
				used[fmt.Sprint(a.Value, " ", a.Start.Format(time.RFC3339))] += a.Used
			}
		})
	})
	return used, err
}
