package reservation

import (
	"context"
	_ "embed"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/reservation/hold"
)

//go:embed sql/nearly_full.sql
var nearlyFullSQL string

const (
	// anyValue stands for a value of which nothing is held by itself. It is no text that a call can name.
	anyValue = "\x00"
	// maxValues is how many values of a limit are looked at for a lease of any of them.
	maxValues = 4_096
	// maxExcept is how many of them it is not for, at most.
	maxExcept = 256
)

// counterOf is a counter of a limit in its present window.
type counterOf struct {
	counter budget.CounterRef
	value   string
}

// toRead are counters, each once.
type toRead struct {
	counters hold.Counters
	near     struct { // of all values of a limit, those that are nearly full
		ports            []string
		places           []int // in the port's limits
		counters         []int64
		starts           []time.Time
		low, below, high []int64
	}
}

// add adds those that calls of a port count in, of any value of some dimensions.
func (r *toRead) add(port string, s *portState, of *budget.Labels, any []budget.Per) {
	for i := range s.limits {
		l := &s.limits[i]
		if !l.Matches(of) {
			continue
		}
		start, _ := l.Window.Bounds(s.now)
		if slices.Contains(any, l.Per) {
			if _, asked := s.near[i]; !asked && l.Capped() {
				s.near[i] = nil
				n := &r.near
				low, below, high := l.NearFull()
				n.ports, n.places, n.counters, n.starts = append(n.ports, port), append(n.places, i), append(n.counters, int64(l.Counter)), append(n.starts, start)
				n.low, n.below, n.high = append(n.low, low), append(n.below, below), append(n.high, high)
			}
			continue
		}
		at := counterOf{l.Counter, of.Of(l.Per)}
		if _, asked := s.counted[at]; !asked {
			s.counted[at] = 0
			c := &r.counters
			c.Ports, c.IDs, c.Values, c.Starts = append(c.Ports, port), append(c.IDs, int64(l.Counter)), append(c.Values, at.value), append(c.Starts, start)
		}
	}
}

// readLimits reads what the limits of ports that have any need to know. The ports' locks are held.
func (d *deciding) readLimits(ctx context.Context, conn *pgxpool.Conn, requests []events.ReserveRequest, wants []Want) error {
	var limited []string
	for port, s := range d.states {
		if len(s.limits) > 0 {
			limited = append(limited, port)
		}
	}
	if len(limited) == 0 {
		return nil
	}
	var read toRead
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
	hold.QueueUnderWay(&send, limited, &read.counters, func(port string, counter budget.CounterRef, value string, used int64) {
		d.states[port].counted[counterOf{counter, value}] = used
	}, func(u *hold.UnderWay) {
		s := d.states[u.PortID]
		u.AddTo(s.tally)
		if u.Spare {
			u.AddTo(s.spare)
		}
	})
	if n := &read.near; len(n.ports) > 0 {
		send.Queue(nearlyFullSQL, n.ports, n.places, n.counters, n.starts, n.low, n.below, n.high, maxValues).Query(d.scanNear)
	}
	return conn.SendBatch(ctx, &send).Close()
}

// scanNear reads which values are nearly full, of limits that have few enough.
func (d *deciding) scanNear(rows pgx.Rows) error {
	var port string
	var place int
	var near []string
	_, err := pgx.ForEachRow(rows, []any{&port, &place, &near}, func() error {
		d.states[port].near[place] = append([]string{}, near...)
		return nil
	})
	return err
}
