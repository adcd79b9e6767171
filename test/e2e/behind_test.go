package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/consumer"
	"github.com/tidegate/tidegate/consumer/stream"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/gate"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

// snapshot is a copy of a system's database, taken while the system runs.
type snapshot struct {
	admin    *pgx.Conn
	database string
}

func (s *system) snapshot() *snapshot {
	s.t.Helper()
	cfg := s.db.Config().ConnConfig.Copy()
	snap := &snapshot{database: cfg.Database}
	cfg.Database = "postgres"
	snap.admin = testenv.Must(pgx.ConnectConfig(s.t.Context(), cfg))
	s.t.Cleanup(func() {
		_, _ = snap.admin.Exec(context.Background(), fmt.Sprintf("drop database if exists %q with (force)", snap.copy()))
		_ = snap.admin.Close(context.Background())
	})
	snap.alone(s.t, fmt.Sprintf("create database %q template %q", snap.copy(), snap.database))
	s.reconnected()
	return snap
}

// reconnected waits until nobody in this process uses a connection that was ended.
func (s *system) reconnected() {
	s.t.Helper()
	s.db.Reset()
	for range 3 { // each pool has a few
		testenv.Eventually(s.t, "operators are answered again", func() bool {
			_, err := s.ledger.Verify(s.t.Context(), time.Now(), nil)
			return err == nil
		})
	}
}

func (n *snapshot) copy() string { return n.database + "_copy" }

// alone runs statements while nobody is connected to the database.
func (n *snapshot) alone(t testing.TB, statements ...string) {
	t.Helper()
	run := func(sql string) {
		if _, err := n.admin.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	run(fmt.Sprintf("alter database %q allow_connections false", n.database))
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		var left int
		if err := n.admin.QueryRow(t.Context(), "select count(*) from (select pg_terminate_backend(pid) from pg_stat_activity where datname = $1) x", n.database).Scan(&left); err != nil {
			t.Fatal(err)
		}
		if left == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections do not end", left)
		}
	}
	for _, sql := range statements {
		run(sql)
	}
	run(fmt.Sprintf("alter database %q allow_connections true", n.database))
}

// restore puts the database back to the copy. Nobody books again what it lacks for a
// while, so that a test can look at it.
func (n *snapshot) restore(t testing.TB, pause time.Duration) {
	t.Helper()
	cfg := n.admin.Config().Copy()
	cfg.Database = n.copy()
	conn := testenv.Must(pgx.ConnectConfig(t.Context(), cfg))
	if _, err := conn.Exec(t.Context(), "update ai_usage_streams set rebooking_by = gen_random_uuid(), rebooking_until = now() + $1::interval", pause.String()); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close(t.Context())
	n.alone(t, fmt.Sprintf("drop database %q", n.database), fmt.Sprintf("alter database %q rename to %q", n.copy(), n.database))
}

// A copy of ten minutes ago is put back under a running system, as after a failover to a
// standby that lagged. What the stream had acknowledged since is noticed and booked again.
func TestALedgerPutBackToAnOlderCopyIsNoticed(t *testing.T) {
	t.Parallel()
	s := start(t, options{consumer: func(c *consumer.Config) { c.BatchSize = 200 }})
	// A window that is over, as it is when a copy of some time ago is put back.
	window := testenv.Must(s.js.Stream(t.Context(), events.QuarantineStream)).CachedInfo().Config
	window.Duplicates = 100 * time.Millisecond
	testenv.Must(s.js.UpdateStream(t.Context(), window))
	s.setBudget("p1", -1, 1_000, events.PeriodMonth)
	s.spend("p1", 100, time.Now())
	s.publishRaw("ai.usage.p1", `{"feature":"bad"}`)
	testenv.Eventually(s.t, "it is quarantined", func() bool { return len(s.quarantined()) == 1 })
	copied := s.snapshot()
	for port, hard := range map[string]int64{"p1": 900, "p3": 5} {
		testenv.Eventually(s.t, "a budget is stored: the snapshot has ended the connections", func() bool {
			_, err := s.client.Change(s.t.Context(), port, func(b *events.Budget) {
				b.Enabled, b.HardCapTokens, b.Period = true, &hard, events.PeriodMonth
			})
			return err == nil
		})
	}
	s.spend("p1", 1_500, time.Now())
	for i := range 1_000 {
		s.publisher.Record(usage(fmt.Sprintf("q%d", i%7), 3))
	}
	s.publishRaw("ai.usage.p1", `{"feature":"worse"}`)
	testenv.Eventually(s.t, "all are booked", func() bool { return s.rows() == 1_002 && len(s.quarantined()) == 2 })
	testenv.Eventually(s.t, "all are acknowledged", func() bool { return s.waiting() == 0 })
	if v := s.check("p1", 1); v.Allowed {
		t.Fatalf("%+v, want a refusal: 1,600 of 900 are used", v)
	}

	copied.restore(t, 4*time.Second)
	s.reconnected()
	testenv.Eventually(s.t, "the consumer says that the ledger is behind", func() bool {
		behind := (*stream.BehindError)(nil)
		return errors.As(s.consumer.Health(), &behind) && behind.Missing() > 0
	})
	testenv.Eventually(s.t, "answers do not call themselves fresh: as_of stands still", func() bool {
		before := s.check("p1", 1).AsOf
		time.Sleep(600 * time.Millisecond) // while all is well it moves every 250 ms
		return s.check("p1", 1).AsOf.Equal(before)
	})
	testenv.Eventually(s.t, "nothing is held of a port with a hard cap: what it has used is not known", func() bool {
		r, err := s.client.Reserve(t.Context(), events.ReserveRequest{PortID: "p1", EstimatedTokens: 1})
		_ = r.Release(t.Context()) // the gate did not know yet
		return errors.Is(err, events.ErrUnavailable) && strings.Contains(err.Error(), "behind")
	})
	testenv.Eventually(s.t, "verify says that the ledger is behind", func() bool {
		v, err := s.ops.Verify(t.Context(), nil)
		return err == nil && !v.OK && v.Behind > 0
	})
	s.publisher.Record(usage("p2", 9)) // meanwhile

	testenv.Eventually(s.t, "everything is booked again", func() bool { return s.rows() == 1_003 && s.consumer.Health() == nil })
	if got := s.booked("p1"); got != 1_600 {
		t.Errorf("p1 has %d tokens, want 1,600", got)
	}
	testenv.Eventually(s.t, "everything agrees, and answers are fresh", func() bool {
		return s.verified() && time.Since(s.check("p1", 1).AsOf) < 2*time.Second
	})
	if v := s.check("p1", 1); v.Allowed || v.UsedTokens != 1_600 {
		t.Errorf("%+v, want a refusal at 1,600", v)
	}
	for port, want := range map[string][2]int64{"p1": {900, 2}, "p3": {5, 1}} {
		if b, err := s.client.Get(t.Context(), port); err != nil || *b.HardCapTokens != want[0] || b.Version != want[1] {
			t.Errorf("the budget of %s is %+v, %v, want a hard cap of %d, version %d: the copy lacked it", port, b, err, want[0], want[1])
		}
	}
	if got := len(s.quarantined()); got != 2 {
		t.Errorf("%d events are quarantined, want the same 2", got)
	}
}

// While the ledger lacks something, no gate holds tokens of a port with a hard cap, neither in
// Postgres nor from what it has leased, and afterwards nothing from what it had leased before.
func TestNothingIsHeldWhileTheLedgerIsBehind(t *testing.T) {
	t.Parallel()
	s := start(t, options{gates: -1})
	behind := atomic.Pointer[stream.BehindError]{}
	g := testenv.Must(gate.New(gate.Config{Conn: testenv.Connect(t, s.nats), Ledger: s.ledger, MaxStale: -1, Behind: func() error {
		if err := behind.Load(); err != nil {
			return err
		}
		return nil
	}}))
	s.background(g.Run)
	testenv.Await(t, "the gate is ready", g.Ready())
	s.setBudget("capped", -1, 1_000_000, events.PeriodMonth)
	s.setBudget("warned", 1_000, -1, events.PeriodMonth)
	s.heat("warned", 1)
	var stale *events.Reservation
	var leased uuid.UUID
	testenv.Eventually(s.t, "a hold is of a slice", func() (sliced bool) { // which is given back when nobody uses it for two seconds
		s.heat("capped", 1)
		stale = s.reserve(events.ReserveRequest{PortID: "capped", Feature: "ocr", EstimatedTokens: 1})
		leased, sliced = sliceOf(stale.ReservationID)
		return sliced
	})

	behind.Store(&stream.BehindError{Position: stream.Position{Acknowledged: 9, Through: 5}})
	for _, key := range []string{"", "a"} {
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		r, err := s.client.Reserve(ctx, events.ReserveRequest{PortID: "capped", EstimatedTokens: 1, IdempotencyKey: key})
		cancel()
		if !errors.Is(err, events.ErrUnavailable) || !strings.Contains(err.Error(), "the ledger is behind its stream") || r.Allowed {
			t.Errorf("with the key %q: %+v, %v after %s, want that it is unavailable because the ledger is behind", key, r.Verdict, err, time.Since(began))
		}
		s.reserve(events.ReserveRequest{PortID: "warned", EstimatedTokens: 1, IdempotencyKey: key})
		s.reserve(events.ReserveRequest{PortID: "unlimited", EstimatedTokens: 1, IdempotencyKey: key})
	}
	for range 30 { // a second: a slice that nobody uses is given back after two
		var open int
		if s.db.QueryRow(t.Context(), "select count(*) from ai_budget_slices where holds is null").Scan(&open) == nil && open == 0 {
			break
		}
		time.Sleep(30 * time.Millisecond)
	}
	behind.Store(nil)
	for range 20 {
		r := s.reserve(events.ReserveRequest{PortID: "capped", Feature: "ocr", EstimatedTokens: 1})
		if id, sliced := sliceOf(r.ReservationID); !r.Allowed || sliced && id == leased {
			t.Fatalf("%+v, want a hold, and none of what was leased before", r.Verdict)
		}
	}
	if err := stale.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

// The copy is put back while nothing runs: the next start notices it by itself, and its
// gate does not answer before everything is booked again.
func TestALedgerPutBackBeforeTheStart(t *testing.T) {
	t.Parallel()
	s := start(t, options{noRoles: true})
	binary := testenv.Binary(t, "cmd/tidegate")
	args := []string{"--nats-url", s.nats.ClientURL(), "--database-url", s.url}
	p := spawn(t, binary, nil, args...)
	p.awaitReady()
	s.setBudget("p1", -1, 1_000, events.PeriodMonth)
	s.spend("p1", 100, time.Now())
	copied := s.snapshot()
	p.awaitReady()
	for range 4 { // its pools have a few connections that were ended
		testenv.Eventually(s.t, "operators are answered again", func() bool {
			_, err := s.ops.Verify(s.t.Context(), nil)
			return err == nil
		})
	}
	s.spend("p1", 1_500, time.Now())
	testenv.Eventually(s.t, "all is acknowledged", func() bool { return s.waiting() == 0 })
	p.signal(9)
	p.wait(10 * time.Second)
	copied.restore(t, 2*time.Second)
	s.reconnected()

	again := spawn(t, binary, nil, args...)
	testenv.Eventually(s.t, "it is not ready and says why", func() bool { return strings.Contains(again.readiness(), "the ledger is behind its stream") })
	// It may have caught up since it said so, then it answers: with all that is spent.
	if r, err := s.client.Check(t.Context(), events.CheckRequest{PortID: "p1", EstimatedTokens: 1}); err == nil && (r.Allowed || r.UsedTokens != 1_600) {
		t.Errorf("a gate answers %+v while the ledger is behind", r)
	}
	again.awaitReady()
	if v := s.check("p1", 1); v.Allowed || v.UsedTokens != 1_600 {
		t.Errorf("%+v, want a refusal at 1,600", v)
	}
	// By hand, of what is there: nothing changes.
	if out, code := tidegate(t, binary, s.nats.ClientURL(), "rebook", "--json"); code != 0 || !strings.Contains(out, `"messages": 2`) {
		t.Errorf("rebook: exit %d, %s", code, out)
	}
	if got := s.booked("p1"); got != 1_600 || !s.verified() {
		t.Errorf("p1 has %d tokens after a rebook, want 1,600", got)
	}
}

// Two installations on one NATS would share its events between them.
func TestAnotherLedgersStreamIsRefused(t *testing.T) {
	t.Parallel()
	s := start(t, options{noRoles: true})
	owner := s.runConsumer(s.ledger)
	s.publisher.Record(usage("p1", 100))
	testenv.Eventually(s.t, "the owner books", func() bool { return s.rows() == 1 })
	other := testenv.Database(t)
	l := testenv.Must(ledger.Open(t.Context(), ledger.Config{URL: other}))
	t.Cleanup(l.Close)
	conn := testenv.Must(pgx.Connect(t.Context(), other))
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "update ai_ledger set id = gen_random_uuid()"); err != nil { // tests' databases are copies of one
		t.Fatal(err)
	}
	ours, theirs := testenv.Must(s.ledger.ID(t.Context())).String(), testenv.Must(l.ID(t.Context())).String()
	binary := testenv.Binary(t, "cmd/tidegate")
	for _, role := range []string{"consumer", "gate", "admin", "edge"} {
		p := spawn(t, binary, nil, "--nats-url", s.nats.ClientURL(), "--database-url", other, "--roles", role)
		if !p.wait(30 * time.Second) {
			t.Fatalf("the role %s runs on another ledger's stream", role)
		}
		if out := p.out.String(); p.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(out, ours) || !strings.Contains(out, theirs) || !strings.Contains(out, "--adopt-streams") {
			t.Errorf("%s: exit %d, want 1 and both ledgers named:\n%s", role, p.cmd.ProcessState.ExitCode(), out)
		}
	}
	s.publisher.Record(usage("p1", 100))
	testenv.Eventually(s.t, "the owner is undisturbed", func() bool { return s.rows() == 2 })

	// The owner is gone for good, it is said: another ledger takes the stream over, with all
	// that it holds. Should the owner run all the same, it stops.
	adopting := spawn(t, binary, nil, "--nats-url", s.nats.ClientURL(), "--database-url", other, "--adopt-streams")
	adopting.awaitReady()
	foreign := (*stream.ForeignError)(nil)
	if err := testenv.Await(t, "the former owner ends", owner); !errors.As(err, &foreign) || foreign.Owner != theirs {
		t.Errorf("the former owner ends with %v, want that the stream is of %s", err, theirs)
	}
	testenv.Eventually(s.t, "all of the stream is booked", func() bool {
		spend, err := l.Spend(t.Context(), "p1", time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour))
		return err == nil && spend.UsedTokens == 200
	})
}

// runConsumer runs a consumer until the test ends, or it does.
func (s *system) runConsumer(l *ledger.Ledger) (ended <-chan error) {
	c := testenv.Must(consumer.New(consumer.Config{Conn: testenv.Connect(s.t, s.nats), Ledger: l, AckWait: time.Second}))
	ctx, cancel := context.WithCancel(context.Background())
	result, done := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(done)
		result <- c.Run(ctx)
	}()
	s.t.Cleanup(func() {
		cancel()
		<-done
	})
	return result
}

// waiting is how many messages are not settled.
func (s *system) waiting() int {
	s.t.Helper()
	return testenv.Must(testenv.Unsettled(s.t.Context(), s.js))
}
