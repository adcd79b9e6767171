package demo_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/consumer/quarantine"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/demo"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/internal/testenv/system"
	"github.com/tidegate/tidegate/ledger"
)

// The first start leaves ports with a history in every state; the second one adds nothing.
func TestRun_HasAHistoryOnce(t *testing.T) {
	t.Parallel() // mostly it waits
	server := testenv.NATS(t)
	s := system.Start(t, server.ClientURL())
	nc := connect(t, server.ClientURL())
	c := client(t, nc)
	check(t, c, demo.Roomy) // the gate answers
	const over, near, limited, last, unsettled = "demo-brightwater", "demo-south-dock", "demo-cedar-point", "demo-winter-basin", "demo-lighthouse"
	const days = 8
	begin := func(pace time.Duration) (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			cfg := demo.Config{Conn: nc, Name: s.Ledger.NamePort, Logger: slog.New(slog.DiscardHandler)}
			if err := demo.RunAt(ctx, cfg, pace, days); err != nil {
				t.Error(err)
			}
		})
		return func() { cancel(); running.Wait() }
	}
	sums := func() (tokens, calls int64) {
		ports, err := s.Ledger.Ports(t.Context(), ledger.PortQuery{Limit: 100}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range ports {
			if p.PortID != demo.Roomy && p.PortID != demo.Warned && p.PortID != demo.Capped {
				tokens, calls = tokens+p.TotalTokens, calls+p.Requests
			}
			if p.Name == "" {
				t.Errorf("%s has no name", p.PortID)
			}
		}
		if len(ports) != 12 {
			t.Errorf("there are %d ports", len(ports))
		}
		return tokens, calls
	}
	version := func(port string) int64 { return testenv.Must(c.Get(t.Context(), port)).Version }

	// What is reported first is not booked at once.
	booking := testenv.Must(s.DB.Begin(t.Context()))
	if _, err := booking.Exec(t.Context(), "lock table ai_usage_port_days in share mode"); err != nil {
		t.Fatal(err)
	}
	stop := begin(time.Hour) // nothing is live at that pace
	testenv.Eventually(t, "calls are reported", func() bool { return len(stored(t, nc)) > 0 })
	time.Sleep(500 * time.Millisecond) // time to report the others, too, and to set caps too early
	if err := booking.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the first start is done", func() bool { return version(last) == 1 })
	if time.Now().UTC().Day() > 1 { // on that day, nobody may have called yet
		testenv.Eventually(t, "a port is over its hard cap", func() bool {
			v := check(t, c, over)
			return !v.Allowed && v.Reason == events.ReasonHardCapReached
		})
		testenv.Eventually(t, "a port is near its hard cap", func() bool { // it may be booked after the one before
			v := check(t, c, near)
			return v.Allowed && v.SoftCapWarning && *v.RemainingTokens*8 <= *v.HardCapTokens
		})
	}
	if b := testenv.Must(c.Get(t.Context(), limited)); len(b.Limits) != 4 {
		t.Errorf("%s has the limits %+v", limited, b.Limits)
	}
	testenv.Eventually(t, "a reservation is not settled", func() bool {
		list := testenv.Must(s.Ledger.UnsettledHolds(t.Context(), unsettled, ledger.UnsettledGroup{}, 10))
		return len(list) == 1 && list[0].Service == "demo"
	})
	quarantined := quarantine.Open(testenv.Must(jetstream.New(nc)))
	refused := func() uint64 { return testenv.Must(quarantined.CountOf(t.Context(), near)) }
	testenv.Eventually(t, "an event is quarantined", func() bool { return refused() == 1 })
	tokens, calls := sums()
	stop()
	if over := metric(t, s.Metrics, "tidegate_overshoot_tokens_max"); over != 0 {
		t.Errorf("a gate says that %v tokens were spent above a cap: caps came before the history was counted", over)
	}

	used := check(t, c, demo.Roomy).UsedTokens
	stop = begin(quick)
	testenv.Eventually(t, "calls of the second start are booked", func() bool { return check(t, c, demo.Roomy).UsedTokens > used+20_000 })
	stop()
	if again, callsAgain := sums(); again != tokens || callsAgain != calls || refused() != 1 {
		t.Errorf("the second start made %d tokens of %d calls into %d of %d, and %d events are quarantined", tokens, calls, again, callsAgain, refused())
	}
}

// metric is a gauge without labels.
func metric(t *testing.T, metrics *prometheus.Registry, name string) float64 {
	t.Helper()
	for _, f := range testenv.Must(metrics.Gather()) {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}
