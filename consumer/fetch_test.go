package consumer

import (
	"context"
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
		messages[i] = &progress{}
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

// progress is a message that counts how often the server was told that it is worked on.
type progress struct {
	jetstream.Msg
	told atomic.Int32
}

func (p *progress) InProgress() error { p.told.Add(1); return nil }

func (*progress) Data() []byte                              { return []byte("no event") }
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
// delivered to somebody else, also what the second writer is to get.
func TestAllOfABatchIsKeptAlive(t *testing.T) {
	c := &Consumer{}
	busy := []chan part{make(chan part), make(chan part)}
	parts := make([]part, len(busy))
	var all []*progress
	for i := range parts {
		for range 3 {
			msg := &progress{}
			all = append(all, msg)
			parts[i].events = append(parts[i].events, delivery{msg: &message{Msg: msg}})
		}
	}
	handed := make(chan struct{})
	go func() { defer close(handed); c.handOver(parts, false, busy) }()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); c.inFlight.keepAlive(ctx, 5*time.Millisecond) }()
	for end := time.Now().Add(10 * time.Second); all[0].told.Load() < 3 && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	for i, msg := range all {
		if msg.told.Load() == 0 {
			t.Errorf("message %d was never kept alive while the writers were busy", i)
		}
	}
	for _, queue := range busy {
		<-queue
	}
	<-handed
	stop()
	<-ended
}
