package consumer

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A batch ends by its messages, or by their bytes: events are counted only once they are
// decoded, and as many bytes hold as many of them, in few large messages as in many small ones.
func TestRoomOfABatch(t *testing.T) {
	c := &Consumer{cfg: Config{BatchSize: 25_000}}
	for _, b := range []struct {
		name        string
		n, bytes    int
		least, most int
	}{
		{"an event a message, at first", 1, 400, pullSize, pullSize},
		{"an event a message, near the end", 24_000, 24_000 * 400, 1_000, 1_000},
		{"full messages, at first", 1, 16_000, 600, 700},
		{"full messages, near the end", 600, 600 * 16_000, 1, 60},
		{"empty messages", 10, 0, pullSize, pullSize},
		{"as many messages as may be", 25_000, 25_000, 0, 0},
		{"as many bytes as may be", 700, 700 * 16_000, 0, 0},
	} {
		if room := c.room(&intake{n: b.n, bytes: b.bytes}); room < b.least || room > b.most {
			t.Errorf("%s: room for %d messages, want %d to %d", b.name, room, b.least, b.most)
		}
	}
}

// pulls is a durable that answers with as many messages as its pulls say, and never with
// more than it was asked for.
type pulls struct {
	jetstream.Consumer
	has   []int
	asked []int
}

func (p *pulls) Fetch(n int, _ ...jetstream.FetchOpt) (jetstream.MessageBatch, error) {
	p.asked = append(p.asked, n)
	messages := make(delivered, min(n, p.has[len(p.asked)-1]))
	for i := range messages {
		messages[i] = &progress{bytes: 8}
	}
	return messages, nil
}

func (p *pulls) FetchNoWait(n int) (jetstream.MessageBatch, error) { return p.Fetch(n) }

type delivered []jetstream.Msg

func (d delivered) Messages() <-chan jetstream.Msg {
	all := make(chan jetstream.Msg, len(d))
	for _, msg := range d {
		all <- msg
	}
	close(all)
	return all
}

func (delivered) Error() error { return nil }

// slowPull is a pull whose messages come one by one.
type slowPull chan jetstream.Msg

func (s slowPull) Messages() <-chan jetstream.Msg { return s }
func (slowPull) Error() error                     { return nil }

// progress is a message that counts how often the server was told that it is worked on.
type progress struct {
	jetstream.Msg
	bytes int
	told  atomic.Int32
}

func (p *progress) InProgress() error { p.told.Add(1); return nil }

func (p *progress) Data() []byte                            { return make([]byte, p.bytes) }
func (*progress) Headers() nats.Header                      { return nil }
func (*progress) Subject() string                           { return "ai.usage.p1" }
func (*progress) Metadata() (*jetstream.MsgMetadata, error) { return &jetstream.MsgMetadata{}, nil }

// What comes while a batch lingers has what room is left, not what there was before.
func TestBatchKeepsToItsSize(t *testing.T) {
	for _, has := range [][]int{{1, 8, 9}, {1, 0, 9}, {1, 9}, {1, 5, 2}} {
		c := &Consumer{cfg: Config{BatchSize: 10}}
		durable, in := &pulls{has: append(has, 0, 0)}, newIntake(writers, time.Time{})
		if err := c.fetch(durable, in, time.Millisecond); err != nil {
			t.Fatal(err)
		}
		in.finish()
		if in.n > c.cfg.BatchSize {
			t.Errorf("pulls of %v that were asked for %v filled a batch of %d with %d messages", has, durable.asked, c.cfg.BatchSize, in.n)
		}
	}
}

// A batch waits for its writers when Postgres is away. All of it is kept from being
// delivered to somebody else, from its first message on: also what the second writer is
// to get, and while more of it is fetched.
func TestAllOfABatchIsKeptAlive(t *testing.T) {
	c := &Consumer{cfg: Config{BatchSize: 10}}
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { c.inFlight.keepAlive(ctx, 5*time.Millisecond, func() bool { return false }) })
	alive := func(when string, messages ...*progress) {
		t.Helper()
		begun := make([]int32, len(messages))
		for i, msg := range messages {
			begun[i] = msg.told.Load()
		}
		for i, msg := range messages {
			for end := time.Now().Add(10 * time.Second); msg.told.Load() < begun[i]+2; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("%s: the server was not told of message %d", when, i)
				}
			}
		}
	}
	first, second := &progress{bytes: chunkBytes}, &progress{}
	pull, busy := make(slowPull), []chan part{make(chan part), make(chan part)}
	in := newIntake(2, time.Time{})
	in.flight = c.inFlight.begin()
	group.Go(func() {
		_ = in.takeAll(pull, nil)
		in.finish()
		c.handOver([]part{{flight: in.flight}, {flight: in.flight}}, false, busy)
	})
	pull <- first
	alive("while more is fetched", first)
	pull <- second
	close(pull)
	alive("while the writers are busy", first, second)
	for _, queue := range busy {
		c.inFlight.end((<-queue).flight, fate{}, func([]fate) {})
	}
	c.inFlight.wait()
	if list := c.inFlight.due(0); len(list) > 0 {
		t.Errorf("%d chunks are kept alive after all was settled", len(list))
	}
	stop()
	group.Wait()
}
