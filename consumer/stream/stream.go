// Package stream is what a ledger and its usage stream agree on: the settings that lose
// nothing, whose the stream is, and how far it is booked.
package stream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/replication"
)

const (
	minAge       = 35 * 24 * time.Hour // a month and the time to notice
	maxStoredMsg = 20 << 10            // headers included: those of a full message may take 4 KiB
	// The usage stream forgets message ids as fast as nats-server can: the ledger knows
	// events for ever and compares them, where JetStream would drop one for a header. The
	// quarantine remembers its own for as long as a copy may have to be sent again.
	usageWindow      = 100 * time.Millisecond
	quarantineWindow = 10 * time.Minute
)

// What a stream's metadata says. A copy or a restored backup of a stream says the same.
const (
	metaLedger = "tidegate_ledger" // the identity of the ledger that books from it
	metaStream = "tidegate_stream" // its own: sequences mean something within one stream only
)

// Ensure creates the usage and the quarantine stream for the ledger owner, or checks those
// that exist: it refuses, naming every setting, those that could lose an event
// ([*LossyError]), and those of another ledger ([*ForeignError]). Streams of nobody are
// claimed for owner, unless that is the zero UUID; with adopt those of another ledger too.
// replicas is for new streams: see [replication.Create]. It returns the usage
// stream's identity, and whether the quarantine was made and so is empty.
func Ensure(ctx context.Context, js jetstream.JetStream, replicas int, owner uuid.UUID, adopt bool) (id uuid.UUID, quarantineMade bool, err error) {
	if quarantineMade, err = EnsureQuarantine(ctx, js, replicas, owner, adopt); err != nil {
		return uuid.Nil, false, err
	}
	have, _, err := ensure(ctx, js, jetstream.StreamConfig{
		Name:               events.UsageStream,
		Description:        "AI usage events on their way into the ledger",
		Subjects:           []string{events.SubjectUsage, events.SubjectUsage + ".*"},
		Retention:          jetstream.LimitsPolicy,
		Discard:            jetstream.DiscardNew,
		Storage:            jetstream.FileStorage,
		MaxAge:             minAge,
		MaxMsgSize:         maxStoredMsg,
		Duplicates:         usageWindow,
		DenyPurge:          true,
		DenyDelete:         true,
		AllowAtomicPublish: true,
		AllowDirect:        true,
	}, replicas, owner, adopt)
	id, _ = uuid.Parse(have.Metadata[metaStream])
	return id, quarantineMade, err
}

// EnsureQuarantine is [Ensure] for the quarantine alone. It reports whether it was made,
// and so is empty.
func EnsureQuarantine(ctx context.Context, js jetstream.JetStream, replicas int, owner uuid.UUID, adopt bool) (made bool, err error) {
	_, made, err = ensure(ctx, js, jetstream.StreamConfig{
		Name:        events.QuarantineStream,
		Description: "AI usage events that could not be booked, whole, with the reason",
		Subjects:    []string{events.SubjectQuarantine + ".>"},
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardNew,
		Storage:     jetstream.FileStorage,
		Duplicates:  quarantineWindow,
		DenyPurge:   true,
		AllowDirect: true,
	}, replicas, owner, adopt)
	return made, err
}

// ensure creates a stream as its owner's own, or checks and claims the one that is there.
func ensure(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig, replicas int, owner uuid.UUID, adopt bool) (have jetstream.StreamConfig, made bool, err error) {
	stream, err := ask(ctx, js, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		anew := want
		if owner != uuid.Nil {
			anew.Metadata = marked(nil, owner, uuid.New().String())
		}
		stream, err = replication.Create(ctx, js, anew, replicas)
		made = err == nil
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another process was faster
			stream, err = js.Stream(ctx, want.Name)
		}
	}
	if err != nil {
		return want, false, fmt.Errorf("stream %s: %w", want.Name, err)
	}
	have = stream.CachedInfo().Config
	if problems := lossy(have, want.Subjects); len(problems) > 0 {
		return have, made, &LossyError{Stream: want.Name, Problems: problems}
	}
	if have, err = shortenWindow(ctx, js, have, want.Duplicates); err == nil {
		have, err = shrinkMessages(ctx, js, have, want.MaxMsgSize)
	}
	if err == nil {
		have, err = claim(ctx, js, have, owner, adopt)
	}
	return have, made, err
}

// askTimeout is for the first question to JetStream: while a server or a cluster starts, some
// have no answer, and who waits for one starts late.
const askTimeout = 2 * time.Second

func ask(ctx context.Context, js jetstream.JetStream, stream string) (jetstream.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return js.Stream(ctx, stream)
}

// shortenWindow makes a stream of an earlier version, or of somebody else, forget message
// ids as soon as ours do.
func shortenWindow(ctx context.Context, js jetstream.JetStream, have jetstream.StreamConfig, want time.Duration) (jetstream.StreamConfig, error) {
	// In two steps: while it changes, nats-server 2.15 may look once more for what to forget,
	// and when to look again, by the window that was.
	for _, window := range []time.Duration{2 * want, want} {
		if have.Duplicates <= window {
			continue
		}
		have.Duplicates = window
		if _, err := js.UpdateStream(ctx, have); err != nil {
			return have, fmt.Errorf("stream %s remembers message ids for longer than %s, so that a header could swallow an event, and that cannot be changed from here: %w (mend it with: nats stream edit %s --dupe-window=%s)",
				have.Name, want, err, have.Name, want)
		}
	}
	return have, nil
}

// enoughToCopy is what a message of a stream may have at most, headers included, so that its copy
// fits wherever it does: a server takes 1 MiB unless it is configured otherwise.
const enoughToCopy = 64 << 10

// shrinkMessages makes a stream of an earlier version, or of somebody else, take no larger messages
// than ours. Where that is not permitted, one of an earlier version is good enough.
func shrinkMessages(ctx context.Context, js jetstream.JetStream, have jetstream.StreamConfig, want int32) (jetstream.StreamConfig, error) {
	if want <= 0 || have.MaxMsgSize > 0 && have.MaxMsgSize <= want {
		return have, nil
	}
	smaller, enough := have, have.MaxMsgSize > 0 && have.MaxMsgSize <= enoughToCopy
	smaller.MaxMsgSize = want
	asking := ctx
	if enough { // NATS does not answer what it forbids
		var cancel context.CancelFunc
		asking, cancel = context.WithTimeout(ctx, settle)
		defer cancel()
	}
	_, err := js.UpdateStream(asking, smaller)
	switch {
	case err == nil:
		return smaller, nil
	case enough && ctx.Err() == nil:
		return have, nil
	}
	return have, fmt.Errorf("stream %s takes messages that are too large to be quarantined, and that cannot be changed from here: %w (mend it with: nats stream edit %s --max-msg-size=%d)",
		have.Name, err, have.Name, want)
}

func marked(metadata map[string]string, owner uuid.UUID, stream string) map[string]string {
	all := map[string]string{}
	maps.Copy(all, metadata)
	all[metaLedger], all[metaStream] = owner.String(), stream
	return all
}

// settle is how long a claim must stand before it is believed, since another ledger may have
// found the stream without an owner at the same moment. A change that need not be is tried for as long.
const settle = 300 * time.Millisecond

// claim makes sure that the stream is owner's.
func claim(ctx context.Context, js jetstream.JetStream, have jetstream.StreamConfig, owner uuid.UUID, adopt bool) (jetstream.StreamConfig, error) {
	is := have.Metadata[metaLedger]
	if owner == uuid.Nil || is == owner.String() && have.Metadata[metaStream] != "" {
		return have, nil
	}
	if is != "" && is != owner.String() && !adopt {
		return have, &ForeignError{Stream: have.Name, Owner: is, Ledger: owner}
	}
	stream := have.Metadata[metaStream]
	if stream == "" {
		stream = uuid.New().String()
	}
	have.Metadata = marked(have.Metadata, owner, stream)
	if _, err := js.UpdateStream(ctx, have); err != nil {
		return have, fmt.Errorf("stream %s does not say whose it is, and that cannot be written from here: %w (mend it with: nats stream edit %s --metadata=%s=%s --metadata=%s=%s)",
			have.Name, err, have.Name, metaLedger, owner, metaStream, stream)
	}
	select {
	case <-time.After(settle):
	case <-ctx.Done():
		return have, ctx.Err()
	}
	again, err := js.Stream(ctx, have.Name)
	if err != nil {
		return have, fmt.Errorf("stream %s: %w", have.Name, err)
	}
	return claim(ctx, js, again.CachedInfo().Config, owner, false)
}

// ForeignError says that a stream belongs to another ledger: two that book from one
// stream would share its events between them, and each would miss what the other has.
type ForeignError struct {
	Stream string
	Owner  string    // the ledger that it belongs to
	Ledger uuid.UUID // this one
}

func (e *ForeignError) Error() string {
	return fmt.Sprintf("stream %s on this NATS belongs to ledger %s, but this database is ledger %s: "+
		"two ledgers on one stream would each miss what the other books. Use that ledger's database, or another NATS. "+
		"If that ledger is gone for good: tidegate run --adopt-streams takes the streams over and books all they hold",
		e.Stream, e.Owner, e.Ledger)
}

// LossyError lists every setting of a stream that could lose events. Mend
// them with `nats stream edit`, or remove an empty stream and start again.
type LossyError struct {
	Stream   string
	Problems []string
}

func (e *LossyError) Error() string {
	return fmt.Sprintf("stream %s could lose events: %s (mend it with: nats stream edit %s)",
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
	demand(have.MaxAge == 0 || have.MaxAge >= minAge, "max age is %s, must be at least %s", have.MaxAge, minAge)
	demand(have.MaxMsgsPerSubject <= 0 || have.DiscardNewPerSubject, "max messages per subject (%d) discards old ones", have.MaxMsgsPerSubject)
	demand(have.DenyPurge, "deny purge is off")
	demand(!have.NoAck, "no-ack is on: publishers would not learn of failures")
	demand(!have.AllowRollup, "allow rollup is on: one message could replace all others")
	demand(!have.AllowMsgTTL, "per-message TTL is allowed: an event could expire before it is booked")
	return problems
}
