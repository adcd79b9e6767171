package ledger

import (
	"cmp"
	"context"
	_ "embed"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/internal/reservation/hold"
)

//go:embed sql/fullest.sql
var fullestSQL string

// Fullest is what a limit counts in its present window.
type Fullest struct {
	Values int64 // how many there are of the dimension that it counts by itself
	Top    []ValueUsed
}

// ValueUsed is what calls with a value have used, and what those under way hold, in the limit's
// unit; of unit weighted in thousandths.
type ValueUsed struct {
	Value      string
	Used, Held int64
}

// Count is that, as limits decide by it.
func (v ValueUsed) Count() budget.Count { return budget.Count{Used: v.Used, Held: v.Held} }

// Fullest reads what limits of a port count and hold in the windows that contain now: of each those
// values of which most is used or held, at most so many. All of it is of one moment: what turns from held
// into used is seen as one of the two.
func (l *Ledger) Fullest(ctx context.Context, port string, limits []budget.Limit, most int, now time.Time) (all []Fullest, err error) {
	if len(limits) == 0 {
		return nil, nil
	}
	all = make([]Fullest, len(limits))
	err = pgx.BeginTxFunc(ctx, l.reportPool, oneMoment, func(tx pgx.Tx) error {
		tally, err := l.tally(ctx, tx, port, limits, now)
		if err != nil {
			return err
		}
		var counters, of []int64
		var starts []time.Time
		var held []string // they may have used little, or nothing yet
		for i := range limits {
			lim := &limits[i]
			start, _ := lim.Window.Bounds(now)
			counters, starts = append(counters, int64(lim.Counter)), append(starts, start)
			for _, value := range tally.Values(lim) {
				if tally.Held(lim, value, start) > 0 {
					of, held = append(of, int64(i+1)), append(held, value)
				}
			}
		}
		rows, _ := tx.Query(ctx, fullestSQL, port, counters, starts, most, of, held)
		var no, values int64
		var v ValueUsed
		_, err = pgx.ForEachRow(rows, []any{&no, &v.Value, &v.Used, &values}, func() error {
			f := &all[no-1]
			v.Held = tally.Held(&limits[no-1], v.Value, starts[no-1])
			f.Values, f.Top = values, append(f.Top, v)
			return nil
		})
		return err
	})
	for i := range all {
		f := &all[i]
		slices.SortFunc(f.Top, func(a, b ValueUsed) int {
			return cmp.Or(cmp.Compare(budget.Add(b.Used, b.Held), budget.Add(a.Used, a.Held)), strings.Compare(a.Value, b.Value))
		})
		f.Top = f.Top[:min(len(f.Top), most)]
	}
	return all, wrap(err, "what limits of %s count", port)
}

// tally is what calls under way of a port hold in limits.
func (l *Ledger) tally(ctx context.Context, tx pgx.Tx, port string, limits []budget.Limit, now time.Time) (*budget.Tally, error) {
	underWay, err := hold.UnderWayOf(ctx, tx, port)
	tally := budget.NewTally(limits, now)
	for i := range underWay {
		underWay[i].AddTo(tally)
	}
	return tally, err
}

// Held reads what calls under way of a port hold in the limits of its budget, in the windows that
// contain now: for a limit and a value, and the window's start.
func (l *Ledger) Held(ctx context.Context, port string, limits []budget.Limit, now time.Time) (held func(l *budget.Limit, value string, start time.Time) int64, err error) {
	err = pgx.BeginTxFunc(ctx, l.reportPool, oneMoment, func(tx pgx.Tx) error {
		tally, err := l.tally(ctx, tx, port, limits, now)
		held = tally.Held
		return err
	})
	return held, wrap(err, "what is held of %s", port)
}
