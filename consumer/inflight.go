package consumer

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// inFlight knows every message that was fetched and not settled yet, and keeps
// the server from delivering it to somebody else meanwhile.
type inFlight struct {
	mu   sync.Mutex
	msgs map[jetstream.Msg]struct{}
}

func (f *inFlight) add(msgs []jetstream.Msg) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.msgs == nil {
		f.msgs = make(map[jetstream.Msg]struct{}, len(msgs))
	}
	for _, m := range msgs {
		f.msgs[m] = struct{}{}
	}
}

func (f *inFlight) remove(msgs []jetstream.Msg) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range msgs {
		delete(f.msgs, m)
	}
}

// keepAlive tells the server about work in progress until ctx ends. In normal
// times a message is settled long before the first tick.
func (f *inFlight) keepAlive(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f.mu.Lock()
			for m := range f.msgs {
				_ = m.InProgress() // on failure the message is delivered again and recognised
			}
			f.mu.Unlock()
		}
	}
}
