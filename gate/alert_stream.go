package gate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/replication"
)

// alertStream keeps alerts for those who were not there. It forgets the oldest rather than
// refuse new ones; a port's flood pushes out that port's own first.
func alertStream() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              events.AlertStream,
		Description:       "Caps that were reached, as ai.alert.<port> told",
		Subjects:          []string{events.Subject(events.SubjectAlert, "*")},
		Retention:         jetstream.LimitsPolicy,
		Discard:           jetstream.DiscardOld,
		Storage:           jetstream.FileStorage,
		MaxAge:            35 * 24 * time.Hour,
		MaxMsgSize:        8 << 10,
		MaxMsgsPerSubject: 10_000,
		MaxBytes:          256 << 20,              // which NATS wants to have free when the stream is made
		Duplicates:        100 * time.Millisecond, // alerts have no message id: nothing may take one for another
		AllowDirect:       true,
	}
}

const errOverlaps = 10065 // JetStream's code: another stream has the subjects

// alertKeeper is what a gate knows of the stream that keeps alerts.
type alertKeeper struct {
	mu    sync.Mutex
	kept  bool          // some stream does, as far as is known
	err   error         // why none did when that was last asked
	again time.Time     // when to ask again
	wait  time.Duration // before that
}

// lost says that an alert was not taken: perhaps nothing keeps them any more.
func (k *alertKeeper) lost() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kept = false
}

// ensureAlertStream sees to it that some stream keeps alerts. Without one nothing is
// published: what subscribers heard would go out again and again, never acknowledged. It asks
// rarer and rarer, once a minute in the end: where the gate's user may not ask, NATS logs each time.
func (g *Gate) ensureAlertStream(ctx context.Context) error {
	k := &g.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.kept || k.err != nil && g.cfg.Now().Before(k.again) {
		return k.err
	}
	k.err = g.makeAlertStream(ctx)
	if k.kept = k.err == nil; k.kept {
		k.wait = 0
		return nil
	}
	k.wait = min(max(2*k.wait, time.Second), time.Minute)
	k.again = g.cfg.Now().Add(k.wait)
	if ctx.Err() == nil {
		g.cannotAlert(k.err)
	}
	return k.err
}

// cannotAlert tells an operator, once a minute at most.
func (g *Gate) cannotAlert(err error) {
	g.metrics.alertErrors.Inc()
	g.complainOfAlerts.Do(func() { g.log.Warn("alerts do not go out, trying again", "error", err) })
}

func (g *Gate) makeAlertStream(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, alertTimeout)
	defer cancel()
	_, err := g.js.Stream(ctx, events.AlertStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = replication.Create(ctx, g.js, alertStream(), g.cfg.Replicas)
		var refused *jetstream.APIError
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) || errors.As(err, &refused) && refused.ErrorCode == errOverlaps {
			err = nil // another gate was faster, or somebody keeps alerts in a stream of their own
		}
	}
	if err != nil {
		return fmt.Errorf("stream %s, which keeps alerts: %w (may this user of NATS ask $JS.API.STREAM.INFO.%[1]s and $JS.API.STREAM.CREATE.%[1]s?)", events.AlertStream, err)
	}
	return nil
}

// acknowledged says whether JetStream has stored an alert, after alertTimeout at the latest.
// That it took one for a duplicate is no proof.
func acknowledged(sent jetstream.PubAckFuture) error {
	select {
	case ack := <-sent.Ok():
		if ack.Duplicate {
			return errors.New("JetStream takes it for a duplicate")
		}
		return nil
	case err := <-sent.Err():
		return err
	}
}
