package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/admin/ops"
	"github.com/tidegate/tidegate/consumer"
	"github.com/tidegate/tidegate/consumer/stream"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/gate"
	"github.com/tidegate/tidegate/internal/bus"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

func TestReplicasAgree(t *testing.T) {
	t.Parallel()
	s := start(t, options{gates: 3})
	s.background(testenv.Must(consumer.New(consumer.Config{Conn: testenv.Connect(t, s.nats), Ledger: s.ledger, AckWait: time.Second})).Run) // a second one
	for i := range 2_000 {
		s.publisher.Record(usage(fmt.Sprintf("p%d", i%40), 3))
	}
	testenv.Eventually(s.t, "all are booked, once", func() bool { return s.rows() == 2_000 })
	var told []ops.Progress
	v, err := s.ops.Verify(t.Context(), func(p ops.Progress) { told = append(told, p) })
	if err != nil || !v.OK || v.Gates != 3 || v.Ports != 40 {
		t.Errorf("verify: %+v, %v; want agreement of 3 gates over 40 ports", v, err)
	}
	if len(told) < 2 || told[0].Of != ops.OfLedger || told[0].All == 0 || told[len(told)-1] != (ops.Progress{Of: ops.OfGates, Done: 40, All: 40}) {
		t.Errorf("verify says on its way: %+v", told)
	}
	// A budget reaches every gate, whichever stored it.
	s.setBudget("p1", -1, 10, events.PeriodMonth)
	for range 50 {
		if v := s.check("p1", 0); v.Allowed {
			time.Sleep(20 * time.Millisecond) // a gate may hear of it a moment later
			if v := s.check("p1", 0); v.Allowed {
				t.Fatal("a gate does not know the budget")
			}
		}
	}
}

// The commit that no notice tells of is found by the next heartbeat's number.
func TestGateHealsFromMissedNotices(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.setBudget("p1", -1, 1000, events.PeriodMonth)
	s.spend("p1", 10, time.Time{})
	// Booked behind the consumer's back: no notice is published for it.
	if _, err := s.db.Exec(t.Context(), "update ai_usage_port_days set total_tokens = 999 where port_id = 'p1'"); err != nil {
		t.Fatal(err)
	}
	if v := s.check("p1", 0); v.UsedTokens != 10 {
		t.Fatalf("%d used, want 10: nobody told the gate", v.UsedTokens)
	}
	// A consumer whose first notices the gate missed.
	if err := bus.Tell(s.nc, bus.Totals{From: "another", Seq: 5, At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(s.t, "the gate reads the totals again", func() bool { return s.check("p1", 0).UsedTokens == 999 })
}

// One slow reading of the holds does not make checks count old ones for long.
func TestChecksSeeHoldsEndSoonAfterASlowReading(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.setBudget("p1", -1, 10_000, events.PeriodMonth)
	r := s.reserve(events.ReserveRequest{PortID: "p1", EstimatedTokens: 10})
	testenv.Eventually(s.t, "a check counts the hold", func() bool { return s.check("p1", 0).HeldTokens == 10 })
	slow := testenv.Must(s.db.Begin(t.Context()))
	if _, err := slow.Exec(t.Context(), "lock table ai_budget_holds in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1500 * time.Millisecond) // a reading fails: Postgres did not answer within a second
	if err := slow.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	released := time.Now()
	testenv.Eventually(s.t, "a check counts it no more", func() bool { return s.check("p1", 0).HeldTokens == 0 })
	if took := time.Since(released); took > 10*time.Second {
		t.Errorf("checks counted the hold for %s after its release", took)
	}
}

func TestColdGateDoesNotAnswer(t *testing.T) {
	t.Parallel()
	s := start(t, options{noRoles: true})
	hold := testenv.Must(s.db.Begin(t.Context()))
	if _, err := hold.Exec(t.Context(), "lock table system_settings in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	g := testenv.Must(gate.New(gate.Config{Conn: testenv.Connect(t, s.nats), Ledger: s.ledger}))
	s.background(g.Run)
	time.Sleep(300 * time.Millisecond)
	if _, err := s.client.Check(t.Context(), events.CheckRequest{PortID: "p1"}); !errors.Is(err, events.ErrUnavailable) {
		t.Errorf("a gate that cannot load its totals answered: %v", err)
	}
	if err := hold.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(s.t, "it answers once it has", func() bool {
		_, err := s.client.Check(t.Context(), events.CheckRequest{PortID: "p1"})
		return err == nil
	})
}

func TestStaleGateRefusesHardCapsOnly(t *testing.T) {
	t.Parallel()
	s := start(t, options{gates: -1})
	cable := lay(t, s.url)
	behind := testenv.Must(ledger.Open(t.Context(), ledger.Config{URL: cable.url}))
	t.Cleanup(behind.Close)
	var later atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	g := testenv.Must(gate.New(gate.Config{Conn: testenv.Connect(t, s.nats), Ledger: behind, MaxStale: time.Minute, Now: now}))
	s.background(g.Run)
	testenv.Await(t, "the gate is ready", g.Ready())
	s.setBudget("capped", -1, 1000, events.PeriodMonth)
	s.setBudget("warned", 10, -1, events.PeriodMonth)
	if v := s.check("capped", 1); !v.Allowed {
		t.Fatalf("fresh: %+v", v)
	}
	cable.cut()
	later.Store(int64(2 * time.Minute)) // all it knows is old now
	if v := s.check("capped", 1); v.Allowed || v.Reason != events.ReasonGateStale {
		t.Errorf("stale, with a hard cap: %+v, want gate_stale", v)
	}
	if v := s.check("warned", 1); !v.Allowed {
		t.Errorf("stale, without a hard cap: %+v, want allowed", v)
	}
}

// Whoever asks decides where the answer goes; the gate must not be made to write
// into JetStream's API or a stream.
func TestGateAnswersIntoInboxesOnly(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	for _, base := range []string{events.SubjectCheck, events.SubjectReserve, events.SubjectRelease, events.SubjectBudgetGet, events.SubjectBudgetSet, events.SubjectReport, "ai.admin.verify"} {
		target := "victim." + strings.ReplaceAll(base, ".", "-")
		sub := testenv.Must(s.nc.SubscribeSync(target))
		if err := s.nc.PublishRequest(base, target, []byte(`{"port_id":"p1","reservation_id":"x"}`)); err != nil {
			t.Fatal(err)
		}
		if msg, err := sub.NextMsg(200 * time.Millisecond); err == nil {
			t.Errorf("%s answered to %s: %q", base, target, msg.Data)
		}
	}
}

func TestFaultsHaveABody(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	for _, c := range []struct{ subject, body, code string }{
		{"ai.budget.check.p1", `{"estimated_tokns":2000}`, "400"},
		{"ai.budget.reserve.p1", `{"estimate":2000}`, "400"},
		{"ai.budget.release.p1", `{"reservation_id":"x","reason":"none"}`, "400"},
		{"ai.budget.get.p1", `{"by":"day"}`, "400"},
		{"ai.budget.set.p1", `{"enabled":true,"hard_cap":5}`, "400"},
		{"ai.budget.usage.p1", `{"dimension":"day"}`, "400"},
		{"ai.admin.holds", `{"port":"p1"}`, "400"},
		{"ai.admin.tokens.create", `{"name":"x","permission":["admin.manage_settings"]}`, "400"},
		{"ai.admin.verify", `{"quick":true}`, "400"},
		{"ai.budget.check.p1", `nonsense`, "400"},
		{"ai.budget.check", `{}`, "400"},
		{"ai.budget.check.p1", `{"port_id":"p2"}`, "400"},
		{"ai.budget.check.p1", `{"estimated_tokens":-1}`, "400"},
		{"ai.budget.reserve.p1", `{"estimated_tokens":1,"ttl_seconds":3601}`, "400"},
		{"ai.budget.release.p1", `{}`, "400"},
		{"ai.budget.set.p1", `{"enabled":true,"period":"year"}`, "400"},
		{"ai.budget.set.p1", `{"enabled":true,"soft_cap_tokens":2,"hard_cap_tokens":1}`, "400"},
		{"ai.budget.set.p1", `{"enabled":true,"if_version":7}`, "409"},
		{"ai.budget.usage.p1", `{"by":"moon"}`, "400"},
	} {
		msg, err := s.nc.Request(c.subject, []byte(c.body), 5*time.Second)
		if err != nil {
			t.Errorf("%s %s: %v", c.subject, c.body, err)
			continue
		}
		if code := msg.Header.Get("Nats-Service-Error-Code"); code != c.code || len(msg.Data) == 0 {
			t.Errorf("%s %s: code %q, body %q; want %s and a body", c.subject, c.body, code, msg.Data, c.code)
		}
	}
}

// Requests that need Postgres are answered beside the handlers that took them, maybe
// before those have returned. The race detector watches.
func TestFaultsRaceWithTheirHandlers(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.ledger.Close() // whoever needs it fails at once
	var group sync.WaitGroup
	for _, c := range []struct{ subject, body string }{
		{"ai.budget.reserve.p1", `{"estimated_tokens":1}`},
		{"ai.budget.release.p1", `{"reservation_id":"` + uuid.NewString() + `"}`},
		{"ai.budget.set.p1", `{"enabled":true}`},
		{"ai.budget.usage.p1", `{}`},
		{"ai.admin.holds", `{"port_id":"p1"}`},
	} {
		for range 4 {
			group.Go(func() {
				for range 500 {
					msg, err := s.nc.Request(c.subject, []byte(c.body), 5*time.Second)
					if err != nil || msg.Header.Get("Nats-Service-Error-Code") != "503" || len(msg.Data) == 0 {
						t.Errorf("%s: %v %+v, want 503 and a body", c.subject, err, msg)
						return
					}
				}
			})
		}
	}
	group.Wait()
}

func TestLossyStreamIsRefused(t *testing.T) {
	t.Parallel()
	s := start(t, options{noRoles: true})
	_, err := s.js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: events.UsageStream, Subjects: []string{"ai.usage"}, Storage: jetstream.MemoryStorage,
		Discard: jetstream.DiscardOld, MaxAge: time.Hour, Retention: jetstream.LimitsPolicy,
	})
	if err != nil {
		t.Fatal(err)
	}
	c := testenv.Must(consumer.New(consumer.Config{Conn: s.nc, Ledger: s.ledger}))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err = c.Run(ctx)
	var lossy *stream.LossyError
	if !errors.As(err, &lossy) {
		t.Fatalf("Run: %v, want a stream.LossyError", err)
	}
	for _, want := range []string{"ai.usage.*", "storage", "discard", "max age", "deny purge"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %q", err, want)
		}
	}
}
