package gate

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/reservation/broker"
	"github.com/tidegate/tidegate/internal/reservation/hold"
	"github.com/tidegate/tidegate/ledger"
)

// holds is what a reading of them finds.
type holds struct {
	broker.Backend
	list []hold.Standing
	at   time.Time
}

func (h holds) Standings(context.Context) ([]hold.Standing, time.Time, error) {
	return h.list, h.at, nil
}

// bare is a gate without NATS and Postgres, which knows of no holds.
func bare(cfg Config, registry *prometheus.Registry) *Gate {
	g := &Gate{memory: newMemory(), alerts: make(chan ledger.Alert, 1024), cfg: cfg, log: slog.Default()}
	g.cfg.Behind = func() error { return nil }
	g.reservations = g.newBroker(holds{at: cfg.Now().Add(time.Hour)})
	_, _ = g.reservations.Read(context.Background())
	var reg prometheus.Registerer
	if registry != nil {
		reg = registry
	}
	g.metrics = newMetrics(reg, g)
	return g
}

func n(v int64) *int64 { return &v }

// A gate that knows too little to allow anything says so, and what it knows of the
// soft cap. Each answer is counted by what became of the call.
func TestARefusalWarnsOfTheSoftCapToo(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	g := bare(Config{Now: time.Now, MaxStale: time.Minute}, registry)
	g.memory.applyBudget("p", events.Budget{Enabled: true, SoftCapTokens: n(80), HardCapTokens: n(100), Period: events.PeriodMonth, Version: 1})
	for _, c := range []struct {
		asOf   time.Time
		asked  int64
		reason events.RefusalReason
		warned bool
	}{
		{time.Now(), 79, "", false}, {time.Now(), 80, "", true}, {time.Now(), 101, events.ReasonEstimateExceedsHardCap, true},
		{time.Now().Add(-time.Hour), 79, events.ReasonGateStale, false}, {time.Now().Add(-time.Hour), 80, events.ReasonGateStale, true},
	} {
		g.memory.asOf = c.asOf
		v := g.verdict(&events.CheckRequest{PortID: "p", EstimatedTokens: c.asked})
		if v.Allowed != (c.reason == "") || v.Reason != c.reason || v.SoftCapWarning != c.warned {
			t.Errorf("%d tokens: %+v, want %q and a warning: %v", c.asked, v, c.reason, c.warned)
		}
		g.metrics.count(&v)
	}
	for outcome, want := range map[string]float64{"allowed": 1, "soft_cap_warning": 1, "estimate_exceeds_hard_cap": 1, "gate_stale": 2} {
		if got := counted(t, registry, "tidegate_gate_answers_total", outcome); got != want {
			t.Errorf("%v answers are counted as %s, want %v", got, outcome, want)
		}
	}
}

func counted(t *testing.T, registry *prometheus.Registry, name, outcome string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && m.GetLabel()[0].GetValue() == outcome {
				return m.GetCounter().GetValue()
			}
		}
	}
	return -1
}
