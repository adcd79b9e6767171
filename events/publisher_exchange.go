package events

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

const (
	// maxOpen messages may wait for their acknowledgements at once, or one batch of at most
	// maxBatch messages, which is what a server with its defaults takes, and maxBatchBytes.
	maxOpen       = 256
	maxBatch      = 1000
	maxBatchBytes = 4 << 20

	// Up to fewMessages are published one by one: a batch costs the server a store of its
	// own and several fsyncs.
	fewMessages = 4

	// JetStream's codes for a message over the stream's own limit, and for a stream that
	// takes no batches.
	jsTooLarge  jetstream.ErrorCode = 10054
	jsNoBatches jetstream.ErrorCode = 10174
)

var (
	errNotConnected = errors.New("not connected to NATS")
	errOneByOne     = errors.New("JetStream did not store the messages together")
)

// shipment is what JetStream answers once: a message, or a batch that it stores as a
// whole, with the fsyncs of a few messages, or not at all.
type shipment []*message

// pack puts messages into shipments: into batches, if there are many.
func (p *outlet) pack(messages []*message) (shipments []shipment) {
	var batch shipment
	size := 0
	for _, m := range messages {
		if len(messages) <= fewMessages || p.noBatches.Load() || m.events[0].alone {
			shipments = append(shipments, shipment{m})
			continue
		}
		if len(batch) == maxBatch || size+m.size > maxBatchBytes {
			shipments = append(shipments, batch)
			batch, size = nil, 0
		}
		batch = append(batch, m)
		size += m.size
	}
	if len(batch) > 0 {
		shipments = append(shipments, batch)
	}
	return shipments
}

// exchange publishes shipments and waits for JetStream's answers, until each has its own,
// none can come any more, or something is wrong that concerns all: that is its error.
// nats.go's asynchronous publisher would leave a goroutine behind when it is closed soon
// after its first message.
func (p *outlet) exchange(ctx context.Context, shipments []shipment) (trouble error) {
	forbidden := p.listen()
	defer p.unlisten(forbidden)
	connection := p.nc.StatusChanged(nats.DISCONNECTED, nats.RECONNECTING, nats.CLOSED)
	defer p.nc.RemoveStatusListener(connection)
	if !p.nc.IsConnected() {
		return errNotConnected
	}
	inbox := p.nc.NewInbox() + "."
	answers := make(chan *nats.Msg, len(shipments))
	sub, err := p.nc.ChanSubscribe(inbox+"*", answers)
	if err != nil {
		return fmt.Errorf("subscribing to acknowledgements: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	timeout := time.NewTimer(p.cfg.AckTimeout)
	defer timeout.Stop()

	open := map[int]shipment{}
	done := func(i int, err error) {
		if p.land(open[i], err) {
			trouble = err
		}
		delete(open, i)
	}
	for sent := 0; ; {
		for ; sent < len(shipments) && trouble == nil; sent++ {
			s := shipments[sent]
			if len(open) == maxOpen || len(open) > 0 && len(s) > 1 {
				break
			}
			open[sent] = s
			if err := p.ship(s, inbox+strconv.Itoa(sent)); err != nil {
				done(sent, err)
			}
		}
		if len(open) == 0 {
			return trouble
		}
		select {
		case answer := <-answers:
			i, err := strconv.Atoi(strings.TrimPrefix(answer.Subject, inbox))
			if s := open[i]; err == nil && s != nil {
				done(i, p.readAck(answer, len(s)))
				timeout.Reset(p.cfg.AckTimeout) // the others are on their way
			}
		case <-forbidden.news:
			subjects := p.heard(forbidden)
			for i, s := range open {
				if slices.ContainsFunc(s, func(m *message) bool { return subjects[m.subject] }) {
					done(i, ErrNotPermitted)
				}
			}
		case <-connection:
			return nats.ErrDisconnected
		case <-timeout.C:
			return nats.ErrTimeout
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ship publishes a shipment, which is answered to reply.
func (p *outlet) ship(s shipment, reply string) error {
	if len(s) == 1 {
		return p.nc.PublishMsg(&nats.Msg{Subject: s[0].subject, Reply: reply, Data: s[0].payload(), Header: s[0].header()})
	}
	batch := nuid.Next()
	for i, m := range s {
		msg := &nats.Msg{Subject: m.subject, Data: m.payload(), Header: m.header()}
		if msg.Header == nil {
			msg.Header = nats.Header{}
		}
		msg.Header.Set("Nats-Batch-Id", batch)
		msg.Header.Set("Nats-Batch-Sequence", strconv.Itoa(i+1))
		if i == len(s)-1 {
			msg.Reply = reply
			msg.Header.Set("Nats-Batch-Commit", "1")
		}
		if err := p.nc.PublishMsg(msg); err != nil {
			return err
		}
	}
	return nil
}

// land notes what became of a shipment, and reports whether it concerns others too. What
// is wrong with one message of a batch shows when they are published one by one.
func (p *outlet) land(s shipment, err error) (trouble bool) {
	var api *jetstream.APIError
	own := errors.Is(err, ErrNotPermitted) || tooLarge(err)
	if len(s) > 1 && (own || errors.Is(err, jetstream.ErrInvalidJSAck) || errors.As(err, &api) && api.Code < 500 && api.Code != 429) {
		err, own = errOneByOne, true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range s {
		m.acknowledged, m.err = err == nil, err
		if err != nil {
			continue
		}
		p.stats.Published += uint64(len(m.events))
		if m.events[0].place > 0 {
			p.inHand -= len(m.events)
		}
	}
	return err != nil && !own
}

// readAck reads JetStream's answer to so many messages. "Duplicate" would say that it
// stored nothing.
func (p *outlet) readAck(answer *nats.Msg, messages int) error {
	if len(answer.Data) == 0 && answer.Header.Get("Status") == "503" {
		return jetstream.ErrNoStreamResponse
	}
	var ack struct {
		Stream    string              `json:"stream"`
		Count     int                 `json:"count"` // of a batch
		Duplicate bool                `json:"duplicate"`
		Error     *jetstream.APIError `json:"error"`
	}
	switch err := json.Unmarshal(answer.Data, &ack); {
	case err == nil && ack.Error != nil:
		if ack.Error.ErrorCode == jsNoBatches {
			p.noBatches.Store(true)
		}
		return ack.Error
	case err != nil || ack.Stream == "" || ack.Duplicate:
		return jetstream.ErrInvalidJSAck
	case messages > 1 && ack.Count != messages: // a server that does not know batches
		p.noBatches.Store(true)
		return jetstream.ErrInvalidJSAck
	}
	return nil
}

func tooLarge(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, nats.ErrMaxPayload) || errors.As(err, &api) && api.ErrorCode == jsTooLarge
}
