package ledger_test

import (
	"hash/fnv"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/reservation/hold"
)

// A gate that lost the connection during its commit gives back what it may have been
// granted. The commit may still be on its way: only then is the slice gone for good.
func TestADoubtfulLeaseIsGivenBackWheneverItsCommitComes(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	for _, commits := range []bool{true, false} {
		id := events.NewUUIDv7(noon)
		h := fnv.New64a()
		_, _ = h.Write([]byte("p1"))
		tx, err := s.db.Begin(t.Context()) // as that of a reservation that nobody hears of any more
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), "select pg_advisory_xact_lock($1)", int64(h.Sum64())); err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), `insert into ai_budget_slices (port_id, id, tokens, closed, secret, created_at, leased_until, expires_at)
			values ('p1', $1, 100, '\x00', '\x00', now(), now() + interval '10 s', now() + interval '300 s')`, id); err != nil {
			t.Fatal(err)
		}
		sealed := make(chan []uuid.UUID, 1)
		go func() {
			done, err := s.Reservations.Return(t.Context(), []hold.Returned{{PortID: "p1", ID: id, Doubtful: true}})
			if err != nil {
				t.Error(err)
			}
			sealed <- idsOf(done)
		}()
		select {
		case ids := <-sealed:
			t.Fatalf("sealed %v while the commit may still come", ids)
		case <-time.After(200 * time.Millisecond):
		}
		if commits {
			err = tx.Commit(t.Context())
		} else {
			err = tx.Rollback(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		if ids := <-sealed; len(ids) != 1 || ids[0] != id {
			t.Errorf("committed %v: sealed %v, want %v", commits, ids, id)
		}
		var held int64
		if err := s.db.QueryRow(t.Context(), "select coalesce(sum(tokens), 0)::bigint from ai_held_tokens where port_id = 'p1'").Scan(&held); err != nil || held != 0 {
			t.Errorf("committed %v: %d held, %v", commits, held, err)
		}
	}
}
