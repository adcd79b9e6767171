package admin

import (
	"context"
	"sync"
	"time"
)

// recent keeps what takes long to read of all ports, so that no request but the first
// waits for it. Of few ports it is read for each request. Of many it is read by the side,
// when somebody asks, and so seldom that the reading takes at most a tenth of the time.
type recent[T any] struct {
	read func(ctx context.Context, now time.Time) (value T, many bool, err error)

	turn sync.Mutex // of who reads

	mu      sync.Mutex
	value   T
	many    bool
	at      time.Time     // that value is of, by the clock of who asked
	ended   time.Time     // its reading; zero: nothing was read yet
	took    time.Duration // its reading
	reading bool          // by the side
}

const (
	manyPorts   = 2000
	restFactor  = 9
	readTimeout = time.Minute
)

// get returns the value, and the time that it is of.
func (r *recent[T]) get(ctx context.Context, now time.Time) (T, time.Time, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.many {
		r.mu.Unlock()
		err := r.readAnew(ctx, now)
		r.mu.Lock()
		return r.value, r.at, err
	}
	if !r.reading && time.Since(r.ended) > restFactor*r.took {
		r.reading = true
		go func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeout)
			defer cancel()
			_ = r.readAnew(ctx, now) // who asks next tries again
			r.mu.Lock()
			defer r.mu.Unlock()
			r.reading = false
		}()
	}
	return r.value, r.at, nil
}

// readAnew reads, one at a time: who waited for a reading that began after the question takes that.
func (r *recent[T]) readAnew(ctx context.Context, now time.Time) error {
	asked := time.Now()
	r.turn.Lock()
	defer r.turn.Unlock()
	r.mu.Lock()
	known := r.ended.Add(-r.took).After(asked)
	r.mu.Unlock()
	if known {
		return nil
	}
	began := time.Now()
	value, many, err := r.read(ctx, now)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.value, r.many, r.at, r.ended, r.took = value, many, now, time.Now(), time.Since(began)
	return nil
}
