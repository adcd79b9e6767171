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

// watchEvery is how often a [Watcher] looks.
const watchEvery = time.Second

// Watcher tells a process whether its ledger has all that the usage stream was told it has,
// and what waits there.
type Watcher struct {
	js     jetstream.JetStream
	ledger Ledger

	mu       sync.Mutex
	state    error
	progress progress
	backlog  atomic.Pointer[events.Backlog] // of progress
}

// errUnknown is a watcher's state until it has compared stream and ledger once.
var errUnknown = errors.New("the ledger was not compared with its stream yet")

// NewWatcher returns a watcher, which knows nothing until [Watcher.Run] runs.
func NewWatcher(js jetstream.JetStream, ledger Ledger) *Watcher {
	return &Watcher{js: js, ledger: ledger, state: errUnknown}
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
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		w.lookAtBacklog(ctx)
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
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	p, err := Compare(ctx, w.js, w.ledger)
	var state error
	if foreign := (*ForeignError)(nil); errors.As(err, &foreign) {
		return err
	} else if err != nil && !errors.Is(err, ErrNoStream) { // without a stream nothing was acknowledged
		return nil
	}
	if p.Missing() > 0 {
		state = &BehindError{p}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = state
	return nil
}
