package reservation

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
)

const ofPorts = "with ports as materialized (select unnest($4::text[]) as port_id)\n"

var (
	underWaySQL         = statement("limited_ports") + statement("under_way")
	underWayOfSQL       = ofPorts + statement("under_way")
	underWayAndCountSQL = underWayOfSQL + "\n" + statement("counters_read")
)

// The kinds of rows that these statements read.
const (
	ofCounter = iota
	ofHold
	ofSealed
	ofSpare
)

// UnderWay is a call that holds tokens of a port whose budget has limits, or what is left
// of a lease.
type UnderWay struct {
	PortID string
	ID     uuid.UUID
	Call   budget.Call
	Calls  int64
	Since  time.Time
	Lease  *budget.Leased // nil: it is a call
	Ended  []budget.Sum   // of the holds that were made from the lease, by whose calls they are
	Spare  bool           // its gate may make holds from the lease, or might have until [leaseGrace] ago
}

// AddTo adds it to what is held in limits.
func (u *UnderWay) AddTo(t *budget.Tally) {
	if u.Lease != nil {
		t.HoldLeased(u.Lease, u.Ended, u.Call.Tokens, u.Calls, u.Since)
	} else {
		t.Hold(&u.Call, u.Calls, u.Since)
	}
}

// leasedCalls is what the row of a lease says of whose calls it is for, and once it is sealed
// what holds were made for each. Older builds take one that is open for each value's.
type leasedCalls struct {
	By   []budget.Per                    `json:"by"`
	Of   [][]string                      `json:"of"`
	Each map[budget.Per]budget.Allowance `json:"each,omitempty"`
	Made [][4]int64                      `json:"made,omitempty"` // holds, tokens, input, output
}

func writeLeased(l *budget.Leased) *string {
	if l.Calls == nil {
		return nil
	}
	calls := leasedCalls{By: l.By, Each: l.Each}
	for i := range l.Calls {
		of := []string{}
		for _, d := range l.By {
			of = append(of, l.Calls[i].Of(d))
		}
		calls.Of = append(calls.Of, of)
	}
	for _, m := range l.Made {
		calls.Made = append(calls.Made, [4]int64{m.Calls, m.Tokens, m.Input, m.Output})
	}
	body, err := json.Marshal(calls)
	if err != nil {
		panic(err) // plain fields only
	}
	return new(string(body))
}

func readLeased(feature string, text []byte) (*budget.Leased, error) {
	l := &budget.Leased{Feature: feature}
	if text == nil {
		return l, nil
	}
	var calls leasedCalls
	if err := json.Unmarshal(text, &calls); err != nil {
		return nil, err
	}
	l.By, l.Calls, l.Each = calls.By, []budget.Labels{}, calls.Each
	for _, of := range calls.Of {
		var c budget.Labels
		for i, d := range calls.By[:min(len(of), len(calls.By))] {
			c.Set(d, of[i])
		}
		l.Calls = append(l.Calls, c)
	}
	if len(calls.Made) == len(calls.Of) {
		for _, m := range calls.Made {
			l.Made = append(l.Made, budget.Sum{Calls: m[0], Estimate: budget.Estimate{Tokens: m[1], Input: m[2], Output: m[3]}})
		}
	}
	return l, nil
}

// readSums reads what a lease's row says of what has ended for each of its calls.
func readSums(text []byte) (sums []budget.Sum) {
	for len(text) > 0 {
		var s budget.Sum
		for _, field := range []*int64{&s.Calls, &s.Tokens, &s.Input, &s.Output} {
			v, size := binary.Uvarint(text)
			if size <= 0 {
				return sums
			}
			*field, text = int64(v), text[size:]
		}
		sums = append(sums, s)
	}
	return sums
}

// writeSums writes sums as readSums reads them.
func writeSums(sums []budget.Sum) (text []byte) {
	for _, s := range sums {
		for _, v := range [...]int64{s.Calls, s.Tokens, s.Input, s.Output} {
			text = binary.AppendUvarint(text, uint64(v))
		}
	}
	return text
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

// readCall reads what a hold's row says of its call.
func readCall(feature string, tokens int64, text []byte) (budget.Call, error) {
	var h heldCall
	if text != nil {
		if err := json.Unmarshal(text, &h); err != nil {
			return budget.Call{}, err
		}
	}
	h.Feature = feature
	return budget.Call{Labels: h.Labels, Estimate: budget.Estimate{Tokens: tokens, Input: h.Input, Output: h.Output}}, nil
}

// leasesSeen keeps what leases' rows say of whose calls they are for, which changes once, when
// they are sealed, so that it is read twice. It has those of one reading.
type leasesSeen map[uuid.UUID]leaseSeen

type leaseSeen struct {
	sealed bool
	*budget.Leased
}

// scanUnderWay reads rows of underWaySQL and its like, and what leases say that are not in seen.
func scanUnderWay(rows pgx.Rows, seen leasesSeen, counted func(port string, counter budget.CounterRef, value string, used int64), each func(*UnderWay)) (now leasesSeen, err error) {
	now = leasesSeen{}
	var row UnderWay
	var kind, calls int
	var counter, amount int64
	var text string
	var call, ended []byte
	var known bool
	_, err = pgx.ForEachRow(rows, []any{&kind, &row.PortID, &counter, &text, &row.Since, &amount, &calls, &call, &ended, &row.ID, &known}, func() (err error) {
		u := row
		u.Calls = int64(calls)
		switch {
		case kind == ofCounter:
			counted(u.PortID, budget.CounterRef(counter), text, amount)
			return nil
		case kind == ofHold:
			u.Call, err = readCall(text, amount, call)
		default:
			l := seen[u.ID]
			if !known {
				l.sealed = kind == ofSealed
				l.Leased, err = readLeased(text, call)
			}
			now[u.ID] = l
			u.Call.Tokens, u.Lease, u.Ended, u.Spare = amount, l.Leased, readSums(ended), kind == ofSpare
		}
		if err == nil {
			each(&u)
		}
		return err
	})
	return now, err
}

// Counters are counters of limits that are to be read.
type Counters struct {
	ports, values []string
	counters      []int64
	starts        []time.Time
}

// Add adds the one of a value, in the window that began then.
func (c *Counters) Add(port string, counter budget.CounterRef, value string, start time.Time) {
	c.ports, c.counters, c.values, c.starts = append(c.ports, port), append(c.counters, int64(counter)), append(c.values, value), append(c.starts, start)
}

// QueueUnderWay reads the calls under way of ports and what counters have, by one snapshot.
func QueueUnderWay(b *pgx.Batch, ports []string, c *Counters, counted func(port string, counter budget.CounterRef, value string, used int64), each func(*UnderWay)) {
	b.Queue(underWayAndCountSQL, nil, nil, leaseGrace, ports, c.ports, c.counters, c.values, c.starts).Query(func(rows pgx.Rows) error {
		_, err := scanUnderWay(rows, nil, counted, each)
		return err
	})
}

// UnderWayOf lists the calls under way of a port, as tx sees them.
func (s *Store) UnderWayOf(ctx context.Context, tx pgx.Tx, port string) (list []UnderWay, err error) {
	rows, err := tx.Query(ctx, underWayOfSQL, nil, nil, leaseGrace, []string{port})
	if err == nil {
		_, err = scanUnderWay(rows, nil, nil, func(u *UnderWay) { list = append(list, *u) })
	}
	if err != nil {
		return nil, fmt.Errorf("reservation: read calls under way of %s: %w", port, err)
	}
	return list, nil
}

// UnderWay lists the calls under way of ports that have limits.
func (s *Store) UnderWay(ctx context.Context) (list []UnderWay, err error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	ids, sealed := make([]uuid.UUID, 0, len(s.seen)), make([]bool, 0, len(s.seen))
	for id, l := range s.seen {
		ids, sealed = append(ids, id), append(sealed, l.sealed)
	}
	rows, err := s.pool.Query(ctx, underWaySQL, ids, sealed, leaseGrace)
	var seen leasesSeen
	if err == nil {
		seen, err = scanUnderWay(rows, s.seen, nil, func(u *UnderWay) { list = append(list, *u) })
	}
	if err != nil {
		return nil, fmt.Errorf("reservation: read calls under way: %w", err)
	}
	s.seen = seen
	return list, nil
}
