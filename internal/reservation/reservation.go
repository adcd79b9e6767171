// Package reservation holds tokens of ports' budgets for calls under way, so that no
// number of callers and gates can spend the same tokens.
//
// Postgres decides. [Store.Hold] makes holds in a transaction that has their ports to
// itself. A port that is asked often is served from leases: a gate is granted tokens of the
// port's headroom, as a hold would be, and its [Broker] makes holds from them in memory.
// [End] ends holds in the transaction that books what their calls used, [Store.Release]
// without a booking, and [Store.Sweep] removes those that expired.
//
// The tables call a lease a slice.
package reservation

import (
	"context"
	"embed"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

//go:embed sql
var statements embed.FS

func statement(name string) string {
	text, err := statements.ReadFile("sql/" + name + ".sql")
	if err != nil {
		panic(err) // it is embedded
	}
	return string(text)
}

var (
	sweepSQL     = statement("sweep")
	standingsSQL = statement("standings")
)

// Store is the part of reservations that lies in Postgres. It is safe for concurrent use.
type Store struct {
	pool     *pgxpool.Pool
	patient  *pgxpool.Pool
	register func(ctx context.Context, ports []string) error

	reading sync.Mutex
	seen    leasesSeen // when calls under way were last read
}

// NewStore returns a store. Reservations have pool to themselves, so that nothing delays
// them; patient is for what may take longer. register makes ports known, if need be,
// before tokens of theirs are held.
func NewStore(pool, patient *pgxpool.Pool, register func(ctx context.Context, ports []string) error) *Store {
	return &Store{pool: pool, patient: patient, register: register}
}

// ID names a hold, as whoever has it got it.
type ID struct {
	PortID        string
	ReservationID string
}

// key is a row's primary key.
type key struct {
	port string
	id   uuid.UUID
}

// Standing is what a port's reservations add up to, at a moment of the database's clock.
type Standing struct {
	PortID string
	Held   int64
	At     time.Time
}

// Standings lists every port that has live holds in the current period of its
// budget, and the moment, by the database's clock, at which that was so.
func (s *Store) Standings(ctx context.Context) (list []Standing, at time.Time, err error) {
	rows, err := s.pool.Query(ctx, standingsSQL)
	if err != nil {
		return nil, at, fmt.Errorf("reservation: read holds: %w", err)
	}
	var st Standing
	_, err = pgx.ForEachRow(rows, []any{&st.At, &st.PortID, &st.Held}, func() error {
		at = st.At.UTC()
		if st.Held > 0 {
			list = append(list, st)
		}
		return nil
	})
	if err != nil {
		return nil, at, fmt.Errorf("reservation: read holds: %w", err)
	}
	return list, at, nil
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
