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
	err = pgx.BeginTxFunc(ctx, l.reportPool, oneMoment, func(tx pgx.Tx) error {
		tally, err := l.tally(ctx, tx, port, limits, now)
		if err == nil {
			all, err = fullest(ctx, tx, tally, port, limits, most, now)
		}
		return err
	})
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

func fullest(ctx context.Context, tx pgx.Tx, tally *budget.Tally, port string, limits []budget.Limit, most int, now time.Time) ([]Fullest, error) {
	all := make([]Fullest, len(limits))
	var counters []int64
	var starts []time.Time
	var holding []addition // values for which something is held: they may have used little, or nothing yet
	for i := range limits {
		l := &limits[i]
		start, _ := l.Window.Bounds(now)
		counters, starts = append(counters, int64(l.Counter)), append(starts, start)
		for _, value := range tally.Values(l) {
			if tally.Held(l, value, start) > 0 {
				holding = append(holding, addition{Counter: Counter{PortID: port, Counter: l.Counter, Value: value, Start: start}})
			}
		}
	}
	counted, err := readCounters(ctx, tx, holding)
	if err != nil {
		return nil, err
	}
	used := map[counterKey]*int64{} // nil: nothing yet
	for i := range holding {
		used[keyOf(&holding[i].Counter)] = nil
	}
	for i := range counted {
		used[keyOf(&counted[i])] = &counted[i].Used
	}
	rows, _ := tx.Query(ctx, fullestSQL, port, counters, starts, most)
	var no, values int64
	var v ValueUsed
	_, err = pgx.ForEachRow(rows, []any{&no, &v.Value, &v.Used, &values}, func() error {
		f, l, start := &all[no-1], &limits[no-1], starts[no-1]
		f.Values = values
		if _, holds := used[counterKey{l.Counter, v.Value, start.Unix()}]; !holds { // else it is added below
			f.Top = append(f.Top, ValueUsed{v.Value, v.Used, tally.Held(l, v.Value, start)})
		}
		return nil
	})
	for i := range limits {
		f, l, start := &all[i], &limits[i], starts[i]
		for key, n := range used {
			if key.counter != l.Counter || key.start != start.Unix() {
				continue
			}
			v := ValueUsed{Value: key.value, Held: tally.Held(l, key.value, start)}
			if n == nil {
				f.Values++
			} else {
				v.Used = *n
			}
			f.Top = append(f.Top, v)
		}
		slices.SortFunc(f.Top, func(a, b ValueUsed) int {
			return cmp.Or(cmp.Compare(budget.Add(b.Used, b.Held), budget.Add(a.Used, a.Held)), strings.Compare(a.Value, b.Value))
		})
		f.Top = f.Top[:min(len(f.Top), most)]
	}
	return all, err
}

// counterKey names a counter of one port.
type counterKey struct {
	counter budget.CounterRef
	value   string
	start   int64
}

func keyOf(c *Counter) counterKey { return counterKey{c.Counter, c.Value, c.Start.Unix()} }

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
