package ledger_test

import (
	"context"
	"testing"
	"time"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/reservation"
	"github.com/tidegate/tidegate/internal/reservation/hold"
	"github.com/tidegate/tidegate/ledger"
)

// A process that starts on an empty database, or after an autovacuum at a quiet
// moment, keeps its plans while the tables grow. They must look rows up by key, then
// as before: what is read must not depend on how much there is.
func TestPlansMadeOnSmallTablesStayKeyed(t *testing.T) {
	for when, sql := range map[string]string{
		"empty": "select",
		"vacuumed with one row": `insert into ai_budget_holds (port_id, id, tokens, created_at, expires_at) values ('p2', gen_random_uuid(), 1, now(), now() + interval '1 hour');
			insert into ai_budget_slices (port_id, id, tokens, closed, secret, created_at, leased_until, expires_at)
				values ('p2', gen_random_uuid(), 1, '\x00', '\x00', now(), now(), now() + interval '1 hour');
			insert into ports (id) values ('p2');
			insert into ai_usage_port_days values ('p2', '2026-11-23', 1, 1);
			insert into ai_usage_totals values ('p2', '2026-11-23', 'f', 'p', 'm', 1, 1, 0, 1, 0, 0, 0)`,
	} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			if _, err := s.db.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
			if when != "empty" {
				if _, err := s.db.Exec(t.Context(), "vacuum analyze ai_budget_holds, ai_budget_slices, ai_usage_port_days, ai_usage_totals"); err != nil {
					t.Fatal(err)
				}
			}
			plansStayKeyed(t, s)
		})
	}
}

func plansStayKeyed(t *testing.T, s store) {
	// Before there are any plans: a change of the table would have them made again.
	if _, err := s.db.Exec(t.Context(), "alter table ai_budget_holds set (autovacuum_enabled = off); alter table ai_budget_slices set (autovacuum_enabled = off); alter table ai_usage_port_days set (autovacuum_enabled = off); alter table ai_usage_totals set (autovacuum_enabled = off)"); err != nil {
		t.Fatal(err)
	}
	l := open(t, s.url)
	at := noon
	granted := &lease{}
	batch := func(n int) (entries []ledger.Entry) {
		for i := range n {
			at = at.Add(time.Millisecond)
			e := call("p1", at)
			e.Usage.ReservationID = events.NewUUIDv7(noon).String()
			if i%2 == 1 {
				e.Usage.ReservationID = granted.hold(1)
			}
			entries = append(entries, e)
		}
		return entries
	}
	first := batch(100)
	use := func() {
		for range 8 { // every connection of the pools, and more often than Postgres waits for a generic plan
			r, err := l.Reservations.Hold(t.Context(), []events.ReserveRequest{{PortID: "p1", EstimatedTokens: 1, IdempotencyKey: events.NewUUIDv7(noon).String()}},
				[]reservation.Want{ask("p1", func(w *reservation.Want) { w.Holds = 400 }), ask("p1")})
			if err != nil {
				t.Fatal(err)
			}
			granted = &lease{r.Leases[0], hold.Returned{PortID: "p1", ID: r.Leases[0].ID}}
			if _, err := l.Book(t.Context(), first); err != nil { // known but for the first time
				t.Fatal(err)
			}
			if _, err := l.Book(t.Context(), batch(100)); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Reservations.Release(t.Context(), []hold.ID{{PortID: "p1", ReservationID: events.NewUUIDv7(noon).String()},
				{PortID: "p1", ReservationID: granted.hold(1)}}); err != nil {
				t.Fatal(err)
			}
			granted.hold(1) // and this one stays
			// One with a hold that stays, and one that has none.
			if _, err := l.Reservations.Return(t.Context(), []hold.Returned{granted.made, {PortID: "p1", ID: r.Leases[1].ID}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	use()
	// Fill the tables, without letting Postgres know by an analyze.
	for _, sql := range []string{
		`insert into ai_usage_ledger (created_at, id, port_id, feature, provider, model)
			select (select max(created_at) from ai_usage_ledger) + interval '1 hour' + n * interval '1 ms', gen_random_uuid(), 'p' || n % 2 + 1, 'f', 'p', 'm' from generate_series(1, 20000) n`,
		`insert into ai_budget_holds (port_id, id, tokens, created_at, expires_at)
			select 'p' || n % 50 + 2, gen_random_uuid(), 1, now(), now() + interval '1 hour' from generate_series(1, 20000) n`,
		`insert into ai_budget_slices (port_id, id, tokens, closed, secret, created_at, leased_until, expires_at)
			select 'p' || n % 50 + 2, gen_random_uuid(), 1, '\x00', '\x00', now(), now(), now() + interval '1 hour' from generate_series(1, 20000) n`,
		`insert into ports (id) select 'q' || n from generate_series(1, 7000) n`,
		`insert into ai_usage_port_days select 'q' || n, '2026-11-23', 1, 1 from generate_series(1, 7000) n`,
		`insert into ai_usage_totals select 'q' || n, '2026-11-23', 'f', 'p', 'm', 1, 1, 0, 1, 0, 0, 0 from generate_series(1, 7000) n`,
	} {
		if _, err := s.db.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	before := s.read(t)
	use()
	l.Close() // its sessions tell what they read when they end
	time.Sleep(100 * time.Millisecond)
	if read := s.read(t) - before; read > 10_000 {
		t.Errorf("16 batches of 100 and 8 slices read %d rows of tables that hold 74,000 others: some statement reads them all", read)
	}
}

// read is how many rows and index entries of the big tables were ever read.
func (s store) read(t testing.TB) (n int64) {
	t.Helper()
	conn, err := s.db.Acquire(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	for _, sql := range []string{"select pg_stat_force_next_flush()", "select pg_stat_clear_snapshot()"} {
		if _, err := conn.Exec(context.Background(), sql); err != nil {
			t.Fatal(err)
		}
	}
	err = conn.QueryRow(context.Background(), `select (select coalesce(sum(seq_tup_read), 0) from pg_stat_user_tables where relname ~ '^ai_(usage_(ledger|port_days|totals)|budget_(holds|slices))')
		+ (select coalesce(sum(idx_tup_read), 0) from pg_stat_user_indexes where relname ~ '^ai_(usage_(ledger|port_days|totals)|budget_(holds|slices))')`).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
