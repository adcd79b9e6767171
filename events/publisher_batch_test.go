package events_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

// recordPorts records an event of each of that many ports, and returns them as wantStored
// wants them.
func recordPorts(p *events.Publisher, ports int) (recorded []string) {
	for i := range ports {
		u := call(fmt.Sprint("p", i), i)
		p.Record(u)
		recorded = append(recorded, u.PortID+"/"+u.RequestID)
	}
	return recorded
}

func TestPublisher_ManyMessagesAreABatch(t *testing.T) {
	for ports, batch := range map[int]bool{3: false, 300: true} {
		nc := startBus(t).connect()
		usageStream(t, nc)
		p := newPublisher(t, nc, events.PublisherConfig{Linger: time.Hour})
		recorded := recordPorts(p, ports)
		if err := p.Close(within(t, 20*time.Second)); err != nil {
			t.Fatal(err)
		}
		ids := map[string]int{}
		for _, msg := range stored(t, nc) {
			ids[msg.Header.Get("Nats-Batch-Id")]++
		}
		if len(ids) != 1 || ids[""] > 0 == batch {
			t.Errorf("%d messages came in these batches: %v", ports, ids)
		}
		wantStored(t, nc, recorded)
	}
}

func TestPublisher_StreamWithoutAtomicBatches(t *testing.T) {
	t.Parallel()
	nc := startBus(t).connect()
	usageStream(t, nc, func(c *jetstream.StreamConfig) { c.AllowAtomicPublish = false })
	p := newPublisher(t, nc, events.PublisherConfig{Linger: time.Hour})
	recorded := recordPorts(p, 1500)
	if err := p.Close(within(t, 60*time.Second)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(events.Stats{Recorded: 1500, Published: 1500}, p.Stats(), ignoreRetries); diff != "" {
		t.Error("stats (-want +got):\n", diff)
	}
	wantStored(t, nc, recorded)
	if n := len(stored(t, nc)); n != 1500 {
		t.Errorf("%d messages are stored, want each once", n)
	}
}

// A publisher that was told, or has seen, that batches are not taken tries none again: it
// would send everything twice.
func TestPublisher_TriesBatchesOnce(t *testing.T) {
	for name, server := range map[string]func(t *testing.T, nc *nats.Conn){
		"the stream takes none": func(t *testing.T, nc *nats.Conn) {
			usageStream(t, nc, func(c *jetstream.StreamConfig) { c.AllowAtomicPublish = false })
		},
		"the server does not know them": func(t *testing.T, nc *nats.Conn) { // it stores each message as it comes
			testenv.Must(nc.Subscribe(events.SubjectUsage+".*", func(msg *nats.Msg) {
				_ = msg.Respond([]byte(`{"stream":"AI_USAGE","seq":1}`))
			}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			nc := startBus(t).connect()
			server(t, nc)
			var batched atomic.Int64
			testenv.Must(nc.Subscribe(events.SubjectUsage+".*", func(msg *nats.Msg) {
				if msg.Header.Get("Nats-Batch-Id") != "" {
					batched.Add(1)
				}
			}))
			p := newPublisher(t, nc, events.PublisherConfig{})
			for try, want := range []bool{true, false} {
				batched.Store(0)
				recordPorts(p, 20)
				if err := p.Flush(within(t, 20*time.Second)); err != nil {
					t.Fatal(err)
				}
				if n := batched.Load(); n > 0 != want {
					t.Errorf("%d of 20 messages were in batches in flush %d", n, try+1)
				}
			}
		})
	}
}

func TestPublisher_LimitsOfTheServer(t *testing.T) {
	t.Parallel()
	for name, limits := range map[string]server.JSLimitOpts{
		"one open batch at a time": {MaxBatchInflightPerStream: 1},
		"batches of 20":            {MaxBatchSize: 20},
	} {
		t.Run(name, func(t *testing.T) {
			b := startBus(t, func(o *server.Options) { o.JetStreamLimits = limits })
			nc := b.connect()
			usageStream(t, nc)
			var publishers sync.WaitGroup
			for range 6 {
				p := newPublisher(t, b.connect(), events.PublisherConfig{})
				publishers.Go(func() {
					for range 3 {
						recordPorts(p, 100)
						if err := p.Flush(within(t, 60*time.Second)); err != nil {
							t.Error(err)
						}
					}
				})
			}
			publishers.Wait()
			if n := len(storedUsages(t, nc)); n != 1800 {
				t.Errorf("stored %d of 1800", n)
			}
		})
	}
}
