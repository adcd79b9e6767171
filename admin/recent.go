package admin

import (
	"context"
	"sync"
	"time"
)

// recent keeps what takes long to read of all ports, so that no request but the first
// waits for it. Of few ports it is read for each request. Of many, or where there is much to
// read, it is read by the side, when somebody asks, and so seldom that the reading takes at
// most a tenth of the time.
type recent[T any] struct {
	read func(ctx context.Context, now time.Time) (value T, many bool, err error) // for get

	mu      sync.Mutex
	value   T
	many    bool
	at      time.Time // that value is of, by the clock of who asked
	ended   time.Time // its reading; zero: nothing was read yet
	took    time.Duration
	reading chan struct{} // closed when the reading under way has ended; nil: none is
	failed  error         // of the last reading
}

const (
	manyPorts   = 2000
	restFactor  = 9
	readTimeout = 2 * time.Minute
)

// get returns the value, and the time that it is of. A reading goes on when who waits for
// it gives up: then the next one finds it.
func (r *recent[T]) get(ctx context.Context, now time.Time) (T, time.Time, error) {
	return r.getBy(ctx, now, r.read)
}

// getBy is get for what is read from something that the caller has.
func (r *recent[T]) getBy(ctx context.Context, now time.Time, read func(ctx context.Context, now time.Time) (value T, many bool, err error)) (T, time.Time, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.reading != nil && !r.many { // it may have begun before something that the caller knows of
		if err := r.wait(ctx); err != nil {
			return r.value, r.at, err
		}
	}
	if r.reading == nil && time.Since(r.ended) > r.rest() {
		r.reading = make(chan struct{})
		go r.readAnew(context.WithoutCancel(ctx), now, read)
		if r.many {
			return r.value, r.at, nil
		}
		err := r.wait(ctx)
		if err == nil {
			err = r.failed
		}
		return r.value, r.at, err
	}
	return r.value, r.at, nil
}

// rest is how long the value is good for.
func (r *recent[T]) rest() time.Duration {
	if !r.many {
		return -1
	}
	return restFactor * r.took
}

// wait waits for the reading under way, and lets go of the lock for that time.
func (r *recent[T]) wait(ctx context.Context) error {
	ended := r.reading
	r.mu.Unlock()
	defer r.mu.Lock()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *recent[T]) readAnew(ctx context.Context, now time.Time, read func(ctx context.Context, now time.Time) (value T, many bool, err error)) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	began := time.Now()
	value, many, err := read(ctx, now)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed = err; err == nil {
		r.value, r.many, r.at, r.ended, r.took = value, many, now, time.Now(), time.Since(began)
	}
	close(r.reading)
	r.reading = nil
}
