package consumer

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff waits 100 ms, then twice as long each time up to most, each wait
// shortened by up to half at random so that replicas do not march in step.
type backoff struct{ next, most time.Duration }

func newBackoff() *backoff { return &backoff{next: 100 * time.Millisecond, most: 3 * time.Second} }

func (b *backoff) sleep(ctx context.Context) {
	timer := time.NewTimer(b.next/2 + rand.N(b.next/2))
	defer timer.Stop()
	b.next = min(2*b.next, b.most)
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
