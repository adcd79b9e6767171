package consumer

import (
	"context"
	"sync"
	"time"
)

// inFlight knows every part of a batch that was fetched and not settled yet, and
// keeps the server from delivering it to somebody else meanwhile.
type inFlight struct {
	mu    sync.Mutex
	parts map[*delivery][]delivery // by its first message
	open  sync.WaitGroup           // one for each
}

func (f *inFlight) add(part []delivery) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.parts == nil {
		f.parts = map[*delivery][]delivery{}
	}
	f.parts[&part[0]] = part
	f.open.Add(1)
}

func (f *inFlight) remove(part []delivery) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.parts, &part[0])
	f.open.Done()
}

// wait returns when every part is settled. Only who adds parts may call it.
func (f *inFlight) wait() { f.open.Wait() }

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
			for _, part := range f.parts {
				for i := range part {
					if i == 0 || part[i].msg != part[i-1].msg {
						_ = part[i].msg.InProgress() // on failure, or if it is settled, no harm: its ids are known
					}
				}
			}
			f.mu.Unlock()
		}
	}
}
