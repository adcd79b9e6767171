package reservation

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
)

var (
	limitsReadSQL = statement("limits_read")
	underWaySQL   = statement("under_way")
)

// UnderWay is a call that holds tokens of a port whose budget has limits, or what is left
// of a lease.
type UnderWay struct {
	PortID string
	Call   budget.Call
	Calls  int64
	Since  time.Time
	// Leased: only port, feature and tokens are known.
	Leased bool
}

// AddTo adds it to what is held in limits.
func (u *UnderWay) AddTo(t *budget.Tally) {
	if u.Leased {
		t.HoldUnlabelled(u.Call.Feature, u.Call.Tokens, u.Calls, u.Since)
	} else {
		t.Hold(&u.Call, u.Calls, u.Since)
	}
}

// heldCall is what a hold's row says of its call, beside feature and tokens.
type heldCall struct {
	budget.Labels
	Input  int64 `json:"input,omitempty"`
	Output int64 `json:"output,omitempty"`
}

// callOf is what a hold's row says of a call; nil: nothing.
func callOf(c *budget.Call) *string {
	h := heldCall{c.Labels, c.Input, c.Output}
	h.Feature = ""
	if h == (heldCall{}) {
		return nil
	}
	body, err := json.Marshal(h)
	if err != nil {
		panic(err) // plain fields only
	}
	return new(string(body))
}

// scan reads the row of a hold, or of what is left of a lease.
func (u *UnderWay) scan(feature string, tokens int64, calls int, call []byte, leased bool) error {
	var h heldCall
	if call != nil {
		if err := json.Unmarshal(call, &h); err != nil {
			return err
		}
	}
	h.Feature = feature
	u.Call = budget.Call{Labels: h.Labels, Estimate: budget.Estimate{Tokens: tokens, Input: h.Input, Output: h.Output}}
	u.Calls, u.Leased = int64(calls), leased
	return nil
}

// limitState is what a port's requests are decided by beside its own caps.
type limitState struct {
	used  map[counterAt]int64
	tally *budget.Tally
}

type counterAt struct {
	counter budget.CounterRef
	value   string
	start   int64
}

func (s *limitState) count(l *budget.Limit, value string, start time.Time) budget.Count {
	return budget.Count{Used: s.used[counterAt{l.Counter, value, start.Unix()}], Held: s.tally.Held(l, value, start)}
}

// readLimits reads what the limits of ports that have any need to know. The ports' locks are held.
func (d *deciding) readLimits(ctx context.Context, conn *pgxpool.Conn, requests []events.ReserveRequest) error {
	var limited, ports, values []string
	var counters []int64
	var starts []time.Time
	for port, s := range d.states {
		if s.rule.Enabled && len(s.rule.Limits()) > 0 {
			limited = append(limited, port)
			s.limits = &limitState{map[counterAt]int64{}, budget.NewTally(s.rule.Limits(), s.now)}
		}
	}
	if len(limited) == 0 {
		return nil
	}
	asked := map[string]map[counterAt]bool{}
	for i := range requests {
		q := &requests[i]
		s := d.states[q.PortID]
		if s.limits == nil {
			continue
		}
		if asked[q.PortID] == nil {
			asked[q.PortID] = map[counterAt]bool{}
		}
		call := q.Call()
		limits := s.rule.Limits()
		for j := range limits {
			l := &limits[j]
			start, _ := l.Window.Bounds(s.now)
			at := counterAt{l.Counter, call.Of(l.Per), start.Unix()}
			if l.Matches(&call.Labels) && !asked[q.PortID][at] {
				asked[q.PortID][at] = true
				ports, counters, values, starts = append(ports, q.PortID), append(counters, int64(l.Counter)), append(values, at.value), append(starts, start)
			}
		}
	}
	rows, err := conn.Query(ctx, limitsReadSQL, ports, counters, values, starts, limited)
	if err != nil {
		return err
	}
	var kind, calls int
	var port, value string
	var counter, amount int64
	var at time.Time
	var call []byte
	_, err = pgx.ForEachRow(rows, []any{&kind, &port, &counter, &value, &at, &amount, &calls, &call}, func() error {
		s := d.states[port].limits
		if kind == 0 {
			s.used[counterAt{budget.CounterRef(counter), value, at.Unix()}] = amount
			return nil
		}
		u := UnderWay{PortID: port, Since: at}
		err := u.scan(value, amount, calls, call, kind == 2)
		u.AddTo(s.tally)
		return err
	})
	return err
}

// UnderWay lists the calls under way of ports that have limits.
func (s *Store) UnderWay(ctx context.Context) (list []UnderWay, err error) {
	rows, err := s.pool.Query(ctx, underWaySQL)
	if err != nil {
		return nil, fmt.Errorf("reservation: read calls under way: %w", err)
	}
	var u UnderWay
	var feature string
	var tokens int64
	var calls int
	var call []byte
	var leased bool
	_, err = pgx.ForEachRow(rows, []any{&u.PortID, &feature, &u.Since, &tokens, &calls, &call, &leased}, func() error {
		err := u.scan(feature, tokens, calls, call, leased)
		list = append(list, u)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reservation: read calls under way: %w", err)
	}
	return list, nil
}
