package reservation

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
)

var (
	limitsReadSQL = statement("limits_read")
	nearlyFullSQL = statement("nearly_full")
)

const (
	// anyValue stands for a value of which nothing is held by itself. It is no text that a call can name.
	anyValue = "\x00"
	// maxValues is how many values of a limit are looked at for a lease of any of them.
	maxValues = 4_096
	// maxExcept is how many of them it is not for, at most.
	maxExcept = 256
)

// limitState is what a port's requests are decided by beside its own caps.
type limitState struct {
	used  map[counterAt]int64
	near  map[counterAt][]string // values, where all are known of which a lease is not to be for any value
	tally *budget.Tally
	spare *budget.Tally // of that, the most that gates may have leased and not made into holds
}

type counterAt struct {
	counter budget.CounterRef
	value   string
	start   int64
}

func (s *limitState) count(l *budget.Limit, value string, start time.Time) budget.Count {
	return budget.Count{Used: s.used[counterAt{l.Counter, value, start.Unix()}], Held: s.tally.Held(l, value, start)}
}

// withoutSpare is count as if gates gave back what they have leased.
func (s *limitState) withoutSpare(l *budget.Limit, value string, start time.Time) budget.Count {
	n := s.count(l, value, start)
	n.Held = max(n.Held-s.spare.Held(l, value, start), 0)
	return n
}

// toRead are counters, each once.
type toRead struct {
	asked map[string]map[counterAt]bool // by port
	some  struct {
		ports, values []string
		counters      []int64
		starts        []time.Time
	}
	all struct { // of all values of a limit, those that are nearly full
		ports            []string
		counters         []int64
		starts           []time.Time
		low, below, high []int64
	}
}

// add adds those that calls of a port count in, of any value of some dimensions.
func (r *toRead) add(port string, s *portState, of *budget.Labels, any []budget.Per) {
	if s.limits == nil {
		return
	}
	if r.asked[port] == nil {
		r.asked[port] = map[counterAt]bool{}
	}
	limits := s.rule.Limits()
	for i := range limits {
		l := &limits[i]
		start, _ := l.Window.Bounds(s.now)
		at := counterAt{l.Counter, of.Of(l.Per), start.Unix()}
		if slices.Contains(any, l.Per) {
			at.value = anyValue
		}
		if !l.Matches(of) || r.asked[port][at] || at.value == anyValue && !l.Capped() {
			continue
		}
		r.asked[port][at] = true
		if at.value != anyValue {
			r.some.ports, r.some.counters = append(r.some.ports, port), append(r.some.counters, int64(l.Counter))
			r.some.values, r.some.starts = append(r.some.values, at.value), append(r.some.starts, start)
			continue
		}
		low, below, high := l.NearFull()
		r.all.ports, r.all.counters, r.all.starts = append(r.all.ports, port), append(r.all.counters, int64(l.Counter)), append(r.all.starts, start)
		r.all.low, r.all.below, r.all.high = append(r.all.low, low), append(r.all.below, below), append(r.all.high, high)
	}
}

// readLimits reads what the limits of ports that have any need to know. The ports' locks are held.
func (d *deciding) readLimits(ctx context.Context, conn *pgxpool.Conn, requests []events.ReserveRequest, wants []Want) error {
	var limited []string
	for port, s := range d.states {
		if s.rule.Enabled && len(s.rule.Limits()) > 0 {
			limited = append(limited, port)
			limits := s.rule.Limits()
			s.limits = &limitState{map[counterAt]int64{}, map[counterAt][]string{}, budget.NewTally(limits, s.now), budget.NewTally(limits, s.now)}
		}
	}
	if len(limited) == 0 {
		return nil
	}
	read := toRead{asked: map[string]map[counterAt]bool{}}
	for i := range requests {
		call := requests[i].Call()
		read.add(requests[i].PortID, d.states[requests[i].PortID], &call.Labels, nil)
	}
	for i := range wants {
		s := d.states[wants[i].PortID]
		_, each := s.rule.LeasedBy()
		read.add(wants[i].PortID, s, &wants[i].Of, each)
	}
	var send pgx.Batch
	send.Queue(limitsReadSQL, read.some.ports, read.some.counters, read.some.values, read.some.starts, limited, leaseGrace).Query(d.scanLimits)
	if all := &read.all; len(all.ports) > 0 {
		send.Queue(nearlyFullSQL, all.ports, all.counters, all.starts, all.low, all.below, all.high, maxValues).Query(d.scanNear)
	}
	return conn.SendBatch(ctx, &send).Close()
}

// scanNear reads which values are nearly full, of limits that have few enough.
func (d *deciding) scanNear(rows pgx.Rows) error {
	var port string
	var counter int64
	var start time.Time
	var near []string
	_, err := pgx.ForEachRow(rows, []any{&port, &counter, &start, &near}, func() error {
		d.states[port].limits.near[counterAt{budget.CounterRef(counter), anyValue, start.Unix()}] = near
		near = nil
		return nil
	})
	return err
}

func (d *deciding) scanLimits(rows pgx.Rows) error {
	var kind, calls int
	var port, value string
	var counter, amount int64
	var at time.Time
	var call, ended []byte
	_, err := pgx.ForEachRow(rows, []any{&kind, &port, &counter, &value, &at, &amount, &calls, &call, &ended}, func() error {
		s := d.states[port].limits
		if kind == 0 {
			s.used[counterAt{budget.CounterRef(counter), value, at.Unix()}] = amount
			return nil
		}
		u := UnderWay{PortID: port, Since: at}
		if err := u.read(kind, value, amount, calls, call, ended); err != nil {
			return err
		}
		if kind == 3 {
			u.AddTo(s.spare)
		}
		u.AddTo(s.tally)
		return nil
	})
	return err
}
