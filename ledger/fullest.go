package ledger

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
)

//go:embed sql/fullest.sql
var fullestSQL string

// Fullest is what a limit counts in its present window.
type Fullest struct {
	Values int64 // how many there are of the dimension that it counts by itself
	Top    []ValueUsed
}

// ValueUsed is what calls with a value have used, in the limit's unit; of unit weighted in
// thousandths.
type ValueUsed struct {
	Value string
	Used  int64
}

// Fullest reads what limits of a port count in the windows that contain now: of each those
// values that have used most, at most so many.
func (l *Ledger) Fullest(ctx context.Context, port string, limits []budget.Limit, most int, now time.Time) ([]Fullest, error) {
	all := make([]Fullest, len(limits))
	if len(limits) == 0 {
		return all, nil
	}
	var counters []int64
	var starts []time.Time
	for i := range limits {
		start, _ := limits[i].Window.Bounds(now)
		counters, starts = append(counters, int64(limits[i].Counter)), append(starts, start)
	}
	rows, err := l.reportPool.Query(ctx, fullestSQL, port, counters, starts, most)
	if err != nil {
		return nil, fmt.Errorf("ledger: what limits of %s count: %w", port, err)
	}
	var no, values int64
	var v ValueUsed
	_, err = pgx.ForEachRow(rows, []any{&no, &v.Value, &v.Used, &values}, func() error {
		f := &all[no-1]
		f.Values, f.Top = values, append(f.Top, v)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("ledger: what limits of %s count: %w", port, err)
	}
	return all, nil
}
