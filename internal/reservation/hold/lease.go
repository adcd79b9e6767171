package hold

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
)

var (
	leaseGrantSQL  = statement("lease_grant")
	leaseReturnSQL = statement("lease_return")
)

// LeaseGrace is how long after the end of a lease its gate may take to return it.
// One that is still open then has lost its gate.
const LeaseGrace = time.Second

// Kind is what a lease is asked for.
type Kind struct {
	Of  budget.Labels // whose holds: the feature, and what of the rest leases are by
	TTL time.Duration // of the holds, at least
}

// Lease is a part of a port's headroom that one gate was granted: it may make holds of
// Tokens in all from it, in memory, until Until. Tokens that become a hold never
// come back to the lease. When a hold ends they come back to the port; what has
// not become a hold does so when the gate returns the lease. A lease whose gate was
// killed counts as held, whole, until it expires.
type Lease struct {
	PortID string
	ID     uuid.UUID
	Kind
	Calls   *budget.Leased // whose holds they all are
	Version int64          // of the budget it was granted under
	Default bool           // that was the default budget
	Tokens  int64
	Holds   int       // how many holds may be made
	Created time.Time // this and the following by the database's clock
	Until   time.Time
	Expires time.Time // every hold's

	secret []byte // signs the ids of its holds
}

// Insert inserts its row.
func (l *Lease) Insert(b *pgx.Batch) {
	l.secret = make([]byte, 16)
	_, _ = rand.Read(l.secret)
	b.Queue(leaseGrantSQL, l.PortID, l.ID, l.Tokens, make([]byte, (l.Holds+7)/8), l.secret, l.Created, l.Until, l.Expires, l.Of.Feature, writeLeased(l.Calls))
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
			Lock(&send, doubtful...)
		}
		for _, r := range list {
			send.Queue(leaseReturnSQL, r.PortID, r.ID, r.Tokens, r.Service, r.Feature, r.Holds, writeLeased(r.Calls)).QueryRow(func(row pgx.Row) error {
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

// leasedCalls is what the row of a lease says of whose calls it is for, and once it is sealed
// what holds were made for each. Older builds take one that is open for each value's.
type leasedCalls struct {
	By   []budget.Per                    `json:"by"`
	Of   [][]string                      `json:"of"`
	Each map[budget.Per]budget.Allowance `json:"each,omitempty"`
	Made [][4]int64                      `json:"made,omitempty"` // holds, tokens, input, output
}

func writeLeased(l *budget.Leased) *string {
	if l == nil || l.Calls == nil {
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
