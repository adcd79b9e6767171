package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/consumer"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

// publishHundred publishes an event of each of a hundred ports.
func (s *system) publishHundred() {
	s.t.Helper()
	usages := make([]events.Usage, 100)
	for i := range usages {
		usages[i] = usage(fmt.Sprintf("port-%d", i), 10)
	}
	if err := s.publisher.Publish(s.t.Context(), usages); err != nil {
		s.t.Fatal(err)
	}
}

// Few events share one transaction, and what comes meanwhile waits in the stream for
// the next one, whole.
func TestFewEventsAreBookedAtOnceAndAlone(t *testing.T) {
	metrics := prometheus.NewRegistry()
	s := start(t, options{consumer: func(c *consumer.Config) { c.Registerer, c.AckWait = metrics, time.Minute }})
	count := func(histogram string) uint64 {
		for _, family := range testenv.Must(metrics.Gather()) {
			if family.GetName() == histogram {
				return family.GetMetric()[0].GetHistogram().GetSampleCount()
			}
		}
		t.Fatalf("there is no %s", histogram)
		return 0
	}
	durable := testenv.Must(s.js.Consumer(t.Context(), events.UsageStream, events.ConsumerName))
	fetched := func() *jetstream.ConsumerInfo { return testenv.Must(durable.Info(t.Context())) }

	busy := testenv.Must(s.db.Begin(t.Context()))
	testenv.Must(busy.Exec(t.Context(), "lock table ai_usage_port_days in exclusive mode"))
	s.publishHundred()
	first := 0
	testenv.Eventually(s.t, "the first events are fetched, and no more", func() bool {
		before := first
		time.Sleep(300 * time.Millisecond)
		first = fetched().NumAckPending
		return first > 0 && first == before
	})
	s.publishHundred()
	time.Sleep(300 * time.Millisecond)
	if n := fetched().NumAckPending; n != first {
		t.Errorf("%d events are fetched while %d are being booked", n-first, first)
	}
	if err := busy.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(s.t, "all are booked", func() bool { return s.rows() == 200 })
	testenv.Eventually(s.t, "all are acknowledged", func() bool { return s.waiting() == 0 })
	if batches, bookings := count("tidegate_batch_events"), count("tidegate_book_seconds"); bookings != batches {
		t.Errorf("%d transactions for %d batches", bookings, batches)
	}
	testenv.Eventually(s.t, "verify finds no difference", s.verified)
}

// What a consumer has fetched and cannot book before its drain deadline goes back to the
// stream: the next one need not wait until the server gives up on the first.
func TestWhatCannotBeBookedInTimeIsHandedBack(t *testing.T) {
	t.Parallel()
	s := start(t, options{noRoles: true})
	run := func(ctx context.Context) error {
		return testenv.Must(consumer.New(consumer.Config{Conn: testenv.Connect(t, s.nats), Ledger: s.ledger, AckWait: time.Minute, DrainTimeout: 300 * time.Millisecond})).Run(ctx)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	var durable jetstream.Consumer
	testenv.Eventually(s.t, "the consumer is there", func() (ok bool) {
		var err error
		durable, err = s.js.Consumer(t.Context(), events.UsageStream, events.ConsumerName)
		return err == nil
	})

	busy := testenv.Must(s.db.Begin(t.Context()))
	testenv.Must(busy.Exec(t.Context(), "lock table ai_usage_port_days in exclusive mode"))
	s.publishHundred()
	testenv.Eventually(s.t, "all events are fetched", func() bool { return testenv.Must(durable.Info(t.Context())).NumAckPending == 100 })
	stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the consumer ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the consumer did not end: its drain deadline was 300 ms")
	}
	if n := s.rows(); n != 0 {
		t.Errorf("%d events are booked although the totals were locked", n)
	}
	if err := busy.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.background(run)
	testenv.Eventually(s.t, "the next consumer has booked them", func() bool { return s.rows() == 100 })
	s.compare("after the hand-over")
}
