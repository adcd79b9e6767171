package gate

import (
	"cmp"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

type metrics struct {
	allowed, warned, faults, unrepliable prometheus.Counter
	refused                              map[events.RefusalReason]prometheus.Counter
	seconds                              prometheus.Histogram
	resyncs, ignored, lower              *prometheus.CounterVec
	reserved, reservedLess, released     prometheus.Counter
	reserveRefused                       prometheus.Counter
	reserveSeconds                       prometheus.Histogram
	overshoot, clockAhead                prometheus.Gauge
	alerts, refusals                     *prometheus.CounterVec
	alertErrors                          prometheus.Counter
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
			Help: "Readings of all totals by cause: periodic, gap (a notice was missed), silence (no consumer heard), lower (one before found less than was known)."}, []string{"cause"}),
	}
	m.ignored = f.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_gate_ignored_total",
		Help: "Messages to gates that cannot be read or are out of bounds, and were ignored, by subject."}, []string{"subject"})
	m.lower = f.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_gate_ledger_lower_total",
		Help: "What readings of the ledger found to be less than this gate knew, as after an older copy of the database was put back: total (ports), counter (of limits) or budget (of a lower version). The higher or stricter one stays at first."}, []string{"what"})
	reservations := f.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_reservations_total",
		Help: "Reserve and release requests by outcome."}, []string{"outcome"})
	m.reserved, m.reservedLess = reservations.WithLabelValues("held"), reservations.WithLabelValues("held_less")
	m.reserveRefused, m.released = reservations.WithLabelValues("refused"), reservations.WithLabelValues("released")
	f.NewCounterFunc(prometheus.CounterOpts{Name: "tidegate_reservations_from_memory_total",
		Help: "Reservations made from a lease of this gate, without asking Postgres."},
		func() float64 { return float64(g.reservations.FromLeases.Load()) })
	f.NewCounterFunc(prometheus.CounterOpts{Name: "tidegate_slices_granted_total",
		Help: "Leases of ports' headroom that this gate was granted."},
		func() float64 { return float64(g.reservations.Granted.Load()) })
	m.reserveSeconds = f.NewHistogram(prometheus.HistogramOpts{Name: "tidegate_reserve_seconds",
		Help: "Time of one transaction that decided reservations.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 12)})
	m.overshoot = f.NewGauge(prometheus.GaugeOpts{Name: "tidegate_overshoot_tokens_max",
		Help: "The most tokens of any port that this process saw booked above a hard cap in force, in one period. Lowering a cap does not count. Stays 0 if every caller reserves enough and reports in time."})
	m.clockAhead = f.NewGauge(prometheus.GaugeOpts{Name: "tidegate_gate_clock_behind_seconds",
		Help: "How far this machine's clock is behind the database's, by which the gate goes; negative: ahead of it."})
	for _, r := range []events.RefusalReason{events.ReasonHardCapReached, events.ReasonEstimateExceedsHardCap, events.ReasonGateStale} {
		m.refused[r] = answers.WithLabelValues(string(r))
	}
	m.alerts = f.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_alerts_total",
		Help: "Alerts that this gate published, by what they are of, port (a port's own caps) or limit (another limit), and by what was reached: soft, hard or alert_at."}, []string{"of", "cap"})
	m.alertErrors = f.NewCounter(prometheus.CounterOpts{Name: "tidegate_alert_errors_total",
		Help: "Tries to publish alerts, or to find or make the stream that keeps them, that failed and are made again."})
	m.refusals = f.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_refusals_total",
		Help: "Questions that a cap refused, by question (check or reserve), and by what refused: of is port (a port's own caps) or limit (another limit), and its unit and window."},
		[]string{"question", "of", "unit", "window"})
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "tidegate_gate_counters",
		Help: "Counters of limits that the gate remembers: one for each limit, value and window."}, func() float64 {
		return float64(g.memory.counters())
	})
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "tidegate_gate_cache_age_seconds",
		Help: "Age of what the gate remembers; -1 before it has loaded."}, func() float64 {
		if asOf := g.AsOf(); !asOf.IsZero() {
			return g.now().Sub(asOf).Seconds()
		}
		return -1
	})
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "tidegate_gate_ports",
		Help: "Ports that the gate remembers."}, func() float64 {
		g.memory.mu.RLock()
		defer g.memory.mu.RUnlock()
		return float64(g.memory.portCount())
	})
	if reg != nil && g.cfg.TopPorts > 0 {
		reg.MustRegister(newTopCollector(g))
	}
	return m
}

// countReserve counts a reservation's outcome.
func (m *metrics) countReserve(v *events.Verdict, asked int64) {
	switch {
	case !v.Allowed:
		m.reserveRefused.Inc()
		m.countRefusal("reserve", v)
	case v.GrantedTokens < asked:
		m.reservedLess.Inc()
	default:
		m.reserved.Inc()
	}
}

func (m *metrics) count(v *events.Verdict) {
	switch {
	case !v.Allowed:
		m.refused[v.Reason].Inc()
		m.countRefusal("check", v)
	case v.SoftCapWarning:
		m.warned.Inc()
	default:
		m.allowed.Inc()
	}
}

// countRefusal counts by what kind of limit refused. Names of limits, and values, are no labels:
// there may be any number of them.
func (m *metrics) countRefusal(question string, v *events.Verdict) {
	if v.Reason == events.ReasonGateStale {
		return
	}
	of := "limit"
	if v.Limit == budget.PortLimit {
		of = "port"
	}
	m.refusals.WithLabelValues(question, of, string(cmp.Or(v.Unit, budget.Tokens)), string(v.Period)).Inc()
}

func (m *metrics) countAlert(a *ledger.Alert) {
	of, reached := "port", a.Threshold
	if a.Counter != 0 {
		of = "limit"
	}
	if reached != budget.AtSoft && reached != budget.AtHard {
		reached = events.AlertAt
	}
	m.alerts.WithLabelValues(of, reached).Inc()
}
