package gate

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tidegate/tidegate/events"
)

type metrics struct {
	allowed, warned, faults, unrepliable prometheus.Counter
	refused                              map[events.RefusalReason]prometheus.Counter
	seconds                              prometheus.Histogram
	resyncs                              *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, g *Gate) metrics {
	f := promauto.With(reg)
	answers := f.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_gate_answers_total",
		Help: "Answers of this gate by outcome."}, []string{"outcome"})
	m := metrics{
		allowed:     answers.WithLabelValues("allowed"),
		warned:      answers.WithLabelValues("soft_cap_warning"),
		faults:      answers.WithLabelValues("fault"),
		unrepliable: answers.WithLabelValues("unrepliable"),
		refused:     map[events.RefusalReason]prometheus.Counter{},
		seconds: f.NewHistogram(prometheus.HistogramOpts{Name: "tidegate_gate_answer_seconds",
			Help: "Time to answer from memory, without the network.", Buckets: prometheus.ExponentialBuckets(1e-6, 4, 10)}),
		resyncs: f.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_gate_resyncs_total",
			Help: "Readings of all totals by cause: periodic, gap (a notice was missed), silence (no consumer heard)."}, []string{"cause"}),
	}
	for _, r := range []events.RefusalReason{events.ReasonHardCapReached, events.ReasonEstimateExceedsHardCap, events.ReasonGateStale} {
		m.refused[r] = answers.WithLabelValues(string(r))
	}
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "tidegate_gate_cache_age_seconds",
		Help: "Age of what the gate remembers; -1 before it has loaded."}, func() float64 {
		if asOf := g.AsOf(); !asOf.IsZero() {
			return g.cfg.Now().Sub(asOf).Seconds()
		}
		return -1
	})
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "tidegate_gate_ports",
		Help: "Ports that the gate remembers."}, func() float64 {
		g.memory.mu.RLock()
		defer g.memory.mu.RUnlock()
		return float64(len(g.memory.ports))
	})
	return m
}

func (m *metrics) count(v *events.Verdict) {
	switch {
	case v.SoftCapWarning:
		m.warned.Inc()
	case v.Allowed:
		m.allowed.Inc()
	default:
		m.refused[v.Reason].Inc()
	}
}
