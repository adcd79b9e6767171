package consumer

import (
	"fmt"
	"sync"
	"time"
)

const (
	troubleTold = 3 * time.Second // for how long no booking may succeed before that is worth telling
	// handOver is for how long none may before other consumers get what this one has fetched: their
	// way to Postgres may be better. It fetches nothing meanwhile, and goes on trying.
	handOver = 10 * time.Second
)

// trouble is why bookings fail.
type trouble struct {
	mu    sync.Mutex
	since time.Time // zero: the last one did not
	err   error
}

func (t *trouble) note(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = err
	if err == nil {
		t.since = time.Time{}
	} else if t.since.IsZero() {
		t.since = time.Now()
	}
}

func (t *trouble) hopeless() bool { return t.lasts(handOver) != nil }

// lasts is the error if bookings have failed for that long.
func (t *trouble) lasts(long time.Duration) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.since.IsZero() || time.Since(t.since) < long {
		return nil
	}
	return fmt.Errorf("events cannot be booked since %s: %w", t.since.UTC().Format(time.RFC3339), t.err)
}
