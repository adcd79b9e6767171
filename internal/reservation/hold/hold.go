// Package hold knows the rows of holds and leases in Postgres: what they say, whose calls they
// are for, and how they end. Who may have one is decided by package reservation.
//
// A hold has a row of its own, or is made from a lease, of which a gate has an [Open] one in
// memory. [End] ends holds in the transaction that books what their calls used, [Store.Release]
// without a booking, and [Store.Sweep] removes those that expired.
//
// The tables call a lease a slice.
package hold

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
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
	holdInsertSQL = statement("hold_insert")
	standingsSQL  = statement("standings")
)

// Store has the rows. It is safe for concurrent use.
type Store struct {
	pool    *pgxpool.Pool
	patient *pgxpool.Pool

	reading sync.Mutex
	seen    leasesSeen // when calls under way were last read
}

// NewStore returns a store. Reservations have pool to themselves, so that nothing delays
// them; patient is for what may take longer.
func NewStore(pool, patient *pgxpool.Pool) *Store { return &Store{pool: pool, patient: patient} }

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

// New are holds to be inserted.
type New struct {
	ports, services, features, keys []string
	asked, calls                    []*string
	ids                             []uuid.UUID
	tokens                          []int64
	created, expires                []time.Time
}

// Add adds one. asked is what a retry with its idempotency key must ask for again.
func (n *New) Add(q *events.ReserveRequest, call *budget.Call, id uuid.UUID, created, expires time.Time, asked *string) {
	n.ports = append(n.ports, q.PortID)
	n.ids = append(n.ids, id)
	n.tokens = append(n.tokens, call.Tokens)
	n.calls = append(n.calls, writeCall(call))
	n.created = append(n.created, created)
	n.expires = append(n.expires, expires)
	n.services = append(n.services, q.Service)
	n.features = append(n.features, q.Feature)
	n.keys = append(n.keys, q.IdempotencyKey)
	n.asked = append(n.asked, asked)
}

// Insert inserts them, if there are any.
func (n *New) Insert(b *pgx.Batch) {
	if len(n.ids) > 0 {
		b.Queue(holdInsertSQL, n.ports, n.ids, n.tokens, n.created, n.expires, n.services, n.features, n.keys, n.asked, n.calls)
	}
}

// heldCall is what a hold's row says of its call, beside feature and tokens.
type heldCall struct {
	budget.Labels
	Input  int64 `json:"input,omitempty"`
	Output int64 `json:"output,omitempty"`
}

// writeCall is what a hold's row says of a call; nil: nothing.
func writeCall(c *budget.Call) *string {
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

func readCall(feature string, tokens int64, text []byte) (budget.Call, error) {
	var h heldCall
	if text != nil {
		if err := json.Unmarshal(text, &h); err != nil {
			return budget.Call{}, err
		}
	}
	h.Feature = feature
	return budget.Call{Labels: h.Labels, Estimate: budget.Estimate{Tokens: tokens, Input: h.Input, Output: h.Output}}, nil
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
	var st Standing
	err = s.readAll(ctx, standingsSQL, nil, func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, []any{&st.At, &st.PortID, &st.Held}, func() error {
			at = st.At
			if st.Held > 0 {
				list = append(list, st)
			}
			return nil
		})
		return err
	})
	if err != nil {
		return nil, at, fmt.Errorf("reservation: read holds: %w", err)
	}
	return list, at, nil
}

// all begins a transaction that reads everything. The pool's sessions are told to look up by key (ledger.keyed):
// to join all that is held so is to compare each port with each.
var all = pgx.TxOptions{BeginQuery: "begin read only; set local enable_seqscan = on; set local enable_hashjoin = on; set local enable_mergejoin = on"}

// readAll reads by a statement that looks at everything that is held. It is planned anew each time: a
// plan may have been made while that was nothing.
func (s *Store) readAll(ctx context.Context, sql string, args []any, read func(pgx.Rows) error) error {
	return pgx.BeginTxFunc(ctx, s.pool, all, func(tx pgx.Tx) error {
		rows, _ := tx.Query(ctx, sql, append([]any{pgx.QueryExecModeCacheDescribe}, args...)...)
		return read(rows)
	})
}

// Lock serialises the reservations of ports, and the changes of their budgets, until the
// transaction ends.
func Lock(b *pgx.Batch, ports ...string) {
	b.Queue("select pg_advisory_xact_lock(k) from unnest($1::bigint[]) k", PortLocks(ports...))
}

// PortLocks are the advisory locks of [Lock]. Two ports that share one by chance only wait for each other.
func PortLocks(ports ...string) []int64 {
	keys := make([]int64, len(ports))
	for i, port := range ports {
		h := fnv.New64a()
		_, _ = h.Write([]byte(port))
		keys[i] = int64(h.Sum64())
	}
	slices.Sort(keys) // two gates take theirs in the same order
	return keys
}
