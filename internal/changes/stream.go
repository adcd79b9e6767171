package changes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/replication"
	"github.com/tidegate/tidegate/ledger"
)

const (
	// Stream keeps every change of a budget, and that a port was deleted.
	Stream = "AI_BUDGETS"
	// Subject is where changes of the default budget go. Those of a port have its id behind it.
	Subject = "ai.budgets"

	// keptOfPort is how many changes of a port the stream keeps: the newest.
	keptOfPort = 1000
	maxChange  = 256 << 10 // a budget is at most 16 KiB when it is set, and a change has the one before it, too
	sentAtOnce = 100
)

// What the stream's metadata says, as that of the usage stream does.
const (
	metaLedger = "tidegate_ledger" // the identity of the ledger whose changes it has
	metaStream = "tidegate_stream" // its own: sequences mean something within one stream only
)

// message is a change in the stream.
type message struct {
	V int `json:"v"`
	ledger.Change
}

func subjectOf(port string) string {
	if port == budget.DefaultPort {
		return Subject
	}
	return events.Subject(Subject, port)
}

// send has the stream store what the outbox has, up to sentAtOnce changes, the newest first. None is
// stored behind one that this ledger does not know: the server compares sequences.
func send(ctx context.Context, js jetstream.JetStream, l *ledger.Ledger) (sent int, err error) {
	sending, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	return l.SendChanges(ctx, sentAtOnce, func(c *ledger.Change, after uint64) (uint64, error) {
		body, err := json.Marshal(message{events.Version, *c})
		if err != nil {
			return 0, err
		}
		ack, err := js.Publish(sending, subjectOf(c.PortID), body, jetstream.WithExpectStream(Stream), jetstream.WithExpectLastSequence(after), jetstream.WithRetryAttempts(0))
		if err != nil {
			return 0, fmt.Errorf("stream %s: %w", Stream, err)
		}
		return ack.Sequence, nil
	})
}

// state is what the stream is at one moment.
type state struct {
	stream jetstream.Stream
	id     uuid.UUID
	last   uint64
}

// find returns the stream, which it makes for the ledger owner if there is none.
func find(ctx context.Context, js jetstream.JetStream, owner uuid.UUID, replicas int, adopt bool) (s state, err error) {
	s.stream, err = js.Stream(ctx, Stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		s.stream, err = replication.Create(ctx, js, config(owner), replicas)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another process was faster
			s.stream, err = js.Stream(ctx, Stream)
		}
	}
	if err != nil {
		return s, fmt.Errorf("stream %s, which keeps changes of budgets: %w (may this user of NATS ask $JS.API.STREAM.INFO.%[1]s and $JS.API.STREAM.CREATE.%[1]s?)", Stream, err)
	}
	info := s.stream.CachedInfo()
	if is := info.Config.Metadata[metaLedger]; is != owner.String() {
		if !adopt {
			return s, fmt.Errorf("stream %s on this NATS belongs to ledger %q, but this database is ledger %s: its changes are not kept, nor taken over. If that ledger is gone for good, tidegate run --adopt-streams takes the stream over, with all its budgets", Stream, is, owner)
		}
		changed := info.Config
		changed.Metadata = map[string]string{metaLedger: owner.String(), metaStream: info.Config.Metadata[metaStream]}
		if s.stream, err = js.UpdateStream(ctx, changed); err != nil {
			return s, fmt.Errorf("stream %s cannot be taken over: %w (mend it with: nats stream edit %[1]s --metadata=%s=%s --metadata=%s=%s)",
				Stream, err, metaLedger, owner, metaStream, changed.Metadata[metaStream])
		}
	}
	if s.id, err = uuid.Parse(info.Config.Metadata[metaStream]); err != nil {
		return s, fmt.Errorf("stream %s does not say which it is: %w (it is not Tidegate's; if it holds nothing of yours, remove it)", Stream, err)
	}
	s.last = info.State.LastSeq
	return s, nil
}

func config(owner uuid.UUID) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              Stream,
		Description:       "Changes of budgets, from which a database that was put back takes what it lacks",
		Subjects:          []string{Subject, Subject + ".*"},
		Retention:         jetstream.LimitsPolicy,
		Discard:           jetstream.DiscardOld,
		MaxMsgsPerSubject: keptOfPort,
		Storage:           jetstream.FileStorage,
		MaxMsgSize:        maxChange,
		Duplicates:        100 * time.Millisecond, // changes have no message id
		DenyPurge:         true,
		DenyDelete:        true,
		AllowDirect:       true,
		Metadata:          map[string]string{metaLedger: owner.String(), metaStream: uuid.New().String()},
	}
}

// next returns the first change of the stream at a sequence or after it; [jetstream.ErrMsgNotFound] if
// there is none. bad says why what is stored there is no change.
func (s state) next(ctx context.Context, from uint64) (c ledger.Change, sequence uint64, bad, err error) {
	msg, err := s.stream.GetMsg(ctx, from, jetstream.WithGetMsgSubject(">"))
	if err != nil {
		return c, 0, nil, err
	}
	var m message
	switch bad = json.Unmarshal(msg.Data, &m); {
	case bad == nil && m.V != events.Version:
		bad = fmt.Errorf("it is of version %d, and this process understands %d", m.V, events.Version)
	case bad == nil && subjectOf(m.PortID) != msg.Subject:
		bad = fmt.Errorf("it is of port %q on subject %q", m.PortID, msg.Subject)
	}
	m.OldValue, m.NewValue, m.RestoredAt = value(m.OldValue), value(m.NewValue), nil
	return m.Change, msg.Sequence, bad, nil
}

// value makes a JSON null none.
func value(v json.RawMessage) json.RawMessage {
	if string(v) == "null" {
		return nil
	}
	return v
}
