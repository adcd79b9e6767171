package alert

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tidegate/tidegate/ledger"
)

type metrics struct {
	attempts        *prometheus.CounterVec
	waiting, oldest *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer, receivers []*Receiver) metrics {
	f := promauto.With(reg)
	m := metrics{
		attempts: f.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_alert_deliveries_total",
			Help: "Attempts of this process to deliver alerts, by receiver and outcome: delivered, failed; given_up counts those after which no other follows."}, []string{"receiver", "outcome"}),
		waiting: f.NewGaugeVec(prometheus.GaugeOpts{Name: "tidegate_alert_deliveries_waiting",
			Help: "Alerts on their way to a receiver, of all processes."}, []string{"receiver"}),
		oldest: f.NewGaugeVec(prometheus.GaugeOpts{Name: "tidegate_alert_deliveries_oldest_seconds",
			Help: "Age of the oldest alert that is on its way to a receiver, 0: none is."}, []string{"receiver"}),
	}
	for _, r := range receivers {
		for _, outcome := range []string{"delivered", "failed", "given_up"} {
			m.attempts.WithLabelValues(r.Name, outcome)
		}
	}
	return m
}

func (m *metrics) count(r *Receiver, outcome string) {
	m.attempts.WithLabelValues(r.Name, outcome).Inc()
}

// wait sets what waits of each receiver that there is; names of others are no labels.
func (m *metrics) wait(receivers []*Receiver, all []ledger.Waiting) {
	byName := map[string]ledger.Waiting{}
	for _, w := range all {
		byName[w.Receiver] = w
	}
	for _, r := range receivers {
		m.waiting.WithLabelValues(r.Name).Set(float64(byName[r.Name].Deliveries))
		m.oldest.WithLabelValues(r.Name).Set(byName[r.Name].Oldest.Seconds())
	}
}
