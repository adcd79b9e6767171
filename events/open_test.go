package events_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

// A program that opens, records and closes has reported everything, and holds nothing
// any more.
func TestOpen_CloseDelivers(t *testing.T) {
	b := startBus(t)
	nc := b.connect()
	usageStream(t, nc)
	c, err := events.Open(b.url(), events.FailOpen, nats.Name("a service"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		c.Record(call("p1", i))
	}
	if v, err := c.Check(t.Context(), events.CheckRequest{PortID: "p1"}); !v.Allowed || !errors.Is(err, events.ErrUnavailable) {
		t.Errorf("without a gate: %+v, %v", v, err)
	}
	if reservation, _ := c.Reserve(t.Context(), events.ReserveRequest{PortID: "p1", Feature: "ocr"}); reservation.Allowed {
		reservation.Settle(events.Usage{Provider: "anthropic", Model: "claude-sonnet", InputTokens: 5})
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if got := len(storedUsages(t, nc)); got != 101 {
		t.Errorf("%d events are in the stream, want 101", got)
	}
	if clients := b.srv.NumClients(); clients != 1 {
		t.Errorf("%d clients are connected, want this test alone", clients)
	}
}

func TestOpen_NeedsAPolicy(t *testing.T) {
	b := startBus(t)
	if c, err := events.Open(b.url(), 0); err == nil || c != nil || !strings.Contains(err.Error(), "FailOpen or events.FailClosed") {
		t.Errorf("%v, %v", c, err)
	}
	if _, err := events.Open("nats://a b", events.FailOpen); err == nil {
		t.Error("an address that is none was accepted")
	}
	testenv.Eventually(t, "nobody is connected", func() bool { return b.srv.NumClients() == 0 })
}

// dropped makes a publisher, has it used, and keeps nothing of it.
func dropped(t *testing.T, nc *nats.Conn, log *logBook, use func(*events.Publisher)) {
	p, err := events.NewPublisher(nc, events.PublisherConfig{Logger: log.logger()})
	if err != nil {
		t.Fatal(err)
	}
	use(p)
}

// Who forgets Close is told so as long as there is somebody to tell it, and loses
// nothing while the process lives.
func TestPublisher_SaysThatItWasDropped(t *testing.T) {
	nc, log := startBus(t).connect(), &logBook{}
	dropped(t, nc, log, func(p *events.Publisher) { // there is no stream yet, so that nothing is acknowledged
		for i := range 3 {
			p.Record(call("p1", i))
		}
	})
	testenv.Eventually(t, "the log says that the publisher was dropped", func() bool {
		runtime.GC()
		return strings.Contains(log.String(), "dropped without Close") && strings.Contains(log.String(), "waiting=3")
	})
	usageStream(t, nc)
	testenv.Eventually(t, "its events are in the stream", func() bool { return len(storedUsages(t, nc)) == 3 })
	if strings.Contains(log.String(), "lost=") {
		t.Error(log.String())
	}
	// That its goroutine has ended, TestMain finds.
}

// One that was closed, or is idle, is nothing to talk about. One that a client still
// has for its reservations lives.
func TestPublisher_DroppedInSilence(t *testing.T) {
	nc, log := startBus(t).connect(), &logBook{}
	usageStream(t, nc)
	dropped(t, nc, log, func(p *events.Publisher) {
		p.Record(call("p1", 1))
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	dropped(t, nc, log, func(p *events.Publisher) {
		p.Record(call("p1", 2))
		if err := p.Flush(t.Context()); err != nil {
			t.Error(err)
		}
	})
	var client *events.Client
	dropped(t, nc, log, func(p *events.Publisher) {
		var err error
		if client, err = events.NewClient(nc, events.ClientConfig{WhenUnavailable: events.FailOpen, Publisher: p}); err != nil {
			t.Fatal(err)
		}
	})
	for range 5 {
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	reservation, _ := client.Reserve(t.Context(), events.ReserveRequest{PortID: "p1", Feature: "ocr"}) // no gate: the policy allows
	reservation.Settle(events.Usage{Provider: "anthropic", Model: "claude-sonnet"})
	testenv.Eventually(t, "the settled call is in the stream", func() bool { return len(stored(t, nc)) == 3 })
	if log.String() != "" {
		t.Error(log.String())
	}
}

// A connection that is closed under its publisher never comes back: what waits is lost,
// and the log says so at once, not that it is tried again.
func TestPublisher_SaysThatItsConnectionWasClosed(t *testing.T) {
	nc, log := startBus(t).connect(), &logBook{}
	p := newPublisher(t, nc, events.PublisherConfig{Logger: log.logger()}) // no stream
	p.Record(call("p1", 1))
	p.Record(call("p1", 2))
	nc.Close()
	testenv.Eventually(t, "the log says what is lost", func() bool { return strings.Contains(log.String(), "lost=2 nats=CLOSED") })
	if diff := cmp.Diff(events.Stats{Recorded: 2, Dropped: 2}, p.Stats(), ignoreRetries); diff != "" {
		t.Error("stats (-want +got):\n", diff)
	}
}

// What is recorded after Close is lost, which a program would not notice otherwise.
func TestPublisher_SaysWhatComesTooLate(t *testing.T) {
	log := &logBook{}
	p := newPublisher(t, startBus(t).connect(), events.PublisherConfig{Logger: log.logger()})
	if err := p.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		p.Record(call("p1", i))
	}
	testenv.Eventually(t, "the log says so", func() bool { return strings.Contains(log.String(), "after its publisher") })
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("it says so %d times:\n%s", n, log.String())
	}
}
