package ledger

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
)

//go:embed sql/grant_slices.sql
var grantSlicesSQL string

//go:embed sql/lock_free_slices.sql
var lockFreeSlicesSQL string

//go:embed sql/seal_slices.sql
var sealSlicesSQL string

//go:embed sql/sweep_slices.sql
var sweepSlicesSQL string

// Slice is a part of a port's headroom, leased to one gate: it may make holds of
// Tokens in all from it, in memory, until Until. Tokens that become a hold never
// come back to the slice. When a hold ends they come back to the port; what has
// not become a hold does so when the gate seals the slice. A slice whose gate was
// killed counts as held, whole, until it expires.
type Slice struct {
	PortID  string
	ID      uuid.UUID
	TTL     time.Duration // a hold made while the slice is leased lives for at least that long
	Version int64         // of the budget it was granted under
	Tokens  int64
	Holds   int       // how many holds may be made
	Created time.Time // this and the following by the database's clock
	Until   time.Time
	Expires time.Time // every hold's

	secret []byte // signs the ids of its holds
}

// Want asks for a slice. None is granted where that would take much of what is
// left, and what is granted may be less.
type Want struct {
	PortID        string
	TTL           time.Duration // of the holds
	Lease         time.Duration // for how long holds will be made
	Tokens, Least int64         // a slice of fewer than Least, which is more than 0, is of no use
	Holds         int
}

// MaxSliceHolds bounds [Want.Holds].
const MaxSliceHolds = 4096

// sliceShare is the part of what is left under the hard cap that a slice may take.
const sliceShare = 8

// leaseGrace is how long after the end of a lease its gate may take to seal the
// slice. One that is still open then has lost its gate.
const leaseGrace = time.Second

type sliceRows struct {
	ports                   []string
	ids                     []uuid.UUID
	tokens                  []int64
	bytes                   []int32
	secrets                 [][]byte
	created, until, expires []time.Time
}

// grant gives a want what it may have. It comes after the requests: a slice is for
// those to come.
func (r *reserving) grant(w *Want) {
	s, ok := r.states[w.PortID]
	if !ok {
		return
	}
	tokens := w.Tokens
	if s.budget.Enabled && s.budget.HardCapTokens != nil {
		tokens = min(tokens, (*s.budget.HardCapTokens-s.used-s.held)/sliceShare)
	}
	// A hold counts in the period it was made in, and periods end with a day.
	until := s.now.Add(w.Lease)
	if midnight := (DayOf(s.now) + 1).Time(); midnight.Before(until) {
		until = midnight
	}
	if tokens < w.Least || until.Sub(s.now) < w.Lease/4 {
		return
	}
	slice := Slice{
		PortID: w.PortID, ID: events.NewUUIDv7(s.now), TTL: w.TTL, Version: s.budget.Version, Tokens: tokens, Holds: min(w.Holds, MaxSliceHolds),
		Created: s.now, Until: until, Expires: until.Add(w.TTL), secret: make([]byte, 16),
	}
	_, _ = rand.Read(slice.secret)
	s.held += tokens
	r.slices = append(r.slices, slice)
	g := &r.grants
	g.ports, g.ids, g.tokens = append(g.ports, slice.PortID), append(g.ids, slice.ID), append(g.tokens, tokens)
	g.bytes, g.secrets = append(g.bytes, int32(slice.Holds+7)/8), append(g.secrets, slice.secret)
	g.created, g.until, g.expires = append(g.created, s.now), append(g.until, until), append(g.expires, slice.Expires)
}

// Sealed says what a gate has made of a slice. It makes no more.
type Sealed struct {
	PortID string
	ID     uuid.UUID
	Tokens int64        // of all the holds
	Labels [][2]string  // service, feature
	Holds  []SlicedHold // in the order in which they were made
	// Doubtful: nobody knows whether it was granted. Its port is locked first, which the
	// transaction that may have granted it did too: by then that one has ended.
	Doubtful bool
}

// SlicedHold is one hold of a slice.
type SlicedHold struct {
	Label  int // index of its labels
	Tokens int64
}

// FinishSlices removes those slices of which every hold has ended, and returns
// them. It passes over those that a booking is busy with.
func (l *Ledger) FinishSlices(ctx context.Context, list []Sealed) ([]uuid.UUID, error) {
	return l.endSlices(ctx, list, false)
}

// SealSlices gives back what has not become a hold, and writes down what has, so
// that it can be listed. It returns those that it sealed or removed, or that are gone;
// it passes over those that a booking is busy with.
func (l *Ledger) SealSlices(ctx context.Context, list []Sealed) ([]uuid.UUID, error) {
	return l.endSlices(ctx, list, true)
}

func (l *Ledger) endSlices(ctx context.Context, list []Sealed, seal bool) (done []uuid.UUID, err error) {
	byKey := make(map[rowKey]*Sealed, len(list))
	var all, finished, sealed struct {
		ports  []string
		ids    []uuid.UUID
		tokens []int64
		holds  []string
	}
	var doubtful []string
	for i := range list {
		s := &list[i]
		byKey[rowKey{s.PortID, s.ID}] = s
		all.ports, all.ids = append(all.ports, s.PortID), append(all.ids, s.ID)
		if s.Doubtful {
			doubtful = append(doubtful, s.PortID)
		}
	}
	err = pgx.BeginFunc(ctx, l.reservePool, func(tx pgx.Tx) error {
		if len(doubtful) > 0 {
			if _, err := tx.Exec(ctx, lockPortsSQL, lockKeys(doubtful)); err != nil {
				return err
			}
		}
		rows, err := tx.Query(ctx, lockFreeSlicesSQL, all.ports, all.ids)
		if err != nil {
			return err
		}
		var k rowKey
		var closed *int64
		var gone bool
		_, err = pgx.ForEachRow(rows, []any{&k.port, &k.id, &closed, &gone}, func() error {
			s := byKey[k]
			switch {
			case gone:
				done = append(done, k.id)
			case closed == nil: // somebody is busy with it
			case *closed == s.Tokens:
				finished.ports, finished.ids = append(finished.ports, k.port), append(finished.ids, k.id)
			case seal:
				holds, err := s.encode()
				if err != nil {
					return err
				}
				sealed.ports, sealed.ids = append(sealed.ports, k.port), append(sealed.ids, k.id)
				sealed.tokens, sealed.holds = append(sealed.tokens, s.Tokens), append(sealed.holds, holds)
			}
			return nil
		})
		if err != nil {
			return err
		}
		var send pgx.Batch
		if len(finished.ids) > 0 {
			send.Queue(deleteSlicesSQL, finished.ports, finished.ids)
		}
		if len(sealed.ids) > 0 {
			send.Queue(sealSlicesSQL, sealed.ports, sealed.ids, sealed.tokens, sealed.holds)
		}
		return tx.SendBatch(ctx, &send).Close()
	})
	if err != nil {
		return nil, fmt.Errorf("ledger: seal slices: %w", err)
	}
	return slices.Concat(done, finished.ids, sealed.ids), nil
}

// encode lists the holds as the column of that name has them.
func (s *Sealed) encode() (string, error) {
	var stored struct {
		Labels [][2]string `json:"labels"`
		Holds  [][2]int64  `json:"holds"`
	}
	stored.Labels, stored.Holds = s.Labels, make([][2]int64, len(s.Holds))
	for n, h := range s.Holds {
		stored.Holds[n] = [2]int64{int64(h.Label), h.Tokens}
	}
	body, err := json.Marshal(stored)
	return string(body), err
}

// awaitLeases returns once no gate makes holds of the port by a budget older than b:
// those that heard of it have sealed their slices.
// One that was killed cannot seal its slices, nor make holds: the wait ends with an
// error after a second.
func (l *Ledger) awaitLeases(ctx context.Context, port string, b budget.Budget) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for {
		var leased bool
		err := l.pool.QueryRow(ctx, `select exists (select from ai_budget_slices
			where port_id = $1 and holds is null and created_at <= $2 and leased_until > clock_timestamp())`, port, b.UpdatedAt).Scan(&leased)
		if err != nil {
			return fmt.Errorf("ledger: wait for leases of %s: %w", port, err)
		}
		if !leased {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("ledger: wait for leases of %s: a gate has not given its slice back: %w", port, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}
