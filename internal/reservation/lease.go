package reservation

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
)

var (
	leaseGrantSQL  = statement("lease_grant")
	leaseReturnSQL = statement("lease_return")
)

// Lease is a part of a port's headroom that one gate was granted: it may make holds of
// Tokens in all from it, in memory, until Until. Tokens that become a hold never
// come back to the lease. When a hold ends they come back to the port; what has
// not become a hold does so when the gate returns the lease. A lease whose gate was
// killed counts as held, whole, until it expires.
type Lease struct {
	PortID  string
	ID      uuid.UUID
	Of      budget.Labels  // that it was asked for
	Calls   *budget.Leased // whose holds they all are
	TTL     time.Duration  // a hold made from it lives for at least that long
	Version int64          // of the budget it was granted under
	Default bool           // that was the default budget
	Tokens  int64
	Holds   int       // how many holds may be made
	Created time.Time // this and the following by the database's clock
	Until   time.Time
	Expires time.Time // every hold's

	secret []byte // signs the ids of its holds
}

// Want asks for a lease. None is granted where that would take much of what is
// left, and what is granted may be less.
type Want struct {
	PortID        string
	Of            budget.Labels // whose holds: the feature, and what of the rest leases are by
	TTL           time.Duration // of the holds
	For           time.Duration // for how long holds will be made
	Tokens, Least int64         // a lease of fewer than Least, which is more than 0, is of no use
	Holds         int
}

const (
	// MaxLeaseHolds bounds [Want.Holds].
	MaxLeaseHolds = 4096
	// leaseShare is the part of what is left under the hard cap that a lease may take.
	leaseShare = 8
	// leastCalls is how many calls, of the size that is usual, a lease has the tokens for, at least.
	leastCalls = 4
	// leastHolds is how many holds a lease is for, at least.
	leastHolds = 8
	// leaseGrace is how long after the end of a lease its gate may take to return it.
	// One that is still open then has lost its gate.
	leaseGrace = time.Second
)

// grant gives a want what it may have. It comes after the requests: a lease is for
// those to come.
func (d *deciding) grant(w *Want) {
	s := d.states[w.PortID]
	if !s.rule.Leases(s.now) {
		return
	}
	tokens := w.Tokens
	if s.rule.Enabled && s.rule.Hard != budget.NoCap {
		tokens = min(tokens, (s.rule.Hard-budget.Add(s.used, s.held))/leaseShare)
	}
	tokens, holds, calls := s.shareFor(w, tokens)
	// A hold counts in the period it was made in, and periods end with a day.
	until := s.now.Add(w.For)
	if _, midnight := budget.Day.Bounds(s.now); midnight.Before(until) {
		until = midnight
	}
	if tokens < w.Least || holds == 0 || until.Sub(s.now) < w.For/4 {
		return
	}
	l := Lease{
		PortID: w.PortID, ID: events.NewUUIDv7(s.now), Of: w.Of, Calls: calls, TTL: w.TTL, Version: int64(s.rule.Version), Default: s.rule.Default, Tokens: tokens,
		Holds: holds, Created: s.now, Until: until, Expires: until.Add(w.TTL), secret: make([]byte, 16),
	}
	_, _ = rand.Read(l.secret)
	s.held = budget.Add(s.held, tokens)
	s.tally.HoldLeased(calls, nil, tokens, int64(holds), s.now)
	d.leases = append(d.leases, l)
	d.write.Queue(leaseGrantSQL, l.PortID, l.ID, tokens, make([]byte, (holds+7)/8), l.secret, l.Created, until, l.Expires, w.Of.Feature, writeLeased(calls))
}

// shareFor is for how many tokens, and for how many holds of whose calls, a lease may be of which so many
// tokens are left of the port's own caps. Where limits count each user, or each run, the lease is for any of
// them and says how much one may have of it, and who may have nothing: those who are nearer to a cap.
func (s *portState) shareFor(w *Want, tokens int64) (most int64, holds int, calls *budget.Leased) {
	calls = &budget.Leased{Feature: w.Of.Feature}
	holds = min(w.Holds, MaxLeaseHolds)
	if len(s.limits) == 0 {
		return tokens, holds, calls
	}
	by, each := s.rule.LeasedBy()
	of := w.Of.Only(by)
	calls.By, calls.Calls, calls.Each = by, []budget.Labels{of}, map[budget.Per]budget.Allowance{}
	of.Feature = w.Of.Feature
	roomTokens, roomHolds := s.room(&of, each)
	if roomHolds < leastHolds {
		return 0, 0, nil
	}
	for _, d := range each {
		a, ok := s.allowance(&of, d)
		if !ok || a.Tokens < w.Least/leastCalls || a.Calls == 0 {
			return 0, 0, nil
		}
		calls.Each[d] = a
	}
	holds = int(min(int64(holds+7), roomHolds)) / 8 * 8 // they are bits of whole bytes
	return min(tokens, roomTokens), holds, calls
}

// Returned says what a gate has made of a lease. It makes no more.
type Returned struct {
	PortID           string
	ID               uuid.UUID
	Service, Feature string // of the holds
	Holds            int
	Tokens           int64          // of all the holds
	Calls            *budget.Leased // whose, and what was made for each; nil: unknown
	// Doubtful: nobody knows whether it was granted. Its port is locked first, which the
	// transaction that may have granted it did too: by then that one has ended.
	Doubtful bool
}

// Return gives back what of leases has not become a hold, and writes down what has. It
// reports the leases that are done with, and when they were, by the database's clock: written
// down, ended with all their holds, or gone. It passes over those that a booking is busy with: no gate waits for a booking.
func (s *Store) Return(ctx context.Context, list []Returned) (done map[uuid.UUID]time.Time, err error) {
	var doubtful []string
	for i := range list {
		if list[i].Doubtful {
			doubtful = append(doubtful, list[i].PortID)
		}
	}
	done = map[uuid.UUID]time.Time{}
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		var send pgx.Batch
		if len(doubtful) > 0 {
			send.Queue(lockPortsSQL, PortLocks(doubtful...))
		}
		for _, r := range list {
			var calls *string
			if r.Calls != nil {
				calls = writeLeased(r.Calls)
			}
			send.Queue(leaseReturnSQL, r.PortID, r.ID, r.Tokens, r.Service, r.Feature, r.Holds, calls).QueryRow(func(row pgx.Row) error {
				var ok bool
				var at time.Time
				err := row.Scan(&ok, &at)
				if ok {
					done[r.ID] = at
				}
				return err
			})
		}
		return tx.SendBatch(ctx, &send).Close()
	})
	if err != nil {
		return nil, fmt.Errorf("reservation: return leases: %w", err)
	}
	return done, nil
}

// AwaitReturns returns once no gate makes holds of the port from a lease that was granted
// before a time, which is when its budget changed: those that heard of it have returned theirs.
// One that was killed cannot, nor can it make holds: the wait ends with an error after a second.
// [budget.DefaultPort] stands for all ports without a budget of their own.
func (s *Store) AwaitReturns(ctx context.Context, port string, granted time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	of := "port_id = $1"
	if port == budget.DefaultPort {
		of = `port_id <> $1 and not exists (select from system_settings s
			where s.port_id = l.port_id and s.key = 'ai.budget' and s.value <> '{"default": true}')`
	}
	for {
		var leased bool
		err := s.patient.QueryRow(ctx, `select exists (select from ai_budget_slices l
			where `+of+` and holds is null and created_at <= $2 and leased_until > clock_timestamp())`, port, granted).Scan(&leased)
		if err != nil {
			return fmt.Errorf("reservation: wait for leases of %s: %w", port, err)
		}
		if !leased {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("reservation: wait for leases of %s: a gate has not returned one: %w", port, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}
