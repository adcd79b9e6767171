package gate

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/events"
)

func n(v int64) *int64 { return &v }

// A gate that knows too little to allow anything says so, and what it knows of the
// soft cap. Each answer is counted by what became of the call.
func TestARefusalWarnsOfTheSoftCapToo(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	g := &Gate{memory: newMemory(), leases: newLeases(-1), cfg: Config{Now: time.Now, MaxStale: time.Minute}}
	g.metrics = newMetrics(registry, g)
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
		g.memory.asOf, g.memory.heldAsOf = c.asOf, c.asOf
		v := g.verdict("p", c.asked)
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
