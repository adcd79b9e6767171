package consumer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/events"
)

const (
	minStreamAge = 35 * 24 * time.Hour // a month and the time to notice
	maxStoredMsg = 64 << 10            // headers included; leaves room to quarantine it whole
	// The usage stream forgets message ids as fast as nats-server can: the ledger knows
	// events for ever and compares them, where JetStream would drop one for a header. The
	// quarantine remembers its own for as long as a copy may have to be sent again.
	usageWindow      = 100 * time.Millisecond
	quarantineWindow = 10 * time.Minute
	defaultBatch     = 25_000
)

// EnsureStreams creates the usage and the quarantine stream, or checks the ones
// that exist and refuses, naming every setting, those that could lose an event.
// replicas is for new streams: 1 on a single server, 3 on a cluster.
func EnsureStreams(ctx context.Context, js jetstream.JetStream, replicas int) error {
	usage := jetstream.StreamConfig{
		Name:               events.UsageStream,
		Description:        "AI usage events on their way into the ledger",
		Subjects:           []string{events.SubjectUsage, events.SubjectUsage + ".*"},
		Retention:          jetstream.LimitsPolicy,
		Discard:            jetstream.DiscardNew,
		Storage:            jetstream.FileStorage,
		Replicas:           replicas,
		MaxAge:             minStreamAge,
		MaxMsgSize:         maxStoredMsg,
		Duplicates:         usageWindow,
		DenyPurge:          true,
		DenyDelete:         true,
		AllowAtomicPublish: true,
		AllowDirect:        true,
	}
	quarantine := jetstream.StreamConfig{
		Name:        events.QuarantineStream,
		Description: "AI usage events that could not be booked, whole, with the reason",
		Subjects:    []string{events.SubjectQuarantine + ".>"},
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardNew,
		Storage:     jetstream.FileStorage,
		Replicas:    replicas,
		Duplicates:  quarantineWindow,
		DenyPurge:   true,
		AllowDirect: true,
	}
	for _, want := range []jetstream.StreamConfig{usage, quarantine} {
		if err := ensureStream(ctx, js, want); err != nil {
			return err
		}
	}
	return nil
}

func ensureStream(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) error {
	stream, err := js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = js.CreateStream(ctx, want)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another process was faster
			stream, err = js.Stream(ctx, want.Name)
		}
	}
	if err != nil {
		return fmt.Errorf("consumer: stream %s: %w", want.Name, err)
	}
	if problems := lossy(stream.CachedInfo().Config, want.Subjects); len(problems) > 0 {
		return &LossyStreamError{Stream: want.Name, Problems: problems}
	}
	return shortenWindow(ctx, js, stream.CachedInfo().Config, want.Duplicates)
}

// shortenWindow makes a stream of an earlier version, or of somebody else, forget message
// ids as soon as ours do.
func shortenWindow(ctx context.Context, js jetstream.JetStream, have jetstream.StreamConfig, want time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second) // NATS does not answer what it forbids
	defer cancel()
	// In two steps: while it changes, nats-server 2.15 may look once more for what to forget,
	// and when to look again, by the window that was.
	for _, window := range []time.Duration{2 * want, want} {
		if have.Duplicates <= window {
			continue
		}
		have.Duplicates = window
		if _, err := js.UpdateStream(ctx, have); err != nil {
			return fmt.Errorf("consumer: stream %s remembers message ids for longer than %s, so that a header could swallow an event, and that cannot be changed from here: %w (mend it with: nats stream edit %s --dupe-window=%s)",
				have.Name, want, err, have.Name, want)
		}
	}
	return nil
}

// LossyStreamError lists every setting of a stream that could lose events. Mend
// them with `nats stream edit`, or remove an empty stream and start again.
type LossyStreamError struct {
	Stream   string
	Problems []string
}

func (e *LossyStreamError) Error() string {
	return fmt.Sprintf("consumer: stream %s could lose events: %s (mend it with: nats stream edit %s)",
		e.Stream, strings.Join(e.Problems, "; "), e.Stream)
}

func lossy(have jetstream.StreamConfig, subjects []string) (problems []string) {
	demand := func(ok bool, format string, args ...any) {
		if !ok {
			problems = append(problems, fmt.Sprintf(format, args...))
		}
	}
	for _, s := range subjects {
		demand(slices.Contains(have.Subjects, s), "subjects must contain %s", s)
	}
	demand(have.Storage == jetstream.FileStorage, "storage is %s, must be file", have.Storage)
	demand(have.Retention == jetstream.LimitsPolicy, "retention is %s, must be limits", have.Retention)
	demand(have.Discard == jetstream.DiscardNew, "discard is %s, must be new", have.Discard)
	demand(have.PersistMode == jetstream.DefaultPersistMode, "persist mode is async, must be default")
	demand(have.MaxAge == 0 || have.MaxAge >= minStreamAge, "max age is %s, must be at least %s", have.MaxAge, minStreamAge)
	demand(have.MaxMsgsPerSubject <= 0 || have.DiscardNewPerSubject, "max messages per subject (%d) discards old ones", have.MaxMsgsPerSubject)
	demand(have.DenyPurge, "deny purge is off")
	demand(!have.NoAck, "no-ack is on: publishers would not learn of failures")
	demand(!have.AllowRollup, "allow rollup is on: one message could replace all others")
	demand(!have.AllowMsgTTL, "per-message TTL is allowed: an event could expire before it is booked")
	return problems
}

// ensureDurable creates or updates the durable consumer that all replicas share.
func ensureDurable(ctx context.Context, js jetstream.JetStream, batch int, ackWait time.Duration) (jetstream.Consumer, error) {
	durable, err := js.CreateOrUpdateConsumer(ctx, events.UsageStream, jetstream.ConsumerConfig{
		Durable:         events.ConsumerName,
		Description:     "books AI usage events; all replicas share it",
		AckPolicy:       jetstream.AckExplicitPolicy,
		AckWait:         ackWait,
		MaxDeliver:      -1, // an outage of Postgres must not abandon anything
		MaxAckPending:   20 * batch,
		MaxRequestBatch: 0,
	})
	if err != nil {
		return nil, fmt.Errorf("consumer: durable %s: %w", events.ConsumerName, err)
	}
	return durable, nil
}
