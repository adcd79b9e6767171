package stream

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/events"
)

const (
	watchEvery  = time.Second     // how often a [Watcher] looks
	lookTimeout = 2 * time.Second // how long NATS may take over one look
)

// Watcher tells a process whether its ledger has all that the usage stream was told it has,
// and what waits there.
type Watcher struct {
	js     jetstream.JetStream
	ledger Ledger

	adopts bool // this process is taking the stream over

	mu       sync.Mutex
	state    error
	progress progress
	backlog  atomic.Pointer[events.Backlog] // of progress
	copies   watchedCopies
}

// errUnknown is a watcher's state until it has compared stream and ledger once.
var errUnknown = errors.New("the ledger was not compared with its stream yet")

// NewWatcher returns a watcher, which knows nothing until [Watcher.Run] runs. adopts says
// that a consumer of this process takes over a stream of another ledger: until it has,
// that is no reason to end.
func NewWatcher(js jetstream.JetStream, ledger Ledger, adopts bool) *Watcher {
	return &Watcher{js: js, ledger: ledger, adopts: adopts, state: errUnknown}
}

// Behind is nil if, when it was last looked at, the ledger had all that the stream had
// acknowledged. While NATS or Postgres is away it says what it said last.
func (w *Watcher) Behind() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

// Run compares until ctx ends. It returns at once, with a [*ForeignError], if the stream
// belongs to another ledger.
func (w *Watcher) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var copies sync.WaitGroup
	copies.Go(func() { w.watchCopies(ctx) })
	defer copies.Wait()
	defer cancel()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		if err := w.look(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (w *Watcher) look(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	v, err := look(asking, w.js)
	var found waiting
	if err == nil {
		found, err = v.waiting(asking)
	}
	w.noteBacklog(found, err)
	if err != nil {
		return nil
	}
	reading, cancel := context.WithTimeout(ctx, 2*lookTimeout)
	defer cancel()
	p, err := v.compare(reading, w.ledger)
	if foreign := (*ForeignError)(nil); errors.As(err, &foreign) {
		if !w.adopts {
			return err
		}
		w.setState(err)
		return nil
	}
	switch {
	case errors.Is(err, ErrNoStream): // nothing was acknowledged
		w.setState(nil)
	case err != nil: // Postgres is away
	case p.Missing() > 0:
		w.adopts = false
		w.setState(&BehindError{p})
	default:
		w.adopts = false
		w.setState(nil)
	}
	return nil
}

func (w *Watcher) setState(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = err
}
