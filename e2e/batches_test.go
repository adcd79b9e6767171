package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/consumer"
	"github.com/tidegate/tidegate/events"
)

// Few events share one transaction, and what comes meanwhile waits in the stream for
// the next one, whole.
func TestFewEventsAreBookedAtOnceAndAlone(t *testing.T) {
	metrics := prometheus.NewRegistry()
	s := start(t, options{consumer: func(c *consumer.Config) { c.Registerer, c.AckWait = metrics, time.Minute }})
	count := func(histogram string) uint64 {
		for _, family := range must(metrics.Gather()) {
			if family.GetName() == histogram {
				return family.GetMetric()[0].GetHistogram().GetSampleCount()
			}
		}
		t.Fatalf("there is no %s", histogram)
		return 0
	}
	durable := must(s.js.Consumer(t.Context(), events.UsageStream, events.ConsumerName))
	fetched := func() *jetstream.ConsumerInfo { return must(durable.Info(t.Context())) }
	publish := func() {
		usages := make([]events.Usage, 100)
		for i := range usages {
			usages[i] = usage(fmt.Sprintf("port-%d", i), 10)
		}
		if err := s.publisher.Publish(t.Context(), usages); err != nil {
			t.Fatal(err)
		}
	}

	busy := must(s.db.Begin(t.Context()))
	must(busy.Exec(t.Context(), "lock table ai_usage_port_days in exclusive mode"))
	publish()
	first := 0
	s.eventually("the first events are fetched, and no more", func() bool {
		before := first
		time.Sleep(300 * time.Millisecond)
		first = fetched().NumAckPending
		return first > 0 && first == before
	})
	publish()
	time.Sleep(300 * time.Millisecond)
	if n := fetched().NumAckPending; n != first {
		t.Errorf("%d events are fetched while %d are being booked", n-first, first)
	}
	if err := busy.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.eventually("all are booked", func() bool { return s.rows() == 200 })
	s.eventually("all are acknowledged", func() bool { info := fetched(); return info.NumAckPending == 0 && info.NumPending == 0 })
	if batches, bookings := count("tidegate_batch_events"), count("tidegate_book_seconds"); bookings != batches {
		t.Errorf("%d transactions for %d batches", bookings, batches)
	}
	s.eventually("verify finds no difference", s.verified)
}
