package reservation

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
)

var (
	limitsReadSQL = statement("limits_read")
	nearlyFullSQL = statement("nearly_full")
	underWaySQL   = statement("under_way")
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
