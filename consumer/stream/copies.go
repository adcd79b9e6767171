package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/replication"
)

// CheckCopies returns a [*replication.RefusedError] if the usage stream or the quarantine is
// there and has fewer copies than replicas; 0 stands for three on a cluster and one on a lone
// server.
func CheckCopies(ctx context.Context, js jetstream.JetStream, replicas int) error {
	for _, name := range []string{events.UsageStream, events.QuarantineStream} {
		stream, err := ask(ctx, js, name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("stream %s: %w", name, err)
		}
		if err := replication.Check(stream.CachedInfo(), replicas); err != nil {
			return err
		}
	}
	return nil
}

// watchedCopies are the streams whose copies a [Watcher] looks at. Somebody may edit a stream
// while everything runs, and nothing else would tell.
type watchedCopies struct {
	replicas int
	streams  []string
	few      map[string]error // what is wrong with a stream, guarded by Watcher.mu
	missing  *prometheus.GaugeVec
}

// WatchCopies makes the watcher look whether streams have as many copies; 0 stands for three
// on a cluster and one on a lone server. It is called before Register and Run.
func (w *Watcher) WatchCopies(replicas int, streams ...string) {
	w.copies = watchedCopies{replicas: replicas, streams: streams, few: map[string]error{}}
}

// Copies says which of the streams was made to have too few copies, when it was last looked at;
// nil: none. That a node is away is no reason.
func (w *Watcher) Copies() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []error
	for _, stream := range w.copies.streams {
		all = append(all, w.copies.few[stream])
	}
	return errors.Join(all...)
}

// copiesEvery is how often a [Watcher] looks at copies. It does that beside comparing, and seldom:
// a question that NATS does not permit has no answer, and is logged there.
const copiesEvery = 10 * time.Second

func (w *Watcher) watchCopies(ctx context.Context) {
	tick := time.NewTicker(copiesEvery)
	defer tick.Stop()
	for {
		w.lookAtCopies(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (w *Watcher) lookAtCopies(ctx context.Context) {
	for _, name := range w.copies.streams {
		stream, err := ask(ctx, w.js, name)
		if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			continue // what was known last holds
		}
		var few error
		missing := 0
		if err == nil {
			few, missing = replication.Check(stream.CachedInfo(), w.copies.replicas), replication.Missing(stream.CachedInfo(), w.copies.replicas)
		}
		if w.copies.missing != nil {
			w.copies.missing.WithLabelValues(name).Set(float64(missing))
		}
		w.mu.Lock()
		w.copies.few[name] = few
		w.mu.Unlock()
	}
}
