package reservation

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/killpoint"
	"github.com/tidegate/tidegate/internal/reservation/hold"
)

//go:embed sql/hold_read.sql
var holdReadSQL string

//go:embed sql/hold_known.sql
var holdKnownSQL string

// Held is what a call to [Store.Hold] did.
type Held struct {
	Verdicts  []events.Verdict // one for each request, in their order
	Faults    []error          // for each: nil, or a [*KeyConflict] or [ErrTooManyHolds], that there is instead of a verdict
	Leased    []bool           // for each: it was refused, and gates may have leased what it needs
	Standings []hold.Standing  // what each port's holds add up to now
	Leases    []hold.Lease     // what was granted of the wants
}

// KeyConflict says that an idempotency key already has a hold, of another request.
type KeyConflict struct {
	Key    string
	Before string // what the hold was asked for, as JSON
	Now    string // what is asked for under the same key
}

func (c *KeyConflict) Error() string {
	return fmt.Sprintf("idempotency_key %q holds tokens for another request: that one was %s, this one is %s; repeat a request unchanged, and give every other call a key of its own",
		c.Key, c.Before, c.Now)
}

// What a port may hold at once, leases aside. All its holds are added up whenever one of its
// reservations is decided, which those of other ports may wait for.
const (
	MaxHolds      = 100_000
	MaxHeldTokens = math.MaxInt64 / 2
)

// ErrTooManyHolds says that a port would hold more than it may.
var ErrTooManyHolds = fmt.Errorf("too many holds: a port may have %d at once, of %d tokens in all; settle or release some, or wait until they expire", MaxHolds, int64(MaxHeldTokens))

// Hold decides requests in the order given and makes a hold for each that is
// allowed, all in one transaction that has their ports to itself: used, held and
// cap are compared as they are, whatever other gates do. Then it grants what it can
// of the wants.
//
// With an error nothing may be assumed: the connection may have broken during
// the commit. Then a hold may exist that nobody knows; it expires. Leases that may
// exist are returned beside the error.
func (s *Store) Hold(ctx context.Context, requests []events.ReserveRequest, wants []Want) (*Held, error) {
	var ports []string
	for i := range requests {
		ports = append(ports, requests[i].PortID)
	}
	if err := s.register(ctx, sorted(ports)); err != nil {
		return nil, err
	}
	for i := range wants {
		ports = append(ports, wants[i].PortID)
	}
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("reservation: hold: %w", err)
	}
	defer conn.Release()
	held, err := holdOn(ctx, conn, sorted(ports), requests, wants)
	if err != nil {
		// A connection left inside a transaction is closed, which ends it.
		if conn.Conn().PgConn().TxStatus() != 'I' {
			_ = conn.Conn().Close(context.WithoutCancel(ctx))
		}
		return held, fmt.Errorf("reservation: hold: %w", err)
	}
	return held, nil
}

// sorted is each port once.
func sorted(ports []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(ports)))
}

// holdOn takes two round trips: lock and read, then write and commit; and one more between
// them where a port's budget has limits.
func holdOn(ctx context.Context, conn *pgxpool.Conn, ports []string, requests []events.ReserveRequest, wants []Want) (*Held, error) {
	d := deciding{states: make(map[string]*portState, len(ports)), known: map[keyOf]knownHold{}}
	var read pgx.Batch
	read.Queue("begin")
	hold.Lock(&read, ports...)
	d.queueKnown(&read, requests)
	read.Queue(holdReadSQL, ports, hold.LeaseGrace).Query(d.scanStates)
	if err := conn.SendBatch(ctx, &read).Close(); err != nil {
		return nil, err
	}
	killpoint.Here("reserve-locked")
	if err := d.readLimits(ctx, conn, requests, wants); err != nil {
		return nil, err
	}
	done := &Held{Verdicts: make([]events.Verdict, len(requests)), Faults: make([]error, len(requests)), Leased: make([]bool, len(requests))}
	for i := range requests {
		done.Verdicts[i], done.Faults[i] = d.decide(&requests[i])
		done.Leased[i] = done.Faults[i] == nil && !done.Verdicts[i].Allowed && d.states[requests[i].PortID].mayFit(&requests[i])
	}
	for i := range wants {
		d.grant(&wants[i])
	}
	d.made.Insert(&d.write)
	d.write.Queue("commit")
	if err := conn.SendBatch(ctx, &d.write).Close(); err != nil {
		return &Held{Leases: d.leases}, err
	}
	killpoint.Here("reserve-committed")
	done.Leases = d.leases
	for _, port := range ports {
		s := d.states[port]
		done.Standings = append(done.Standings, hold.Standing{PortID: port, Held: s.held, At: s.now})
	}
	return done, nil
}

// deciding is the working state of one call.
type deciding struct {
	states map[string]*portState
	known  map[keyOf]knownHold // holds made by earlier tries
	made   hold.New
	leases []hold.Lease
	write  pgx.Batch
}

type keyOf struct{ port, key string }

type knownHold struct {
	id      string
	tokens  int64
	expires time.Time
	asked   string // "": not known
}

func (d *deciding) decide(q *events.ReserveRequest) (events.Verdict, error) {
	s := d.states[q.PortID]
	call := q.Call()
	var asked *string
	if q.IdempotencyKey != "" {
		asked = new(askedFor(q))
		if known, ok := d.known[keyOf{q.PortID, q.IdempotencyKey}]; ok {
			if known.asked != "" && known.asked != *asked {
				return events.Verdict{}, &KeyConflict{Key: q.IdempotencyKey, Before: known.asked, Now: *asked}
			}
			// The same hold again: the state as it is, without asking for more.
			v := s.decide(s.held-min(known.tokens, s.held), &budget.Call{Labels: call.Labels, Estimate: budget.Estimate{Tokens: known.tokens}})
			return s.granted(v, &call, known.id, known.tokens, known.expires), nil
		}
	}
	v := s.decide(s.held, &call)
	if !v.Allowed && q.AcceptLess && v.Reason == events.ReasonEstimateExceedsHardCap {
		if less, ok := budget.Fit(s.rule, budget.Count{Used: s.used, Held: s.held}, &call, s.count, s.now); ok {
			call.Estimate = less
			v = s.decide(s.held, &call)
		}
	}
	if q.Explain {
		v.Limits = events.NewLimitVerdicts(budget.Explain(s.rule, budget.Count{Used: s.used, Held: s.held}, &call, s.count, s.now))
	}
	if !v.Allowed {
		v.AsOf = s.now
		return v, nil
	}
	if s.holds >= MaxHolds || budget.Add(s.held, call.Tokens) > MaxHeldTokens {
		return events.Verdict{}, ErrTooManyHolds
	}
	id := events.NewUUIDv7(s.now)
	expires := s.now.Add(q.TTL())
	s.hold(&call)
	d.made.Add(q, &call, id, s.now, expires, asked)
	if asked != nil {
		d.known[keyOf{q.PortID, q.IdempotencyKey}] = knownHold{id.String(), call.Tokens, expires, *asked}
	}
	return s.granted(v, &call, id.String(), call.Tokens, expires), nil
}

// askedFor is what a retry must ask for again: all of a request but who asks and where,
// the lifetime as it is when left out.
func askedFor(q *events.ReserveRequest) string {
	r := *q
	r.PortID, r.Service, r.IdempotencyKey, r.TTLSeconds, r.Explain = "", "", "", int64(q.TTL()/time.Second), false
	body, err := json.Marshal(r)
	if err != nil {
		panic(err) // plain fields only
	}
	return string(body)
}

// queueKnown looks for holds of earlier tries, if any request may have one.
func (d *deciding) queueKnown(b *pgx.Batch, requests []events.ReserveRequest) {
	var ports, keys []string
	for i := range requests {
		if requests[i].IdempotencyKey != "" {
			ports, keys = append(ports, requests[i].PortID), append(keys, requests[i].IdempotencyKey)
		}
	}
	if len(keys) == 0 {
		return
	}
	b.Queue(holdKnownSQL, ports, keys).Query(func(rows pgx.Rows) error {
		var k keyOf
		var id uuid.UUID
		var h knownHold
		_, err := pgx.ForEachRow(rows, []any{&k.port, &k.key, &id, &h.tokens, &h.expires, &h.asked}, func() error {
			h.id = id.String()
			d.known[k] = h
			return nil
		})
		return err
	})
}

func (d *deciding) scanStates(rows pgx.Rows) error {
	var port string
	var value []byte
	var version int64
	var byDefault bool
	var s portState
	_, err := pgx.ForEachRow(rows, []any{&port, &value, &version, &byDefault, &s.now, &s.used, &s.held, &s.leased, &s.holds}, func() error {
		state, b := s, budget.Budget{Version: version}
		if err := b.Complete(value); err != nil {
			return err
		}
		b.Default = byDefault
		state.rule = b.Rule()
		if state.rule.Enabled {
			state.limits = state.rule.Limits()
		}
		state.counted, state.near = map[counterOf]int64{}, map[int][]string{}
		state.tally, state.spare = budget.NewTally(state.limits, state.now), budget.NewTally(state.limits, state.now)
		d.states[port] = &state
		return nil
	})
	return err
}
