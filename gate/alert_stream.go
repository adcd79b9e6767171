package gate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/events"
)

// alertStream keeps alerts for those who were not there. It forgets the oldest rather than
// refuse new ones; a port's flood pushes out that port's own first.
func alertStream(replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              events.AlertStream,
		Description:       "Caps that were reached, as ai.alert.<port> told",
		Subjects:          []string{events.Subject(events.SubjectAlert, "*")},
		Retention:         jetstream.LimitsPolicy,
		Discard:           jetstream.DiscardOld,
		Storage:           jetstream.FileStorage,
		Replicas:          replicas,
		MaxAge:            35 * 24 * time.Hour,
		MaxMsgSize:        8 << 10,
		MaxMsgsPerSubject: 10_000,
		MaxBytes:          256 << 20,              // which NATS wants to have free when the stream is made
		Duplicates:        100 * time.Millisecond, // alerts have no message id: nothing may take one for another
		AllowDirect:       true,
	}
}

const errOverlaps = 10065 // JetStream's code: another stream has the subjects

// ensureAlertStream sees to it that some stream keeps alerts. Without one nothing is
// published: what subscribers heard would go out again and again, never acknowledged.
func (g *Gate) ensureAlertStream(ctx context.Context) error {
	if g.alertsKept.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, alertTimeout)
	defer cancel()
	_, err := g.js.Stream(ctx, events.AlertStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = g.js.CreateStream(ctx, alertStream(g.cfg.Replicas))
		var refused *jetstream.APIError
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) || errors.As(err, &refused) && refused.ErrorCode == errOverlaps {
			err = nil // another gate was faster, or somebody keeps alerts in a stream of their own
		}
	}
	if err != nil {
		return fmt.Errorf("stream %s, which keeps alerts: %w (may this user of NATS ask $JS.API.STREAM.INFO.%[1]s and $JS.API.STREAM.CREATE.%[1]s?)", events.AlertStream, err)
	}
	g.alertsKept.Store(true)
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
