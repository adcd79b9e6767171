package reservation

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
)

var underWaySQL = statement("under_way")

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

// scan reads the row of a hold.
func (u *UnderWay) scan(feature string, tokens int64, calls int, call []byte) error {
	var h heldCall
	if call != nil {
		if err := json.Unmarshal(call, &h); err != nil {
			return err
		}
	}
	h.Feature = feature
	u.Call = budget.Call{Labels: h.Labels, Estimate: budget.Estimate{Tokens: tokens, Input: h.Input, Output: h.Output}}
	u.Calls = int64(calls)
	return nil
}

// scanLease reads the row of what is left of a lease.
func (u *UnderWay) scanLease(l *budget.Leased, ended []byte, tokens int64, calls int) {
	u.Call, u.Calls, u.Lease, u.Ended = budget.Call{Estimate: budget.Estimate{Tokens: tokens}}, int64(calls), l, readSums(ended)
}

// read reads a row of limitsReadSQL that is of a hold, or of what is left of a lease.
func (u *UnderWay) read(kind int, feature string, tokens int64, calls int, call, ended []byte) error {
	if kind == 1 {
		return u.scan(feature, tokens, calls, call)
	}
	l, err := readLeased(feature, call)
	if err == nil {
		u.scanLease(l, ended, tokens, calls)
	}
	return err
}

// UnderWayOf lists the calls under way of a port, as tx sees them.
func (s *Store) UnderWayOf(ctx context.Context, tx pgx.Tx, port string) (list []UnderWay, err error) {
	rows, err := tx.Query(ctx, limitsReadSQL, []string{}, []int64{}, []string{}, []time.Time{}, []string{port}, leaseGrace)
	var kind, calls int
	var value string
	var amount int64
	var at time.Time
	var call, ended []byte
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&kind, new(string), new(int64), &value, &at, &amount, &calls, &call, &ended}, func() error {
			u := UnderWay{PortID: port, Since: at}
			err := u.read(kind, value, amount, calls, call, ended)
			list = append(list, u)
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("reservation: read calls under way of %s: %w", port, err)
	}
	return list, nil
}

// leasesSeen keeps what leases' rows say of whose calls they are for, which changes once, when
// they are sealed, so that it is read twice. It has those of the latest reading.
type leasesSeen struct {
	mu sync.Mutex
	of map[uuid.UUID]leaseSeen
}

type leaseSeen struct {
	sealed bool
	*budget.Leased
}

// UnderWay lists the calls under way of ports that have limits.
func (s *Store) UnderWay(ctx context.Context) (list []UnderWay, err error) {
	s.seen.mu.Lock()
	defer s.seen.mu.Unlock()
	ids, sealed := make([]uuid.UUID, 0, len(s.seen.of)), make([]bool, 0, len(s.seen.of))
	for id, l := range s.seen.of {
		ids, sealed = append(ids, id), append(sealed, l.sealed)
	}
	rows, err := s.pool.Query(ctx, underWaySQL, ids, sealed)
	if err != nil {
		return nil, fmt.Errorf("reservation: read calls under way: %w", err)
	}
	seen := map[uuid.UUID]leaseSeen{}
	var u UnderWay
	var leased, isSealed, known bool
	var feature string
	var tokens int64
	var calls int
	var call, ended []byte
	_, err = pgx.ForEachRow(rows, []any{&leased, &u.PortID, &feature, &u.Since, &tokens, &calls, &call, &ended, &u.ID, &isSealed, &known}, func() (err error) {
		one := UnderWay{PortID: u.PortID, ID: u.ID, Since: u.Since}
		if leased {
			l := s.seen.of[u.ID]
			if !known {
				l.sealed = isSealed
				if l.Leased, err = readLeased(feature, call); err != nil {
					return err
				}
			}
			seen[u.ID] = l
			one.scanLease(l.Leased, ended, tokens, calls)
		} else if err := one.scan(feature, tokens, calls, call); err != nil {
			return err
		}
		list = append(list, one)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reservation: read calls under way: %w", err)
	}
	s.seen.of = seen
	return list, nil
}
