package events

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// jsTooLarge is JetStream's code for a message over the stream's own limit.
const jsTooLarge jetstream.ErrorCode = 10054

// sendSingles publishes all one after the other, then waits for all answers. It
// does so itself because nats.go's asynchronous publisher leaves a goroutine
// behind when it is closed soon after its first message.
func (p *Publisher) sendSingles(ctx context.Context, envelopes []envelope, lastError error) (left []*message, first error) {
	w := &singles{envelopes: envelopes, errs: make([]error, len(envelopes)), open: make(map[int]bool, len(envelopes))}
	noInbox := w.exchange(ctx, p, lastError)
	p.count(func(s *Stats) { s.Published += uint64(w.published) })
	for i, e := range envelopes {
		err := cmp.Or(noInbox, w.errs[i])
		if err == nil {
			continue
		}
		for _, m := range e.messages {
			m.refused = errors.Is(err, ErrNotPermitted)
			m.hopeless = tooLarge(err) && len(e.messages) == 1
			m.alone = m.alone || tooLarge(err)
		}
		left = append(left, e.messages...)
		if first == nil || tooLarge(err) {
			first = err
		}
	}
	return left, first
}

// singles are envelopes on their way, each with a reply subject of its own.
type singles struct {
	envelopes []envelope
	errs      []error // by envelope, nil: acknowledged
	open      map[int]bool
	published int // events
}

// exchange returns when every message has its answer, or none can come any more.
func (w *singles) exchange(ctx context.Context, p *Publisher, lastError error) error {
	answers := make(chan *nats.Msg, len(w.envelopes))
	inbox := p.nc.NewInbox() + "."
	sub, err := p.nc.ChanSubscribe(inbox+"*", answers)
	if err != nil {
		return fmt.Errorf("subscribing to acknowledgements: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	reconnects := p.nc.Stats().Reconnects
	for i := range w.envelopes {
		msg := w.envelopes[i].wire()
		msg.Reply = inbox + strconv.Itoa(i)
		if w.errs[i] = p.nc.PublishMsg(msg); w.errs[i] == nil {
			w.open[i] = true
		}
	}
	timeout := time.NewTimer(p.cfg.AckTimeout)
	defer timeout.Stop()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for len(w.open) > 0 {
		select {
		case answer := <-answers:
			if i, err := strconv.Atoi(strings.TrimPrefix(answer.Subject, inbox)); err == nil && w.open[i] {
				w.settle(i, answer)
				timeout.Reset(p.cfg.AckTimeout) // the others are on their way
			}
		case <-look.C: // for what comes without an answer
			if p.wasCut(reconnects) {
				w.giveUp(nats.ErrDisconnected)
			}
			for i := range w.open {
				if p.forbidden(w.envelopes[i:i+1], lastError) {
					w.errs[i] = ErrNotPermitted
					delete(w.open, i)
				}
			}
		case <-timeout.C:
			w.giveUp(nats.ErrTimeout)
		case <-ctx.Done():
			w.giveUp(ctx.Err())
		}
	}
	return nil
}

func (w *singles) settle(i int, answer *nats.Msg) {
	delete(w.open, i)
	if w.errs[i] = readAck(answer); w.errs[i] == nil {
		w.published += len(w.envelopes[i].messages)
	}
}

func (w *singles) giveUp(err error) {
	for i := range w.open {
		w.errs[i] = err
	}
	clear(w.open)
}

// readAck reads JetStream's answer to a publish. "Duplicate" would say that it stored
// nothing.
func readAck(answer *nats.Msg) error {
	if len(answer.Data) == 0 && answer.Header.Get("Status") == "503" {
		return jetstream.ErrNoStreamResponse
	}
	var ack struct {
		Stream    string              `json:"stream"`
		Duplicate bool                `json:"duplicate"`
		Error     *jetstream.APIError `json:"error"`
	}
	switch err := json.Unmarshal(answer.Data, &ack); {
	case err == nil && ack.Error != nil:
		return ack.Error
	case err != nil || ack.Stream == "" || ack.Duplicate:
		return jetstream.ErrInvalidJSAck
	}
	return nil
}

func tooLarge(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, nats.ErrMaxPayload) || errors.As(err, &api) && api.ErrorCode == jsTooLarge
}
