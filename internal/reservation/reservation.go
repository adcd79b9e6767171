// Package reservation decides in Postgres which calls may hold tokens of ports' budgets, so that no
// number of callers and gates can spend the same tokens.
//
// [Store.Hold] makes holds in a transaction that has their ports to itself, and grants leases to
// gates, which make holds from them in memory: package broker. What holds and leases are in Postgres,
// and how they end, is in package hold.
package reservation

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidegate/tidegate/internal/reservation/hold"
)

// Store decides reservations, and has their holds. It is safe for concurrent use.
type Store struct {
	*hold.Store
	pool     *pgxpool.Pool
	register func(ctx context.Context, ports []string) error
}

// NewStore returns a store; see [hold.NewStore]. register makes ports known, if need be,
// before tokens of theirs are held.
func NewStore(pool, patient *pgxpool.Pool, register func(ctx context.Context, ports []string) error) *Store {
	return &Store{hold.NewStore(pool, patient), pool, register}
}
