package consumer

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/ledger"
)

// inFlight knows every batch of which something was fetched and is not settled yet, and
// keeps the server from delivering it to somebody else meanwhile.
type inFlight struct {
	mu      sync.Mutex
	flights map[*flight]struct{}
	open    sync.WaitGroup // one for each part that was handed over
}

// flight is one batch, from its first message on.
type flight struct {
	mu     sync.Mutex
	chunks []*chunk
	letGo  atomic.Bool // others may have got it since

	// Guarded by inFlight.mu.
	parts int    // handed over
	ended []fate // of the parts
}

// fate is what came of a part.
type fate struct {
	events   []delivery
	outcomes []ledger.Outcome // one for each, if done
	done     bool             // otherwise it is handed back
}

// chunk is some messages that came together.
type chunk struct {
	messages []jetstream.Msg
	told     time.Time // when the server last knew that they are worked on
}

// begin expects a batch.
func (f *inFlight) begin() *flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.flights == nil {
		f.flights = map[*flight]struct{}{}
	}
	b := &flight{}
	f.flights[b] = struct{}{}
	return b
}

// add takes note of messages that were sent at the given time at the earliest.
func (b *flight) add(messages []jetstream.Msg, sent time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.chunks = append(b.chunks, &chunk{messages, sent})
}

// handOver says in how many parts a batch is booked. One without any has ended.
func (f *inFlight) handOver(b *flight, parts int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open.Add(parts)
	if b.parts = parts; parts == 0 {
		delete(f.flights, b)
	}
}

// end says what came of a part. The last one of its batch settles all of it.
func (f *inFlight) end(b *flight, came fate, settle func([]fate)) {
	defer f.open.Done()
	f.mu.Lock()
	b.ended = append(b.ended, came)
	last := len(b.ended) == b.parts
	f.mu.Unlock()
	if !last {
		return
	}
	settle(b.ended)
	f.mu.Lock()
	delete(f.flights, b)
	f.mu.Unlock()
}

// wait returns when every part is settled. Only who hands parts over may call it.
func (f *inFlight) wait() { f.open.Wait() }

// keepAlive tells the server about work in progress until ctx ends: of each message after
// a time, an eighth more at most, and after that again. On a quiet system a message is
// settled long before. While hopeless says so, the server is left to deliver it to others.
func (f *inFlight) keepAlive(ctx context.Context, after time.Duration, hopeless func() bool) {
	every(ctx, after/8, func() {
		if hopeless() {
			f.letGo()
			return
		}
		for _, c := range f.due(after) {
			for _, msg := range c.messages {
				_ = msg.InProgress() // on failure, or if it is settled, no harm: its ids are known
			}
		}
	})
}

func (f *inFlight) letGo() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for b := range f.flights {
		b.letGo.Store(true)
	}
}

// due lists the chunks that the server last heard of that long ago.
func (f *inFlight) due(after time.Duration) (list []*chunk) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	for b := range f.flights {
		b.mu.Lock()
		for _, c := range b.chunks {
			if now.Sub(c.told) >= after {
				c.told = now
				list = append(list, c)
			}
		}
		b.mu.Unlock()
	}
	return list
}
