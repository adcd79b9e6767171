package ledger

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/killpoint"
)

//go:embed sql/reserve_read.sql
var reserveReadSQL string

//go:embed sql/reserve_known.sql
var reserveKnownSQL string

//go:embed sql/reserve_insert.sql
var reserveInsertSQL string

// Decide answers one request, given the port's budget and its tokens in the
// period that contains now. It must be a pure function.
type Decide func(b events.Budget, used, held, estimate int64, now time.Time) events.Verdict

// Standing is what a port's reservations add up to, at a moment of the
// database's clock.
type Standing struct {
	PortID string
	Held   int64
	At     time.Time
}

// Reserved is what a call to [Ledger.Reserve] did.
type Reserved struct {
	Verdicts  []events.Verdict // one for each request, in their order
	Faults    []error          // for each: nil, or a [*KeyConflict] that there is instead of a verdict
	Leased    []bool           // for each: it was refused, and gates may have tokens of its port to spare
	Standings []Standing       // what each port's holds add up to now
	Slices    []Slice          // what was granted of the wants
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

// Reserve decides requests in the order given and makes a hold for each that is
// allowed, all in one transaction that has their ports to itself: used, held and
// cap are compared as they are, whatever other gates do. Then it grants what it can
// of the wants, at most one for a port and lifetime.
//
// With an error nothing may be assumed: the connection may have broken during
// the commit. Then a hold may exist that nobody knows; it expires. Slices that may
// exist are returned beside the error.
func (l *Ledger) Reserve(ctx context.Context, requests []events.ReserveRequest, wants []Want, decide Decide) (*Reserved, error) {
	if !l.cfg.KnownPortsOnly {
		if err := l.registerUnseen(ctx, requests); err != nil {
			return nil, err
		}
	}
	conn, err := l.reservePool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("ledger: reserve: %w", err)
	}
	defer conn.Release()
	reserved, err := reserveOn(ctx, conn, requests, wants, decide)
	if err != nil {
		// A connection left inside a transaction is closed, which ends it.
		if conn.Conn().PgConn().TxStatus() != 'I' {
			_ = conn.Conn().Close(context.WithoutCancel(ctx))
		}
		return reserved, fmt.Errorf("ledger: reserve: %w", err)
	}
	return reserved, nil
}

// reserveOn takes two round trips: lock and read, then write and commit.
func reserveOn(ctx context.Context, conn *pgxpool.Conn, requests []events.ReserveRequest, wants []Want, decide Decide) (*Reserved, error) {
	ports := make([]string, 0, len(requests)+len(wants))
	for i := range requests {
		ports = append(ports, requests[i].PortID)
	}
	for i := range wants {
		ports = append(ports, wants[i].PortID)
	}
	slices.Sort(ports)
	ports = slices.Compact(ports)

	r := reserving{states: make(map[string]*portState, len(ports)), known: map[keyOf]knownHold{}}
	var read pgx.Batch
	read.Queue("begin")
	read.Queue(lockPortsSQL, lockKeys(ports))
	r.queueKnown(&read, requests)
	read.Queue(reserveReadSQL, ports, BudgetKey, leaseGrace).Query(r.scanStates)
	if err := conn.SendBatch(ctx, &read).Close(); err != nil {
		return nil, err
	}
	killpoint.Here("reserve-locked")
	done := &Reserved{Verdicts: make([]events.Verdict, len(requests)), Faults: make([]error, len(requests)), Leased: make([]bool, len(requests))}
	for i := range requests {
		done.Verdicts[i], done.Faults[i] = r.decide(&requests[i], decide)
		done.Leased[i] = done.Faults[i] == nil && !done.Verdicts[i].Allowed && r.mayFit(&requests[i], decide)
	}
	for i := range wants {
		r.grant(&wants[i])
	}
	var write pgx.Batch
	if len(r.rows.ids) > 0 {
		write.Queue(reserveInsertSQL, r.rows.ports, r.rows.ids, r.rows.tokens, r.rows.created, r.rows.expires, r.rows.services, r.rows.features, r.rows.keys, r.rows.asked)
	}
	if g := &r.grants; len(g.ids) > 0 {
		write.Queue(grantSlicesSQL, g.ports, g.ids, g.tokens, g.bytes, g.secrets, g.created, g.until, g.expires)
	}
	write.Queue("commit")
	done.Slices = r.slices
	if err := conn.SendBatch(ctx, &write).Close(); err != nil {
		return &Reserved{Slices: r.slices}, err
	}
	killpoint.Here("reserve-committed")
	for _, port := range ports {
		s := r.states[port]
		done.Standings = append(done.Standings, Standing{PortID: port, Held: s.held, At: s.now})
	}
	return done, nil
}

// reserving is the working state of one call.
type reserving struct {
	states map[string]*portState
	known  map[keyOf]knownHold // holds made by earlier tries
	rows   holdRows
	slices []Slice
	grants sliceRows
}

type portState struct {
	budget     events.Budget
	used, held int64
	now        time.Time
	leased     int64 // of held: the most that gates may have to spare
}

type keyOf struct{ port, key string }

type knownHold struct {
	id      string
	tokens  int64
	expires time.Time
	asked   string // "": not known
}

type holdRows struct {
	ports, services, features, keys []string
	asked                           []*string
	ids                             []uuid.UUID
	tokens                          []int64
	created, expires                []time.Time
}

func (r *reserving) decide(q *events.ReserveRequest, decide Decide) (events.Verdict, error) {
	s := r.states[q.PortID]
	var asked *string
	if q.IdempotencyKey != "" {
		asked = new(askedFor(q))
		if hold, ok := r.known[keyOf{q.PortID, q.IdempotencyKey}]; ok {
			if hold.asked != "" && hold.asked != *asked {
				return events.Verdict{}, &KeyConflict{Key: q.IdempotencyKey, Before: hold.asked, Now: *asked}
			}
			// The same hold again: the state as it is, without asking for more.
			v := decide(s.budget, s.used, s.held-min(hold.tokens, s.held), hold.tokens, s.now)
			return granted(v, s, hold.id, hold.tokens, hold.expires), nil
		}
	}
	estimate := q.EstimatedTokens
	v := decide(s.budget, s.used, s.held, estimate, s.now)
	if !v.Allowed && q.AcceptLess && v.Reason == events.ReasonEstimateExceedsHardCap && *v.RemainingTokens > 0 {
		estimate = *v.RemainingTokens
		v = decide(s.budget, s.used, s.held, estimate, s.now)
	}
	if !v.Allowed {
		v.AsOf = s.now
		return v, nil
	}
	id := events.NewUUIDv7(s.now)
	expires := s.now.Add(q.TTL())
	s.held += estimate
	r.rows.add(q, id, estimate, s.now, expires, asked)
	if asked != nil {
		r.known[keyOf{q.PortID, q.IdempotencyKey}] = knownHold{id.String(), estimate, expires, *asked}
	}
	return granted(v, s, id.String(), estimate, expires), nil
}

// askedFor is what a retry must ask for again: all of a request but who asks and where,
// the lifetime as it is when left out.
func askedFor(q *events.ReserveRequest) string {
	r := *q
	r.PortID, r.Service, r.IdempotencyKey, r.TTLSeconds = "", "", "", int64(q.TTL()/time.Second)
	body, err := json.Marshal(r)
	if err != nil {
		panic(err) // plain fields only
	}
	return string(body)
}

// mayFit tells whether a request that was refused would be allowed if gates gave back
// what they have leased.
func (r *reserving) mayFit(q *events.ReserveRequest, decide Decide) bool {
	s := r.states[q.PortID]
	return s.leased > 0 && (q.AcceptLess || decide(s.budget, s.used, s.held-s.leased, q.EstimatedTokens, s.now).Allowed)
}

// granted completes the verdict of an allowed request: the state includes its hold.
func granted(v events.Verdict, s *portState, id string, tokens int64, expires time.Time) events.Verdict {
	v.Allowed, v.Reason, v.AsOf = true, "", s.now
	v.ReservationID, v.GrantedTokens, v.ExpiresAt = id, tokens, expires.UTC()
	v.HeldTokens = s.held
	if v.HardCapTokens != nil {
		left := max(*v.HardCapTokens-s.used-s.held, 0)
		v.RemainingTokens = &left
	}
	return v
}

func (h *holdRows) add(q *events.ReserveRequest, id uuid.UUID, tokens int64, created, expires time.Time, asked *string) {
	h.ports = append(h.ports, q.PortID)
	h.ids = append(h.ids, id)
	h.tokens = append(h.tokens, tokens)
	h.created = append(h.created, created)
	h.expires = append(h.expires, expires)
	h.services = append(h.services, q.Service)
	h.features = append(h.features, q.Feature)
	h.keys = append(h.keys, q.IdempotencyKey)
	h.asked = append(h.asked, asked)
}

// queueKnown looks for holds of earlier tries, if any request may have one.
func (r *reserving) queueKnown(b *pgx.Batch, requests []events.ReserveRequest) {
	var ports, keys []string
	for i := range requests {
		if requests[i].IdempotencyKey != "" {
			ports, keys = append(ports, requests[i].PortID), append(keys, requests[i].IdempotencyKey)
		}
	}
	if len(keys) == 0 {
		return
	}
	b.Queue(reserveKnownSQL, ports, keys).Query(func(rows pgx.Rows) error {
		var k keyOf
		var id uuid.UUID
		var h knownHold
		_, err := pgx.ForEachRow(rows, []any{&k.port, &k.key, &id, &h.tokens, &h.expires, &h.asked}, func() error {
			h.id = id.String()
			r.known[k] = h
			return nil
		})
		return err
	})
}

func (r *reserving) scanStates(rows pgx.Rows) error {
	var port string
	var value []byte
	var s portState
	_, err := pgx.ForEachRow(rows, []any{&port, &value, &s.budget.Version, &s.now, &s.used, &s.held, &s.leased}, func() error {
		state := s
		state.now = s.now.UTC()
		if state.budget.Version == 0 {
			state.budget = noBudget()
		} else {
			var stored storedBudget
			if err := json.Unmarshal(value, &stored); err != nil {
				return err
			}
			state.budget.Enabled, state.budget.SoftCapTokens, state.budget.HardCapTokens, state.budget.Period = stored.Enabled, stored.SoftCapTokens, stored.HardCapTokens, stored.Period
		}
		r.states[port] = &state
		return nil
	})
	return err
}

const lockPortsSQL = "select pg_advisory_xact_lock(k) from unnest($1::bigint[]) k"

// lockKeys are the advisory locks that serialise the reservations of a port.
// Two ports that share one by chance only wait for each other.
func lockKeys(ports []string) []int64 {
	keys := make([]int64, len(ports))
	for i, port := range ports {
		h := fnv.New64a()
		_, _ = h.Write([]byte(port))
		keys[i] = int64(h.Sum64())
	}
	slices.Sort(keys) // two gates take theirs in the same order
	return keys
}

func (l *Ledger) registerUnseen(ctx context.Context, requests []events.ReserveRequest) error {
	var unseen []string
	l.mu.RLock()
	for i := range requests {
		if _, ok := l.ports[requests[i].PortID]; !ok {
			unseen = append(unseen, requests[i].PortID)
		}
	}
	l.mu.RUnlock()
	if len(unseen) == 0 {
		return nil
	}
	slices.Sort(unseen)
	_, err := l.registerPorts(ctx, slices.Compact(unseen))
	return err
}
