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
	fetchErrors prometheus.Counter
	eventAge    prometheus.Histogram
	lastBooking prometheus.Gauge
	unbooked    prometheus.Gauge

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
		fetchErrors: f.NewCounter(prometheus.CounterOpts{Name: "tidegate_fetch_errors_total",
			Help: "Fetches from the usage stream that failed and were tried again."}),
		eventAge: f.NewHistogram(prometheus.HistogramOpts{Name: "tidegate_event_age_seconds",
			Help: "Age of usage events when they were booked, by the time that their ids have.", Buckets: []float64{0.01, 0.05, 0.25, 1, 5, 30, 300, 3600, 86400}}),
		lastBooking: f.NewGauge(prometheus.GaugeOpts{Name: "tidegate_last_booking_timestamp_seconds",
			Help: "When this process last booked an event, Unix time; 0: not since it began."}),
		unbooked: f.NewGauge(prometheus.GaugeOpts{Name: "tidegate_stream_lost_messages",
			Help: "Messages of usage streams that were deleted or lost within 35 days, which were not booked by then, as far as is known. They are lost unless their publishers still have them."}),
		unsettled: f.NewCounter(prometheus.CounterOpts{Name: "tidegate_holds_unsettled_total",
			Help: "Holds that expired without a usage event: calls that were allowed and never reported. By port: tidegate holds."}),
		unsettledTokens: f.NewCounter(prometheus.CounterOpts{Name: "tidegate_holds_unsettled_tokens_total",
			Help: "Tokens of those holds."}),
	}
}
