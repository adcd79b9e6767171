package e2e

import (
	"context"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/gate"
	"github.com/tidegate/tidegate/internal/reservation/hold"
	"github.com/tidegate/tidegate/internal/testenv"
)

// heat asks for holds of a port until every gate of the system has a slice of it, and
// releases them. It returns how many tokens gates have to spare.
func (s *system) heat(port string, gates int) (slack int64) {
	s.t.Helper()
	testenv.Eventually(s.t, "every gate has a slice of "+port, func() bool {
		var held []*events.Reservation
		for range 10 {
			r := s.reserve(events.ReserveRequest{PortID: port, Feature: "ocr", EstimatedTokens: 10})
			if !r.Allowed {
				s.t.Fatalf("heating %s: %+v", port, r.Verdict)
			}
			held = append(held, r)
		}
		for _, r := range held {
			if err := r.Release(s.t.Context()); err != nil {
				s.t.Fatal(err)
			}
		}
		var slices int
		err := s.db.QueryRow(s.t.Context(), "select count(*), coalesce(sum(tokens - closed_tokens), 0)::bigint from ai_budget_slices where port_id = $1 and holds is null", port).Scan(&slices, &slack)
		return err == nil && slices >= gates
	})
	return slack
}

func (s *system) held(port string) (held int64) {
	s.t.Helper()
	err := s.db.QueryRow(context.Background(), "select coalesce(sum(tokens), 0)::bigint from ai_held_tokens where port_id = $1 and expires_at > clock_timestamp()", port).Scan(&held)
	if err != nil {
		s.t.Fatal(err)
	}
	return held
}

// Where usage that nobody had reserved reaches the cap, what a gate has to spare is not
// given out any more.
func TestUnreservedUsageEndsWhatGatesHaveToSpare(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.setBudget("p1", -1, 10_000, events.PeriodMonth)
	slack := s.heat("p1", 1)
	if slack < 200 {
		t.Fatalf("the gate has %d tokens to spare: too few for this test", slack)
	}
	if err := s.publisher.Publish(t.Context(), []events.Usage{usage("p1", 10_000)}); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(s.t, "it is booked", func() bool { return s.booked("p1") == 10_000 })
	// The gate hears of it soon. No check asks whether it has: a refused one would have it
	// give the slice back.
	for granted := int64(0); ; granted += 10 {
		r := s.reserve(events.ReserveRequest{PortID: "p1", Feature: "ocr", EstimatedTokens: 10})
		if !r.Allowed {
			if r.Reason != events.ReasonHardCapReached || r.ReservationID != "" {
				t.Errorf("refused for %q, with the reservation %q", r.Reason, r.ReservationID)
			}
			return
		}
		if granted > slack/2 {
			t.Fatalf("with 10,000 of 10,000 tokens used, %d of %d that the gate had to spare were given out", granted, slack)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// What gates have to spare is theirs to use, not a reason to refuse.
func TestNothingIsRefusedForWhatGatesHaveToSpare(t *testing.T) {
	t.Parallel()
	s := start(t, options{gates: 3})
	s.setBudget("p1", -1, 10_000, events.PeriodMonth)
	slack := s.heat("p1", 3)
	if slack < 300 {
		t.Fatalf("the gates have %d tokens to spare: too few for this test", slack)
	}
	a := s.reserve(events.ReserveRequest{PortID: "p1", EstimatedTokens: 10_000})
	if !a.Allowed || a.HeldTokens != 10_000 || *a.RemainingTokens != 0 {
		t.Errorf("everything, while gates had %d to spare: %+v, want allowed", slack, a.Verdict)
	}
	if b := s.reserve(events.ReserveRequest{PortID: "p1", EstimatedTokens: 1}); b.Allowed {
		t.Errorf("one more: %+v, want refused", b.Verdict)
	}
}

// Whoever has stored a lower cap may rely on it from then on, whichever gate is asked.
func TestALowerCapBindsOnceItIsStored(t *testing.T) {
	t.Parallel()
	s := start(t, options{gates: 3})
	s.setBudget("p1", -1, 100_000, events.PeriodMonth)
	var stored atomic.Bool
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 300 {
				after := stored.Load()
				r, err := s.client.Reserve(t.Context(), events.ReserveRequest{PortID: "p1", EstimatedTokens: 10})
				if err == nil && r.Allowed && after {
					t.Errorf("granted after the cap was set to nothing: %+v", r.Verdict)
					return
				}
			}
		})
	}
	s.heat("p1", 3)
	begin := time.Now()
	s.setBudget("p1", -1, 0, events.PeriodMonth)
	stored.Store(true)
	if took := time.Since(begin); took > 900*time.Millisecond {
		t.Errorf("storing the cap took %s: some gate did not give its slice back", took)
	}
	group.Wait()
}

// A gate that stops gives back what it has to spare, and keeps what it has held.
func TestAStoppedGateGivesItsSlicesBack(t *testing.T) {
	t.Parallel()
	s := start(t, options{gates: -1})
	ctx, stop := context.WithCancel(t.Context())
	g := testenv.Must(gate.New(gate.Config{Conn: testenv.Connect(t, s.nats), Ledger: s.ledger}))
	var group sync.WaitGroup
	group.Go(func() { _ = g.Run(ctx) })
	testenv.Await(t, "the gate is ready", g.Ready())
	s.setBudget("p1", -1, 10_000, events.PeriodMonth)
	s.heat("p1", 1)
	a := s.reserve(events.ReserveRequest{PortID: "p1", Feature: "ocr", EstimatedTokens: 10})
	if _, sliced := sliceOf(a.ReservationID); !sliced {
		t.Fatalf("%q is not of a slice", a.ReservationID)
	}
	stop()
	group.Wait()
	if held := s.held("p1"); held != 10 {
		t.Errorf("%d held after the gate has stopped, want 10", held)
	}
	r := testenv.Must(s.ops.Holds(t.Context(), "p1"))
	if len(r.Live) != 1 || r.Live[0].Holds != 1 || r.Live[0].Tokens != 10 || r.Live[0].Service != "test" || r.Live[0].Feature != "ocr" {
		t.Errorf("holds: %+v, want the one of test for ocr", r.Live)
	}
	a.Settle(events.Usage{Provider: "openai", Model: "m", InputTokens: 7})
	testenv.Eventually(s.t, "the hold turned into use", func() bool { return s.booked("p1") == 7 && s.held("p1") == 0 })
}

// What a killed gate had leased is held until it expires, and no longer.
func TestAKilledGatesSlicesExpire(t *testing.T) {
	t.Parallel()
	s := start(t, options{gates: -1})
	p := spawn(t, testenv.Binary(t, "cmd/tidegate"), nil, "--nats-url", s.nats.ClientURL(), "--database-url", s.url, "--roles", "gate")
	p.awaitReady()
	s.setBudget("p1", -1, 10_000, events.PeriodMonth)
	var last *events.Reservation
	testenv.Eventually(s.t, "a hold is made from a slice", func() bool {
		last = s.reserve(events.ReserveRequest{PortID: "p1", EstimatedTokens: 10, TTLSeconds: 2})
		_, sliced := sliceOf(last.ReservationID)
		return sliced
	})
	p.signal(syscall.SIGKILL)
	p.wait(5 * time.Second)
	if left := time.Until(last.ExpiresAt); left < 1500*time.Millisecond || left > 2250*time.Millisecond {
		t.Errorf("a hold for 2 s expires in %s; want at most an eighth more", left)
	}
	if held := s.held("p1"); held < 20 {
		t.Errorf("%d held after the kill: holds were lost", held)
	}
	time.Sleep(time.Until(last.ExpiresAt) + 20*time.Millisecond)
	if held := s.held("p1"); held != 0 {
		t.Errorf("%d held after the expiry", held)
	}
	testenv.Must(s.ledger.Reservations.Release(t.Context(), []hold.ID{{PortID: "p1", ReservationID: last.ReservationID}}))
	if held := s.held("p1"); held != 0 {
		t.Errorf("%d held after a late release", held)
	}
	g := testenv.Must(gate.New(gate.Config{Conn: testenv.Connect(t, s.nats), Ledger: s.ledger}))
	s.background(g.Run)
	testenv.Await(t, "the gate is ready", g.Ready())
	if r := s.reserve(events.ReserveRequest{PortID: "p1", EstimatedTokens: 10_000}); !r.Allowed {
		t.Errorf("everything, after the expiry: %+v, want allowed", r.Verdict)
	}
}

// Who stores a budget is answered when no gate goes by the old one any more.
func TestSetWaitsForLeases(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.setBudget("p1", -1, 100, events.PeriodMonth)
	slice := events.NewUUIDv7(time.Now()) // of a gate that is slow to hear
	exec := func(sql string) {
		if _, err := s.db.Exec(t.Context(), sql, slice); err != nil {
			t.Error(err)
		}
	}
	exec(`insert into ai_budget_slices (port_id, id, tokens, closed, secret, created_at, leased_until, expires_at)
		values ('p1', $1, 10, '\x00', '\x00', clock_timestamp(), now() + interval '10 s', now() + interval '300 s')`)
	var sealed atomic.Bool
	var group sync.WaitGroup
	group.Go(func() {
		time.Sleep(300 * time.Millisecond)
		sealed.Store(true)
		exec(`update ai_budget_slices set holds = '{"labels":[],"holds":[]}', tokens = 0 where id = $1`)
	})
	s.setBudget("p1", -1, 0, events.PeriodMonth)
	if !sealed.Load() {
		t.Error("answered while a gate may still make holds by the old budget")
	}
	group.Wait()
}

// A hot port is served while nobody waits for Postgres; every hold counts in checks.
func TestChecksCountHoldsOfSlicesExactly(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.setBudget("p1", 5_000, 10_000, events.PeriodMonth)
	s.heat("p1", 1)
	var held []*events.Reservation
	var sliced int
	for i := range 40 {
		r := s.reserve(events.ReserveRequest{PortID: "p1", Feature: "ocr", EstimatedTokens: 10})
		if _, ok := sliceOf(r.ReservationID); ok {
			sliced++
		}
		if want := int64(10 * (i + 1)); !r.Allowed || r.GrantedTokens != 10 || r.HeldTokens < want || *r.RemainingTokens > 10_000-want {
			t.Fatalf("hold %d: %+v", i, r.Verdict)
		}
		held = append(held, r)
	}
	if sliced < 20 { // on a busy machine the next slice comes late
		t.Errorf("only %d of 40 holds were made from slices", sliced)
	}
	testenv.Eventually(s.t, "a check counts them, and nothing else", func() bool { return s.check("p1", 0).HeldTokens == 400 })
	if s.held("p1") <= 400 {
		t.Error("the gate has nothing to spare any more: what a check counts says nothing")
	}
	for s.held("p1") > 400 { // until what the gate has to spare is given back, and a moment longer
		if v := s.check("p1", 0); v.HeldTokens != 400 {
			t.Fatalf("a check counts %d held, want 400", v.HeldTokens)
		}
	}
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
		if v := s.check("p1", 0); v.HeldTokens != 400 {
			t.Fatalf("a check counts %d held when the slice was given back, want 400", v.HeldTokens)
		}
	}
	for _, r := range held {
		r.Settle(events.Usage{Provider: "openai", Model: "m", InputTokens: 4})
	}
	testenv.Eventually(s.t, "all are settled", func() bool {
		v := s.check("p1", 0)
		return v.UsedTokens == 160 && v.HeldTokens == 0
	})
	testenv.Eventually(s.t, "the slices are gone", func() bool { return s.held("p1") == 0 })
	if !s.verified() {
		t.Error("verify finds differences")
	}
}
