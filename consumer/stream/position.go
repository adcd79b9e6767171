package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

// Ledger is what is needed of [ledger.Ledger].
type Ledger interface {
	ID(ctx context.Context) (uuid.UUID, error)
	Booked(ctx context.Context, stream uuid.UUID) (through uint64, err error)
}

// Position compares a usage stream with its ledger.
type Position struct {
	Stream       uuid.UUID
	Last         ledger.Mark // message of the stream
	Acknowledged uint64      // every message up to this sequence is acknowledged
	Through      uint64      // every message up to this sequence is booked, or refused
}

// Missing is how many sequences were acknowledged and may not be booked.
func (p Position) Missing() uint64 {
	if p.Through >= p.Acknowledged {
		return 0
	}
	return p.Acknowledged - p.Through
}

// BehindError says that a ledger lacks what its stream was told it had: an older copy of
// the database was put back, or a standby that lagged was promoted.
type BehindError struct{ Position }

func (e *BehindError) Error() string {
	return fmt.Sprintf("the ledger is behind its stream: it is booked through sequence %d, but %d is acknowledged; what is missing is booked again",
		e.Through, e.Acknowledged)
}

// ErrNoStream: the usage stream is not there (yet), or nothing has claimed it.
var ErrNoStream = errors.New("there is no usage stream of this ledger yet: a consumer makes it")

// Compare reads the position. It returns [ErrNoStream] or a [*ForeignError] where there
// is none.
//
// A message is acknowledged only after the commit that booked it. So what was
// acknowledged when it was read first must be booked when that is read next.
func Compare(ctx context.Context, js jetstream.JetStream, l Ledger) (p Position, err error) {
	v, err := look(ctx, js)
	if err != nil {
		return p, err
	}
	return v.compare(ctx, l)
}

// view is what NATS says of the usage stream at one moment.
type view struct {
	stream  jetstream.Stream        // nil: there is none
	info    *jetstream.StreamInfo   // of stream
	durable *jetstream.ConsumerInfo // nil: there is none
}

// look reads the durable after the stream.
func look(ctx context.Context, js jetstream.JetStream) (v view, err error) {
	stream, err := js.Stream(ctx, events.UsageStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return v, nil
	}
	if err != nil {
		return v, fmt.Errorf("stream %s: %w", events.UsageStream, err)
	}
	v.stream, v.info = stream, stream.CachedInfo()
	durable, err := stream.Consumer(ctx, events.ConsumerName)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return v, nil
	}
	if err != nil {
		return v, fmt.Errorf("consumer %s: %w", events.ConsumerName, err)
	}
	v.durable = durable.CachedInfo()
	return v, nil
}

// acknowledged is up to which sequence everything is.
func (v view) acknowledged() uint64 {
	if v.durable == nil {
		return 0
	}
	return v.durable.AckFloor.Stream
}

func (v view) compare(ctx context.Context, l Ledger) (p Position, err error) {
	if v.stream == nil {
		return p, ErrNoStream
	}
	ours, err := l.ID(ctx)
	if err != nil {
		return p, err
	}
	switch owner := v.info.Config.Metadata[metaLedger]; owner {
	case ours.String():
	case "":
		return p, ErrNoStream
	default:
		return p, &ForeignError{Stream: events.UsageStream, Owner: owner, Ledger: ours}
	}
	if p.Stream, err = uuid.Parse(v.info.Config.Metadata[metaStream]); err != nil {
		return p, ErrNoStream
	}
	p.Last = ledger.Mark{Sequence: v.info.State.LastSeq, StoredAt: v.info.State.LastTime.Truncate(time.Microsecond)}
	p.Acknowledged = v.acknowledged()
	p.Through, err = l.Booked(ctx, p.Stream)
	return p, err
}

// Same returns the newest of marks, given newest first, that the usage stream still has:
// up to it, it is the stream that was booked. It was restored from a backup if that is
// not the first of them. Marks that have left the stream by age prove nothing. last is
// the stream's last sequence.
func Same(ctx context.Context, js jetstream.JetStream, marks []ledger.Mark) (same ledger.Mark, last uint64, err error) {
	stream, err := js.Stream(ctx, events.UsageStream)
	if err != nil {
		return same, 0, fmt.Errorf("stream %s: %w", events.UsageStream, err)
	}
	state := stream.CachedInfo().State
	for _, m := range marks {
		if m.Sequence < state.FirstSeq {
			return m, state.LastSeq, nil
		}
		msg, err := stream.GetMsg(ctx, m.Sequence)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return same, 0, fmt.Errorf("stream %s: %w", events.UsageStream, err)
		}
		if msg.Time.Truncate(time.Microsecond).Equal(m.StoredAt) {
			return m, state.LastSeq, nil
		}
	}
	return same, state.LastSeq, nil
}

// EnsureDurable creates or updates the durable consumer that all replicas share. A new one
// begins at sequence from.
func EnsureDurable(ctx context.Context, js jetstream.JetStream, batch int, ackWait time.Duration, from uint64) (jetstream.Consumer, error) {
	want := jetstream.ConsumerConfig{
		Durable:       events.ConsumerName,
		Description:   "books AI usage events; all replicas share it",
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       ackWait,
		MaxDeliver:    -1, // an outage of Postgres must not abandon anything
		MaxAckPending: 20 * batch,
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:   from,
	}
	have, err := js.Consumer(ctx, events.UsageStream, events.ConsumerName)
	if err == nil {
		if err := notAhead(ctx, js, have.CachedInfo().Delivered.Stream); err != nil {
			return nil, err
		}
	}
	if err == nil { // where it began cannot be changed
		want.DeliverPolicy, want.OptStartSeq = have.CachedInfo().Config.DeliverPolicy, have.CachedInfo().Config.OptStartSeq
	} else if !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil, fmt.Errorf("durable %s: %w", events.ConsumerName, err)
	}
	durable, err := js.CreateOrUpdateConsumer(ctx, events.UsageStream, want)
	if err != nil {
		return nil, fmt.Errorf("durable %s: %w", events.ConsumerName, err)
	}
	return durable, nil
}

// notAhead refuses a durable that was kept while its stream was put back to an older copy.
func notAhead(ctx context.Context, js jetstream.JetStream, delivered uint64) error {
	stream, err := js.Stream(ctx, events.UsageStream)
	if err != nil {
		return fmt.Errorf("stream %s: %w", events.UsageStream, err)
	}
	if delivered > stream.CachedInfo().State.LastSeq {
		return fmt.Errorf("durable %s is ahead of its stream, which an older copy has replaced: it would pass over what comes next (mend it with: nats consumer rm %s %s)",
			events.ConsumerName, events.UsageStream, events.ConsumerName)
	}
	return nil
}
