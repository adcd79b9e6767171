package ledger

import (
	"context"
	_ "embed"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

//go:embed sql/lock_slices.sql
var lockSlicesSQL string

//go:embed sql/close_in_slices.sql
var closeInSlicesSQL string

//go:embed sql/delete_holds.sql
var deleteHoldsSQL string

//go:embed sql/delete_slices.sql
var deleteSlicesSQL string

// endings are holds that a transaction ends, as their ids were given by whoever
// had them: unknown, foreign, forged and used ones end nothing.
type endings struct {
	ports  []string
	ids    []uuid.UUID
	sliced []slicedEnding
	locked map[rowKey]*lockedSlice
	ended  map[Hold]bool // the outcome
}

type slicedEnding struct {
	hold Hold
	slicedID
}

func (e *endings) add(h Hold) {
	if id, err := uuid.Parse(h.ReservationID); err == nil {
		e.ports, e.ids = append(e.ports, h.PortID), append(e.ids, id)
	} else if id, ok := parseSlicedID(h.ReservationID); ok {
		e.sliced = append(e.sliced, slicedEnding{h, id})
	}
}

// queue is the first step. The second is [endings.closeInSlices], once send is sent.
func (e *endings) queue(send *pgx.Batch) {
	e.ended = map[Hold]bool{}
	if len(e.ids) > 0 {
		send.Queue(deleteHoldsSQL, e.ports, e.ids).Query(func(rows pgx.Rows) error {
			var port string
			var id uuid.UUID
			_, err := pgx.ForEachRow(rows, []any{&port, &id}, func() error {
				e.ended[Hold{port, id.String()}] = true
				return nil
			})
			return err
		})
	}
	if len(e.sliced) > 0 {
		ports, ids := e.slices()
		send.Queue(lockSlicesSQL, ports, ids).Query(e.scanSlices)
	}
}

func (e *endings) slices() (ports []string, ids []uuid.UUID) {
	seen := make(map[rowKey]struct{}, len(e.sliced))
	for i := range e.sliced {
		h := &e.sliced[i]
		k := rowKey{h.hold.PortID, h.slice}
		if _, ok := seen[k]; !ok {
			seen[k] = struct{}{}
			ports, ids = append(ports, k.port), append(ids, k.id)
		}
	}
	return ports, ids
}

// lockedSlice is a slice as it stands while this transaction has its row.
type lockedSlice struct {
	secret               []byte
	tokens, closedTokens int64
	closed               []byte
	sealed, changed      bool
}

// end marks a hold as ended and reports whether it was one that had not.
func (s *lockedSlice) end(h *slicedID) bool {
	if h.n >= 8*len(s.closed) || s.closed[h.n/8]&(1<<(h.n%8)) != 0 || !h.signedWith(s.secret) {
		return false
	}
	s.closed[h.n/8] |= 1 << (h.n % 8)
	s.closedTokens += h.tokens
	s.changed = true
	return true
}

func (e *endings) scanSlices(rows pgx.Rows) error {
	e.locked = make(map[rowKey]*lockedSlice, len(e.sliced))
	var k rowKey
	var s lockedSlice
	_, err := pgx.ForEachRow(rows, []any{&k.port, &k.id, &s.secret, &s.tokens, &s.closedTokens, &s.closed, &s.sealed}, func() error {
		locked := s
		e.locked[k] = &locked
		s = lockedSlice{} // the next row gets memory of its own
		return nil
	})
	return err
}

// closeInSlices takes the tokens of the holds that end off their slices, and
// removes slices of which that was the last one.
func (e *endings) closeInSlices(ctx context.Context, tx pgx.Tx) error {
	if len(e.locked) == 0 {
		return nil
	}
	for i := range e.sliced {
		h := &e.sliced[i]
		if s := e.locked[rowKey{h.hold.PortID, h.slice}]; s != nil && s.end(&h.slicedID) {
			e.ended[h.hold] = true
		}
	}
	var changed, done struct {
		ports  []string
		ids    []uuid.UUID
		tokens []int64
		closed [][]byte
	}
	for k, s := range e.locked {
		to := &changed
		switch {
		case !s.changed:
			continue
		case s.sealed && s.closedTokens == s.tokens:
			to = &done
		}
		to.ports, to.ids, to.tokens, to.closed = append(to.ports, k.port), append(to.ids, k.id), append(to.tokens, s.closedTokens), append(to.closed, s.closed)
	}
	var send pgx.Batch
	if len(changed.ids) > 0 {
		send.Queue(closeInSlicesSQL, changed.ports, changed.ids, changed.tokens, changed.closed)
	}
	if len(done.ids) > 0 {
		send.Queue(deleteSlicesSQL, done.ports, done.ids)
	}
	if err := tx.SendBatch(ctx, &send).Close(); err != nil {
		return fmt.Errorf("ledger: end holds of slices: %w", err)
	}
	return nil
}

// Hold names a reservation of a port.
type Hold struct {
	PortID        string
	ReservationID string
}

// Release gives holds back and reports, for each, whether there was one: a hold
// that is unknown, foreign, settled or already given back frees nothing.
func (l *Ledger) Release(ctx context.Context, holds []Hold) (released []bool, err error) {
	released = make([]bool, len(holds))
	var e endings
	for i, h := range holds {
		if id, err := uuid.Parse(h.ReservationID); err == nil {
			holds[i].ReservationID = id.String() // however it was written
		}
		e.add(holds[i])
	}
	err = pgx.BeginFunc(ctx, l.reservePool, func(tx pgx.Tx) error {
		var send pgx.Batch
		e.queue(&send)
		if err := tx.SendBatch(ctx, &send).Close(); err != nil {
			return err
		}
		return e.closeInSlices(ctx, tx)
	})
	if err != nil {
		return nil, fmt.Errorf("ledger: release: %w", err)
	}
	for i, h := range holds {
		released[i] = e.ended[h]
		delete(e.ended, h) // named twice at once: given back once
	}
	return released, nil
}
