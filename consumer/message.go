package consumer

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/consumer/arrival"
	"github.com/tidegate/tidegate/consumer/quarantine"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

// message is what JetStream delivered, with one event in it or several. Its events
// may be booked by different writers; the last one to be settled settles it.
type message struct {
	jetstream.Msg
	sequence uint64       // in the stream
	again    bool         // it was settled long ago, and is read once more
	open     atomic.Int32 // events that are not settled yet
	gravest  atomic.Int32 // of their settlements
}

// delivery is an event and what came of decoding it.
type delivery struct {
	msg     *message
	payload []byte             // its own
	place   int                // in the message, from 1; 0 if it is the only one
	entry   ledger.Entry       // valid if refused is nil
	refused *events.FieldError // why it cannot be booked
}

// unpack decodes a message's events and appends them to list. again says that the message
// was settled long ago.
func unpack(list []delivery, msg jetstream.Msg, oldest time.Time, again bool) []delivery {
	m := &message{Msg: msg, again: again}
	arrived, noArrival := m.arrival()
	payloads, err := arrival.Split(msg.Data())
	if err != nil {
		m.open.Store(1)
		return append(list, delivery{msg: m, payload: msg.Data(), refused: refusal(err)})
	}
	m.open.Store(int32(len(payloads)))
	first := arrived.Place
	for i, payload := range payloads {
		d := delivery{msg: m, payload: payload}
		if len(payloads) > 1 {
			d.place = i + 1
			arrived.Place = arrival.PlaceIn(first, d.place)
		}
		usage, err := events.DecodeUsage(msg.Subject(), payload)
		if err = errors.Join(err, noArrival); err == nil {
			d.entry.Usage = usage
			d.entry.ID, d.entry.At, err = arrival.Identify(usage, arrived, oldest)
		}
		if err != nil {
			d.refused = refusal(err)
		}
		list = append(list, d)
	}
	return list
}

// arrival notes the message's sequence and says how it first entered the stream.
func (m *message) arrival() (arrival.Arrival, error) {
	meta, err := m.Metadata()
	if err != nil {
		return arrival.Arrival{}, err
	}
	m.sequence = meta.Sequence.Stream
	return quarantine.Arrival(meta, m.Headers()), nil
}

func refusal(err error) (refused *events.FieldError) {
	if !errors.As(err, &refused) {
		refused = &events.FieldError{Reason: events.ReasonMalformed, Rule: err.Error()}
	}
	return refused
}

// settlement is what happens to a message, the gravest last: the message of
// several events gets the gravest of theirs.
type settlement int32

const (
	discard  settlement = iota // its quarantine copy is acknowledged: never deliver it again
	accept                     // committed: never deliver it again
	handBack                   // deliver it to somebody else, soon
)

// settle is the only place that decides a message's fate. A settlement that
// does not reach the server is harmless: the message comes again and its ids are known.
func (c *Consumer) settle(d *delivery, s settlement, reason events.Reason) {
	m := d.msg
	for worst := m.gravest.Load(); int32(s) > worst; worst = m.gravest.Load() {
		if m.gravest.CompareAndSwap(worst, int32(s)) {
			break
		}
	}
	if m.open.Add(-1) > 0 || m.again {
		return
	}
	var err error
	switch settlement(m.gravest.Load()) {
	case accept:
		err = m.Ack()
	case discard:
		err = m.TermWithReason("quarantined: " + string(reason))
	case handBack:
		err = m.Nak()
	}
	if err != nil {
		c.log.Debug("a message could not be settled, it will be delivered again", "error", err)
	}
}
