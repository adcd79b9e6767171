package stream

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/events"
)

// silent is a JetStream without streams, that does not answer about alerts: who asks is not
// permitted to.
type silent struct {
	jetstream.JetStream
	alerts, usage atomic.Int64 // questions
}

func (s *silent) Stream(ctx context.Context, name string) (jetstream.Stream, error) {
	if name == events.AlertStream {
		s.alerts.Add(1)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	s.usage.Add(1)
	return nil, jetstream.ErrStreamNotFound
}

// Copies that cannot be looked at delay no comparing, and NATS is seldom asked what it forbids.
func TestLookingAtCopiesDelaysNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		js := new(silent)
		w := NewWatcher(js, nil, false)
		w.WatchCopies(0, events.AlertStream)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute+time.Millisecond)
		defer cancel()
		if err := w.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if n := js.usage.Load(); n != 61 {
			t.Errorf("compared %d times in a minute, want each second", n)
		}
		if n := js.alerts.Load(); n != 7 {
			t.Errorf("asked %d times for what is not permitted, want every 10 s", n)
		}
	})
}
