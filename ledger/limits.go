package ledger

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
)

//go:embed sql/add_counters.sql
var addCountersSQL string

//go:embed sql/read_counters.sql
var readCountersSQL string

// countLate is how long after the end of a window bookings still count in it. By then
// nobody asks for it any more. Counters are kept for twice as long.
const countLate = 24 * time.Hour

// Counter is what calls have used in one window of a limit, absolute.
type Counter struct {
	PortID  string
	Counter budget.CounterRef
	Value   string // of the dimension that the limit counts by itself
	Start   time.Time
	Used    int64 // in the limit's unit; of unit weighted in thousandths
}

// counted is a limit as bookings count it.
type counted struct {
	budget.Limit
	Since time.Time `json:"since"` // windows that began earlier are not counted
}

// counts reports whether bookings that begin now count in a window of the limit.
func (c *counted) counts(start, end, now time.Time) bool {
	return !start.Before(c.Since) && (end.IsZero() || end.After(now.Add(-countLate)))
}

// limited are the ports with limits that this process knows of. It is never changed, but
// replaced.
type limited struct {
	ports    map[string][]counted // and those that have none, where others have the default's
	standard []counted            // of all other ports
	any      bool                 // there is one
	version  int64                // of the last change in it
}

// of are the limits of a port.
func (l *limited) of(port string) []counted {
	if limits, own := l.ports[port]; own {
		return limits
	}
	return l.standard
}

// limits are those that this process knows of.
func (l *Ledger) limits() limited {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.limited
}

// learnLimits reads what has changed since this process last looked, up to a version; all
// if that is an older one, since then Postgres was put back to an older copy.
func (l *Ledger) learnLimits(ctx context.Context, tx pgx.Tx, to int64) error {
	known := l.limits()
	if to < known.version {
		known = limited{}
	}
	rows, _ := tx.Query(ctx, "select port_id, version, limits from ai_limited_ports where version > $1", known.version)
	next := limited{ports: maps.Clone(known.ports), standard: known.standard, version: known.version}
	if next.ports == nil {
		next.ports = map[string][]counted{}
	}
	var port string
	var version int64
	var value []byte
	_, err := pgx.ForEachRow(rows, []any{&port, &version, &value}, func() error {
		next.version = max(next.version, version)
		if value == nil {
			delete(next.ports, port)
			return nil
		}
		var limits []counted
		if err := json.Unmarshal(value, &limits); err != nil {
			return err
		}
		if port == budget.DefaultPort {
			next.standard = limits
		} else {
			next.ports[port] = limits
		}
		return nil
	})
	if err != nil {
		return wrap(err, "read limits")
	}
	next.any = len(next.standard) > 0
	for _, limits := range next.ports {
		next.any = next.any || len(limits) > 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limited = next
	return nil
}

// span is a window of a limit; the zero one contains nothing.
type span struct{ start, end time.Time }

func (s *span) contains(at time.Time) bool {
	return !s.start.IsZero() && !at.Before(s.start) && (s.end.IsZero() || at.Before(s.end))
}

// addition is what a booking adds to a counter, in Used, and when the window ends.
type addition struct {
	Counter
	ends pgtype.Timestamptz
}

// count adds up what entries, all of them rows of this transaction, count in limits, in the order of
// [sortAdditions].
func (l *Ledger) count(b *batch, indexes []int) []addition {
	if !b.limits.any {
		return nil
	}
	var list []addition
	// Entries are sorted by port, and most are of the same window as the one before.
	var port string
	var first int // of the port's in list
	var limits []counted
	var of []counting
	for _, i := range indexes {
		e := &b.entries[i]
		if port != e.Usage.PortID || limits == nil {
			sortAdditions(list[first:])
			first = len(list)
			port, limits = e.Usage.PortID, b.limits.of(e.Usage.PortID)
			of = make([]counting, len(limits))
		}
		if len(limits) == 0 {
			continue
		}
		labels, used := l.labels(&e.Usage), usageOf(&e.Usage)
		for j := range limits {
			c, in := &limits[j], &of[j]
			if !in.contains(e.At) {
				in.start, in.end = c.Window.Bounds(e.At)
			}
			if !c.Matches(&labels) || !c.counts(in.start, in.end, b.began) {
				continue
			}
			at := valueAt{labels.Of(c.Per), in.start.Unix()}
			place, ok := in.places[at]
			if !ok {
				place = len(list)
				if in.places == nil {
					in.places = map[valueAt]int{}
				}
				in.places[at] = place
				list = append(list, addition{Counter{PortID: port, Counter: c.Counter, Value: at.value, Start: in.start}, pgEnd(in.end)})
			}
			list[place].Used = budget.Add(list[place].Used, c.Used(1, &used))
		}
	}
	sortAdditions(list[first:])
	return list
}

// counting is what counts in a limit of a port: the window of the last entry, and where the counters
// are in a list.
type counting struct {
	span
	places map[valueAt]int
}

// sortAdditions: two transactions lock the counters that both change in the same order.
func sortAdditions(list []addition) {
	slices.SortFunc(list, func(a, b addition) int {
		return cmp.Or(strings.Compare(a.PortID, b.PortID), cmp.Compare(a.Counter.Counter, b.Counter.Counter), strings.Compare(a.Value, b.Value), a.Start.Compare(b.Start))
	})
}

func usageOf(u *events.Usage) budget.Usage {
	return budget.Usage{Input: u.InputTokens, CacheRead: u.Details.CacheReadInputTokens, CacheWrite: u.Details.CacheWriteInputTokens, Output: u.OutputTokens}
}

func pgEnd(end time.Time) pgtype.Timestamptz {
	if end.IsZero() {
		return pgtype.Timestamptz{InfinityModifier: pgtype.Infinity, Valid: true}
	}
	return pgtype.Timestamptz{Time: end, Valid: true}
}

// labels are what limits look at of a call, as its row has it.
func (l *Ledger) labels(u *events.Usage) budget.Labels {
	return budget.Labels{Feature: u.Feature, Provider: u.Provider, Model: u.Model, UserID: l.userOf(u), RunID: u.RunID}
}

// addToCounters queues what adds to counters. Once it was sent, they are what it made of them.
func addToCounters(send *pgx.Batch, list []addition) (now *[]Counter) {
	now = new([]Counter)
	if len(list) == 0 {
		return now
	}
	ports, counters, values, starts := splitCounters(list)
	ends, used := make([]pgtype.Timestamptz, len(list)), make([]int64, len(list))
	for i := range list {
		ends[i], used[i] = list[i].ends, list[i].Used
	}
	send.Queue(addCountersSQL, ports, counters, values, starts, ends, used).Query(func(rows pgx.Rows) (err error) {
		*now, err = pgx.CollectRows(rows, scanCounter)
		return err
	})
	return now
}

// addCounters adds to counters.
func addCounters(ctx context.Context, tx pgx.Tx, list []addition) error {
	if len(list) == 0 {
		return nil
	}
	sortAdditions(list)
	var send pgx.Batch
	addToCounters(&send, list)
	return tx.SendBatch(ctx, &send).Close()
}

// readCounters reads what counters are, as this transaction sees them.
func readCounters(ctx context.Context, tx pgx.Tx, of []addition) ([]Counter, error) {
	if len(of) == 0 {
		return nil, nil
	}
	ports, counters, values, starts := splitCounters(of)
	rows, _ := tx.Query(ctx, readCountersSQL, ports, counters, values, starts)
	list, err := pgx.CollectRows(rows, scanCounter)
	return list, wrap(err, "read counters")
}

func scanCounter(row pgx.CollectableRow) (c Counter, err error) {
	err = row.Scan(&c.PortID, &c.Counter, &c.Value, &c.Start, &c.Used)
	return c, err
}

func splitCounters(list []addition) (ports []string, counters []int64, values []string, starts []time.Time) {
	n := len(list)
	ports, counters, values, starts = make([]string, n), make([]int64, n), make([]string, n), make([]time.Time, n)
	for i := range list {
		c := &list[i].Counter
		ports[i], counters[i], values[i], starts[i] = c.PortID, int64(c.Counter), c.Value, c.Start
	}
	return ports, counters, values, starts
}
