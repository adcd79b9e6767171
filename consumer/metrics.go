package consumer

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	booked      prometheus.Counter
	duplicates  prometheus.Counter
	quarantined *prometheus.CounterVec
	batchSize   prometheus.Histogram
	bookSeconds prometheus.Histogram
	bookErrors  prometheus.Counter

	unsettled, unsettledTokens prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, setAside func() float64) metrics {
	f := promauto.With(reg)
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "tidegate_quarantine_set_aside_messages",
		Help: "Messages of which an event was refused and cannot be copied to the quarantine now. They stay in the stream and are tried again."}, setAside)
	return metrics{
		booked: f.NewCounter(prometheus.CounterOpts{Name: "tidegate_events_booked_total",
			Help: "Usage events written to the ledger by this process."}),
		duplicates: f.NewCounter(prometheus.CounterOpts{Name: "tidegate_events_duplicate_total",
			Help: "Usage events delivered again after they were booked."}),
		quarantined: f.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_events_quarantined_total",
			Help: "Usage events that could not be booked, by reason."}, []string{"reason"}),
		batchSize: f.NewHistogram(prometheus.HistogramOpts{Name: "tidegate_batch_events",
			Help: "Events fetched at once.", Buckets: prometheus.ExponentialBuckets(1, 4, 8)}),
		bookSeconds: f.NewHistogram(prometheus.HistogramOpts{Name: "tidegate_book_seconds",
			Help: "Time one booking transaction took.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 14)}),
		bookErrors: f.NewCounter(prometheus.CounterOpts{Name: "tidegate_book_errors_total",
			Help: "Bookings that failed and were tried again."}),
		unsettled: f.NewCounter(prometheus.CounterOpts{Name: "tidegate_holds_unsettled_total",
			Help: "Holds that expired without a usage event: calls that were allowed and never reported. By port: tidegate holds."}),
		unsettledTokens: f.NewCounter(prometheus.CounterOpts{Name: "tidegate_holds_unsettled_tokens_total",
			Help: "Tokens of those holds."}),
	}
}
