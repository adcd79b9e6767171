package quarantine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/events"
)

// Event is a quarantined event.
type Event struct {
	Sequence uint64              `json:"sequence"` // in the quarantine: what show and replay take
	Reason   events.Reason       `json:"reason"`
	Error    string              `json:"error"`
	Subject  string              `json:"subject"` // where it was published
	Arrived  time.Time           `json:"arrived"`
	Held     time.Time           `json:"quarantined_at"`
	Origin   Origin              `json:"origin"`
	Headers  map[string][]string `json:"headers,omitempty"` // its own
	Payload  []byte              `json:"payload_base64"`
	Text     string              `json:"payload,omitempty"` // the same, if it is readable text
	large    bool                // its headers are
}

// Origin is the message that the event was.
type Origin struct {
	Stream   string `json:"stream"`
	Sequence uint64 `json:"sequence"`
	Place    int    `json:"place,omitempty"` // in a message of several events, from 1
}

func (o Origin) String() string {
	if o.Place == 0 {
		return fmt.Sprintf("%s #%d", o.Stream, o.Sequence)
	}
	return fmt.Sprintf("%s #%d, event %d", o.Stream, o.Sequence, o.Place)
}

// ErrNotFound: there is no such event in the quarantine.
var ErrNotFound = errors.New("there is no such event in the quarantine")

// Store reads the quarantine and sends events back.
type Store struct{ js jetstream.JetStream }

// Open returns the quarantine behind js.
func Open(js jetstream.JetStream) Store { return Store{js} }

// List returns at most limit events, oldest first, from the given sequence on.
func (s Store) List(ctx context.Context, from uint64, limit int) ([]Event, error) {
	return s.list(ctx, events.SubjectQuarantine+".>", from, limit)
}

// ListOf is [Store.List] for the events of one port: those whose subject, or else whose
// port_id, names it.
func (s Store) ListOf(ctx context.Context, port string, from uint64, limit int) ([]Event, error) {
	return s.list(ctx, subjectsOf(port), from, limit)
}

// CountOf is how many events of a port there are.
func (s Store) CountOf(ctx context.Context, port string) (n uint64, err error) {
	stream, err := s.js.Stream(ctx, events.QuarantineStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, nil
	}
	var info *jetstream.StreamInfo
	if err == nil {
		info, err = stream.Info(ctx, jetstream.WithSubjectFilter(subjectsOf(port)))
	}
	if err != nil {
		return 0, fmt.Errorf("quarantine: %w", err)
	}
	for _, messages := range info.State.Subjects { // one for each reason
		n += messages
	}
	return n, nil
}

func subjectsOf(port string) string { return events.SubjectQuarantine + ".*." + port }

func (s Store) list(ctx context.Context, subjects string, from uint64, limit int) ([]Event, error) {
	list := []Event{}
	stream, err := s.js.Stream(ctx, events.QuarantineStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) { // no consumer has ever run here
		return list, nil
	}
	if err != nil {
		return nil, fmt.Errorf("quarantine: %w", err)
	}
	for len(list) < limit {
		raw, err := stream.GetMsg(ctx, max(from, 1), jetstream.WithGetMsgSubject(subjects))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("quarantine: %w", err)
		}
		list = append(list, parse(raw))
		from = raw.Sequence + 1
	}
	return list, nil
}

// Copies are the events that have one, by where they came from and when: a stream that
// was removed and made again uses its sequences once more.
type Copies map[arrived]struct{}

type arrived struct {
	origin Origin
	at     int64 // Unix nanoseconds
}

// Has reports whether the event at that place of msg has a copy, or msg has one as a whole.
func (c Copies) Has(msg jetstream.Msg, place int) bool {
	for _, at := range []int{place, 0} {
		if event, err := arrivedAs(msg, at); err == nil {
			if _, ok := c[event]; ok {
				return true
			}
		}
	}
	return false
}

// Copies returns those of all quarantined events.
func (s Store) Copies(ctx context.Context) (Copies, error) {
	const page = 1000
	all := Copies{}
	for from := uint64(1); ; {
		list, err := s.List(ctx, from, page)
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			all[arrived{e.Origin, e.Arrived.UnixNano()}] = struct{}{}
			from = e.Sequence + 1
		}
		if len(list) < page {
			return all, nil
		}
	}
}

// Get returns one event, or [ErrNotFound].
func (s Store) Get(ctx context.Context, sequence uint64) (Event, error) {
	raw, err := s.message(ctx, sequence)
	if err != nil {
		return Event{}, err
	}
	return parse(raw), nil
}

func (s Store) message(ctx context.Context, sequence uint64) (raw *jetstream.RawStreamMsg, err error) {
	stream, err := s.js.Stream(ctx, events.QuarantineStream)
	if err == nil {
		raw, err = stream.GetMsg(ctx, sequence)
	}
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, jetstream.ErrMsgNotFound):
		return nil, ErrNotFound
	case err != nil:
		return nil, fmt.Errorf("quarantine: event %d: %w", sequence, err)
	}
	return raw, nil
}

// Holds reports whether the quarantine has, at the given sequence, a copy of the same
// event: what JetStream calls a duplicate may be another message with the same id, or one
// that is gone.
func (s Store) Holds(ctx context.Context, sequence uint64, copied *nats.Msg) (bool, error) {
	raw, err := s.message(ctx, sequence)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil && sameEvent(raw.Header, raw.Data, copied), err
}

// Replay sends an event back to where it was published and, once JetStream has stored
// it in the usage stream, takes it out of the quarantine. Dying between the two is
// harmless: the event is known by its id. One that still cannot be booked comes back.
// It is sent without a message id, for which JetStream could take it for another, and
// without headers of its own that would not fit.
func (s Store) Replay(ctx context.Context, sequence uint64) error {
	event, err := s.Get(ctx, sequence)
	if err != nil {
		return err
	}
	msg := nats.NewMsg(event.Subject)
	msg.Data = event.Payload
	for name, values := range event.Headers {
		if !event.large && !strings.HasPrefix(strings.ToLower(name), "nats-") {
			msg.Header[name] = values
		}
	}
	msg.Header.Set(headerReplaySequence, strconv.FormatUint(event.Origin.Sequence, 10))
	msg.Header.Del(headerReplayPlace) // the sender's own
	if event.Origin.Place > 0 {
		msg.Header.Set(headerReplayPlace, strconv.Itoa(event.Origin.Place))
	}
	msg.Header.Set(headerReplayTime, event.Arrived.Format(time.RFC3339Nano))
	ack, err := s.js.PublishMsg(ctx, msg, jetstream.WithExpectStream(events.UsageStream))
	if err == nil && ack.Duplicate {
		err = errors.New("JetStream takes it for a duplicate, which does not prove that it is stored")
	}
	if err != nil {
		return fmt.Errorf("quarantine: event %d cannot be sent back to %q, it stays: %w", sequence, event.Subject, err)
	}
	stream, err := s.js.Stream(ctx, events.QuarantineStream)
	if err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	if err := stream.DeleteMsg(ctx, sequence); err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		return fmt.Errorf("quarantine: event %d was sent back, but is still listed: %w", sequence, err)
	}
	return nil
}

func parse(raw *jetstream.RawStreamMsg) Event {
	e := Event{
		Sequence: raw.Sequence,
		Reason:   events.Reason(raw.Header.Get(headerReason)),
		Error:    raw.Header.Get(headerError),
		Subject:  raw.Header.Get(headerSubject),
		Held:     raw.Time.UTC(),
	}
	e.Origin.Stream = raw.Header.Get(headerStream)
	e.Origin.Sequence, _ = strconv.ParseUint(raw.Header.Get(headerSequence), 10, 64)
	e.Origin.Place, _ = strconv.Atoi(raw.Header.Get(headerPlace))
	e.Arrived, _ = time.Parse(time.RFC3339Nano, raw.Header.Get(headerTime))
	e.Headers, e.Payload, e.large = ownHeaders(raw)
	if text := string(e.Payload); headerText(text) == text {
		e.Text = text
	}
	return e
}
