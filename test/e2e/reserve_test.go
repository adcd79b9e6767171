package e2e

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/reservation"
	"github.com/tidegate/tidegate/internal/testenv"
)

func (s *system) reserve(r events.ReserveRequest) *events.Reservation {
	s.t.Helper()
	reservation, err := s.client.Reserve(s.t.Context(), r)
	if err != nil {
		s.t.Fatal(err)
	}
	return reservation
}

func TestReserveSettleRelease(t *testing.T) {
	t.Parallel()
	s := start(t, options{gates: 2})
	s.setBudget("p1", 800, 1000, events.PeriodMonth)
	a := s.reserve(events.ReserveRequest{PortID: "p1", Feature: "ocr", EstimatedTokens: 600})
	if !a.Allowed || a.ReservationID == "" || a.GrantedTokens != 600 || a.HeldTokens != 600 || *a.RemainingTokens != 400 {
		t.Fatalf("first: %+v", a.Verdict)
	}
	if left := time.Until(a.ExpiresAt); left < 290*time.Second || left > 301*time.Second {
		t.Errorf("expires in %s, want 300 s", left)
	}
	testenv.Eventually(s.t, "checks of every gate count the hold", func() bool {
		for range 10 {
			if s.check("p1", 0).HeldTokens != 600 {
				return false
			}
		}
		return true
	})
	if v := s.check("p1", 401); v.Allowed {
		t.Errorf("a check past the hold: %+v, want refused", v)
	}
	if b := s.reserve(events.ReserveRequest{PortID: "p1", EstimatedTokens: 401}); b.Allowed || b.Reason != events.ReasonEstimateExceedsHardCap || b.ReservationID != "" {
		t.Errorf("401 more: %+v, want refused", b.Verdict)
	}
	b := s.reserve(events.ReserveRequest{PortID: "p1", EstimatedTokens: 400})
	if !b.Allowed || !b.SoftCapWarning {
		t.Errorf("400 more: %+v, want allowed with a warning", b.Verdict)
	}
	if c := s.reserve(events.ReserveRequest{PortID: "p1"}); c.Allowed || c.Reason != events.ReasonHardCapReached {
		t.Errorf("with everything held: %+v, want hard_cap_reached", c.Verdict)
	}
	if err := b.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.Settle(events.Usage{Provider: "openai", Model: "m", InputTokens: 250})
	testenv.Eventually(s.t, "the hold turned into use", func() bool {
		v := s.check("p1", 0)
		return v.UsedTokens == 250 && v.HeldTokens == 0
	})
	if c := s.reserve(events.ReserveRequest{PortID: "p1", EstimatedTokens: 750}); !c.Allowed {
		t.Errorf("all that is left: %+v, want allowed", c.Verdict)
	}
}

func TestReserveAcceptsLess(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.setBudget("p1", -1, 100, events.PeriodMonth)
	a := s.reserve(events.ReserveRequest{PortID: "p1", EstimatedTokens: 500, AcceptLess: true})
	if !a.Allowed || a.GrantedTokens != 100 {
		t.Errorf("500 of 100: %+v, want 100 granted", a.Verdict)
	}
	if b := s.reserve(events.ReserveRequest{PortID: "p1", EstimatedTokens: 1, AcceptLess: true}); b.Allowed {
		t.Errorf("with nothing left: %+v, want refused", b.Verdict)
	}
}

func TestReserveIsIdempotentByKey(t *testing.T) {
	t.Parallel()
	s := start(t, options{gates: 3})
	s.setBudget("p1", -1, 100, events.PeriodMonth)
	var mu sync.Mutex
	ids := map[string]int{}
	var group sync.WaitGroup
	for range 30 { // retries that overtake each other, through several gates
		group.Go(func() {
			r, err := s.client.Reserve(t.Context(), events.ReserveRequest{PortID: "p1", EstimatedTokens: 60, IdempotencyKey: "k"})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			ids[r.ReservationID]++
		})
	}
	group.Wait()
	if len(ids) != 1 || ids[""] != 0 {
		t.Errorf("30 tries of one request got %v, want one hold", ids)
	}
	if other := s.reserve(events.ReserveRequest{PortID: "p2", EstimatedTokens: 60, IdempotencyKey: "k"}); !other.Allowed || ids[other.ReservationID] != 0 {
		t.Errorf("another port with the same key: %+v, want a hold of its own", other.Verdict)
	}
	var fault *events.ServiceError
	_, err := s.client.Reserve(t.Context(), events.ReserveRequest{PortID: "p1", EstimatedTokens: 61, IdempotencyKey: "k"})
	if !errors.Is(err, events.ErrConflict) || !errors.As(err, &fault) || fault.Code != 409 || !strings.Contains(fault.Description, `"estimated_tokens":60`) || !strings.Contains(fault.Description, `"estimated_tokens":61`) {
		t.Errorf("the same key with another estimate: %v, want a conflict that names both", err)
	}
}

func TestHoldsExpireAndAreCountedAsUnsettled(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.setBudget("p1", -1, 100, events.PeriodMonth)
	a := s.reserve(events.ReserveRequest{PortID: "p1", Feature: "ocr", EstimatedTokens: 100, TTLSeconds: 1})
	if b := s.reserve(events.ReserveRequest{PortID: "p1", EstimatedTokens: 1}); b.Allowed {
		t.Fatal("granted although all is held")
	}
	time.Sleep(time.Until(a.ExpiresAt) + 20*time.Millisecond)
	b := s.reserve(events.ReserveRequest{PortID: "p1", Feature: "summary", EstimatedTokens: 100})
	if !b.Allowed {
		t.Errorf("after the expiry: %+v, want allowed", b.Verdict)
	}
	testenv.Eventually(s.t, "the expired hold is counted", func() bool {
		r, err := s.ops.Holds(t.Context(), "p1")
		if err != nil {
			t.Fatal(err)
		}
		return len(r.Unsettled) == 1 && r.Unsettled[0].Holds == 1 && r.Unsettled[0].Tokens == 100 && r.Unsettled[0].Service == "test" && r.Unsettled[0].Feature == "ocr" &&
			len(r.Live) == 1 && r.Live[0].Feature == "summary"
	})
}

func TestForgedAndForeignReservationsFreeNothing(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.setBudget("p1", -1, 100, events.PeriodMonth)
	a := s.reserve(events.ReserveRequest{PortID: "p1", EstimatedTokens: 100})
	for _, id := range []string{"nonsense", "00000000-0000-7000-8000-000000000000", events.NewUUIDv7(time.Now()).String()} {
		if err := s.client.Release(t.Context(), "p1", id); err != nil {
			t.Fatal(err)
		}
		u := usage("p2", 1)
		u.ReservationID = id
		s.publisher.Record(u)
	}
	if err := s.client.Release(t.Context(), "p2", a.ReservationID); err != nil { // another port's
		t.Fatal(err)
	}
	u := usage("p2", 1)
	u.ReservationID = a.ReservationID
	s.publisher.Record(u)
	testenv.Eventually(s.t, "the events are booked all the same", func() bool { return s.booked("p2") == 4 })
	if b := s.reserve(events.ReserveRequest{PortID: "p1", EstimatedTokens: 1}); b.Allowed || b.HeldTokens != 100 {
		t.Errorf("after all that: %+v, want the 100 still held", b.Verdict)
	}
}

func TestReserveWithoutPostgresFailsAtOnceAndTyped(t *testing.T) {
	t.Parallel()
	pg := testenv.PrivatePostgres(t)
	n := testenv.NATS(t)
	p := spawn(t, testenv.Binary(t, "cmd/tidegate"), nil, "--nats-url", n.ClientURL(), "--database-url", pg.URL())
	p.awaitReady()
	nc := testenv.Connect(t, n)
	publisher := testenv.Must(events.NewPublisher(nc, events.PublisherConfig{}))
	defer func() { _ = publisher.Close(t.Context()) }()
	for policy, allowed := range map[events.Policy]bool{events.FailOpen: true, events.FailClosed: false} {
		cold, hot := fmt.Sprintf("cold-%d", policy), fmt.Sprintf("hot-%d", policy)
		client := testenv.Must(events.NewClient(nc, events.ClientConfig{WhenUnavailable: policy, Publisher: publisher, Timeout: 10 * time.Second}))
		reserved := func(port string) *events.Reservation { // also through connections that the last kill broke
			for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
				r, err := client.Reserve(t.Context(), events.ReserveRequest{PortID: port, EstimatedTokens: 1, TTLSeconds: 16})
				if err == nil && r.Allowed {
					return r
				}
				if time.Now().After(deadline) {
					t.Fatalf("with Postgres: %v", err)
				}
			}
		}
		reserved(cold)
		sliced := false
		for !sliced {
			_, sliced = sliceOf(reserved(hot).ReservationID)
		}
		leased := time.Now()
		if err := pg.Kill(); err != nil {
			t.Fatal(err)
		}
		if r, err := client.Reserve(t.Context(), events.ReserveRequest{PortID: hot, EstimatedTokens: 1, TTLSeconds: 16}); err != nil || r.ReservationID == "" {
			t.Errorf("without Postgres, a port that is asked often: %v; want a hold of the gate's slice", err)
		}
		begin := time.Now()
		r, err := client.Reserve(t.Context(), events.ReserveRequest{PortID: cold, EstimatedTokens: 1})
		if took := time.Since(begin); !errors.Is(err, events.ErrUnavailable) || r.Allowed != allowed || took > 3*time.Second {
			t.Errorf("without Postgres: %v after %s, allowed %v; want ErrUnavailable soon, and allowed %v by policy", err, took, r.Allowed, allowed)
		}
		for _, told := range []string{fmt.Sprint(err), p.readiness()} { // to tenants, and to whoever asks
			if !strings.Contains(told, "cannot be reached") && !strings.Contains(told, "broken") && !strings.Contains(told, "SQLSTATE") || strings.Contains(told, "socket") || strings.Contains(told, "database=") || strings.Contains(told, "user=") {
				t.Errorf("an outage is told with names and addresses, or not at all: %s", told)
			}
		}
		if v, err := client.Check(t.Context(), events.CheckRequest{PortID: cold}); err != nil || !v.Allowed {
			t.Errorf("check without Postgres: %+v, %v; want an answer from memory", v, err)
		}
		// A port that is asked often is served until the gate's lease ends, an eighth of
		// the holds' lifetime after it began.
		for {
			r, err := client.Reserve(t.Context(), events.ReserveRequest{PortID: hot, EstimatedTokens: 1, TTLSeconds: 16})
			if errors.Is(err, events.ErrUnavailable) {
				if r.Allowed != allowed {
					t.Errorf("without Postgres: allowed %v, want %v by policy", r.Allowed, allowed)
				}
				break
			}
			if err != nil || time.Since(leased) > 4*time.Second {
				t.Fatalf("%v after the lease began: %+v, %v; want ErrUnavailable", time.Since(leased), r, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
		if err := pg.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		reserved(cold)
	}
}

// A gate that stands still for longer than any hold must neither keep others from
// reserving nor, when it goes on, grant what it had decided long ago.
func TestStoppedGateBlocksNobody(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.setBudget("p1", -1, 1000, events.PeriodMonth)
	p := spawn(t, testenv.Binary(t, "cmd/tidegate"), nil, "--nats-url", s.nats.ClientURL(), "--database-url", s.url, "--roles", "gate")
	p.awaitReady()
	var group sync.WaitGroup
	stop := make(chan struct{})
	var admitted, granted int64
	var mu sync.Mutex
	for range 8 {
		group.Go(func() {
			client := testenv.Must(events.NewClient(s.nc, events.ClientConfig{WhenUnavailable: events.FailClosed, Publisher: s.publisher, Timeout: 500 * time.Millisecond}))
			for {
				select {
				case <-stop:
					return
				default:
				}
				r, err := client.Reserve(t.Context(), events.ReserveRequest{PortID: "p1", EstimatedTokens: 1, TTLSeconds: 1})
				mu.Lock()
				if err == nil && r.Allowed {
					admitted++
					granted = max(granted, r.UsedTokens+r.HeldTokens)
				}
				mu.Unlock()
			}
		})
	}
	time.Sleep(300 * time.Millisecond)
	p.signal(syscall.SIGSTOP)
	time.Sleep(3 * time.Second) // longer than the holds, and than its transaction may idle
	mu.Lock()
	before := admitted
	mu.Unlock()
	// NATS sends half of the questions to the gate that stands still, so half a second
	// may pass in which all eight callers wait for it: once in two hundred runs it did.
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		mu.Lock()
		after := admitted
		mu.Unlock()
		if after > before {
			break
		}
		if time.Now().After(deadline) {
			t.Error("nobody could reserve while one gate stood still")
			break
		}
	}
	p.signal(syscall.SIGCONT)
	time.Sleep(500 * time.Millisecond)
	close(stop)
	group.Wait()
	if granted > 1000 {
		t.Errorf("used + held reached %d, past the cap of 1,000", granted)
	}
	var spent int64
	if err := s.db.QueryRow(t.Context(), "select coalesce(sum(tokens), 0)::bigint from ai_held_tokens where expires_at > clock_timestamp()").Scan(&spent); err != nil || spent > 1000 {
		t.Errorf("%d held, %v", spent, err)
	}
}

// A port that holds as much as it may is told so. Its neighbour notices nothing.
func TestTooManyHoldsIsAFault(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.setBudget("p2", -1, 1000, events.PeriodMonth)
	s.reserve(events.ReserveRequest{PortID: "p1", Feature: "ocr"})
	if _, err := s.db.Exec(t.Context(), `insert into ai_budget_holds (port_id, id, tokens, created_at, expires_at)
		select 'p1', gen_random_uuid(), 0, now(), now() + interval '1 hour' from generate_series(2, $1)`, reservation.MaxHolds); err != nil {
		t.Fatal(err)
	}
	_, err := s.client.Reserve(t.Context(), events.ReserveRequest{PortID: "p1", Feature: "ocr"})
	var fault *events.ServiceError
	if !errors.As(err, &fault) || fault.Code != 429 || !strings.Contains(fault.Description, "too many holds: a port may have 100000 at once") {
		t.Errorf("one hold more: %v", err)
	}
	if r := s.reserve(events.ReserveRequest{PortID: "p2", Feature: "ocr", EstimatedTokens: 5}); !r.Allowed {
		t.Errorf("the neighbour: %+v", r.Verdict)
	}
}
