package hold

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
)

var (
	holdDeleteSQL = statement("hold_delete")
	leaseLockSQL  = statement("lease_lock")
	leaseCloseSQL = statement("lease_close")
	sweepSQL      = statement("sweep")
)

// End ends holds within a transaction, and returns those that there were: ids that are
// unknown, of another port, forged, or of holds that have ended, end nothing. What the
// caller has to say to Postgres before goes with it, in the same round trip.
func End(ctx context.Context, tx pgx.Tx, send *pgx.Batch, holds []ID) (ended map[ID]bool, err error) {
	ended = map[ID]bool{}
	var ports, leasePorts []string
	var ids, leaseIDs []uuid.UUID
	leased, locked := map[ID]leasedID{}, map[key]*lockedLease{}
	for _, h := range holds {
		if id, err := uuid.Parse(h.ReservationID); err == nil {
			ports, ids = append(ports, h.PortID), append(ids, id)
		} else if id, ok := parseLeasedID(h.ReservationID); ok {
			leased[h] = id
			if k := (key{h.PortID, id.lease}); locked[k] == nil {
				locked[k] = &lockedLease{}
				leasePorts, leaseIDs = append(leasePorts, k.port), append(leaseIDs, k.id)
			}
		}
	}
	if len(ids) > 0 {
		send.Queue(holdDeleteSQL, ports, ids).Query(func(rows pgx.Rows) error {
			var port string
			var id uuid.UUID
			_, err := pgx.ForEachRow(rows, []any{&port, &id}, func() error {
				ended[ID{port, id.String()}] = true
				return nil
			})
			return err
		})
	}
	if len(leaseIDs) > 0 {
		send.Queue(leaseLockSQL, leasePorts, leaseIDs).Query(func(rows pgx.Rows) error { return scanLocked(rows, locked) })
	}
	if send.Len() == 0 {
		return ended, nil
	}
	if err := tx.SendBatch(ctx, send).Close(); err != nil {
		return nil, fmt.Errorf("reservation: end %d holds: %w", len(holds), err)
	}
	for h, id := range leased {
		if locked[key{h.PortID, id.lease}].end(&id) {
			ended[h] = true
		}
	}
	return ended, closeHolds(ctx, tx, locked)
}

// lockedLease is a lease as it stands while a transaction has its row; zero: there is none.
type lockedLease struct {
	secret               []byte
	tokens, closedTokens int64
	closed               []byte       // a bit for each hold that has ended
	ended                []budget.Sum // by whose calls they were; nil: the lease does not say whose
	sealed, changed      bool
}

func scanLocked(rows pgx.Rows, locked map[key]*lockedLease) error {
	var k key
	var l lockedLease
	var ended []byte
	_, err := pgx.ForEachRow(rows, []any{&k.port, &k.id, &l.secret, &l.tokens, &l.closedTokens, &l.closed, &ended, &l.sealed}, func() error {
		l.ended = readSums(ended)
		*locked[k] = l
		l = lockedLease{} // the next row gets memory of its own
		return nil
	})
	return err
}

// end marks a hold as ended and reports whether it was one that had not.
func (l *lockedLease) end(h *leasedID) bool {
	if h.n >= 8*len(l.closed) || l.closed[h.n/8]&(1<<(h.n%8)) != 0 || !h.signedWith(l.secret) {
		return false
	}
	l.closed[h.n/8] |= 1 << (h.n % 8)
	l.closedTokens += h.Tokens
	if h.of >= 0 {
		l.ended = append(l.ended, make([]budget.Sum, max(h.of+1-len(l.ended), 0))...)
		l.ended[h.of] = l.ended[h.of].Add(budget.Sum{Estimate: h.Estimate, Calls: 1})
	}
	l.changed = true
	return true
}

// closeHolds writes down which holds of leases have ended, and removes the leases that are
// sealed and of which that was the last one.
func closeHolds(ctx context.Context, tx pgx.Tx, locked map[key]*lockedLease) error {
	var ports []string
	var ids []uuid.UUID
	var tokens []int64
	var closed, ended [][]byte
	var done []bool
	for k, l := range locked {
		if l.changed {
			ports, ids, tokens = append(ports, k.port), append(ids, k.id), append(tokens, l.closedTokens)
			closed, ended, done = append(closed, l.closed), append(ended, writeSums(l.ended)), append(done, l.sealed && l.closedTokens == l.tokens)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, leaseCloseSQL, ports, ids, tokens, closed, ended, done); err != nil {
		return fmt.Errorf("reservation: end holds of leases: %w", err)
	}
	return nil
}

// Release gives holds back and reports, for each, whether there was one; see [End].
func (s *Store) Release(ctx context.Context, holds []ID) (released []bool, err error) {
	released = make([]bool, len(holds))
	for i, h := range holds {
		if id, err := uuid.Parse(h.ReservationID); err == nil {
			holds[i].ReservationID = id.String() // however it was written
		}
	}
	var ended map[ID]bool
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) (err error) {
		ended, err = End(ctx, tx, new(pgx.Batch), holds)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reservation: release: %w", err)
	}
	for i, h := range holds {
		released[i] = ended[h]
		delete(ended, h) // named twice at once: given back once
	}
	return released, nil
}

const (
	// sweepGrace leaves an expired hold where it is for a while: it counts no more,
	// but the event that settles it may be on its way.
	sweepGrace = 10 * time.Second
	// SweepBatch is how many holds of their own, and how many leases with all their
	// holds, one sweep removes at most.
	SweepBatch = 5_000
)

// Unsettled is what a sweep found in one port: calls that were allowed and whose
// usage was not reported within the hold's lifetime.
type Unsettled struct {
	PortID string
	Holds  int64
	Tokens int64
}

// Sweep removes holds that have expired and counts them as unsettled, at most
// [SweepBatch] a call. An expired hold binds nobody even before it is swept.
func (s *Store) Sweep(ctx context.Context) (found []Unsettled, err error) {
	rows, err := s.patient.Query(ctx, sweepSQL, sweepGrace, SweepBatch)
	if err == nil {
		found, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Unsettled])
	}
	if err != nil {
		return nil, fmt.Errorf("reservation: sweep holds: %w", err)
	}
	return found, nil
}
