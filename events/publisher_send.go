package events

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

// batchRefusedFor is how long a stream that takes no atomic batches gets single
// publishes before a batch is tried again.
const batchRefusedFor = time.Minute

var errNotConnected = errors.New("not connected to NATS")

// Publish publishes usages in the order given and returns when JetStream has
// acknowledged every one of them. It fills missing IDs, and their times, in the slice
// itself, so that calling it again with the same slice books nothing twice. It
// publishes again through reconnects and restarts until ctx ends.
//
// Its errors are a [*FieldError] for the first usage that breaks the contract
// (nothing was published then), [ErrNotPermitted], [ErrPublisherClosed], the
// server's when an event is larger than it takes, and ctx's own; all but the
// first say how many usages were not acknowledged.
//
// Within one call the order in the stream is the order given, unless something
// had to be published again: then up to BatchSize neighbours may change places.
func (p *Publisher) Publish(ctx context.Context, usages []Usage) error {
	defer runtime.KeepAlive(p)
	messages := make([]*message, len(usages))
	for i := range usages {
		fillTime(&usages[i])
		m, err := p.newMessage(usages[i], 0)
		if err != nil {
			return fmt.Errorf("events: usage %d of %d: %w", i+1, len(usages), err)
		}
		messages[i], usages[i].ID = m, m.id
	}
	if !p.enter(len(messages)) {
		return ErrPublisherClosed
	}
	defer p.publishes.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.life, cancel)()

	for done := 0; done < len(messages); {
		batch := messages[done:min(done+p.cfg.BatchSize, len(messages))]
		if left, err := p.publish(ctx, batch); err != nil {
			missing := len(left) + len(messages) - done - len(batch)
			p.mu.Lock()
			p.stats.Dropped += uint64(missing)
			p.mu.Unlock()
			return fmt.Errorf("events: %d of %d usages not acknowledged: %w", missing, len(messages), err)
		}
		done += len(batch)
	}
	return nil
}

// enter counts a call of Publish in, unless the publisher is closed.
func (p *Publisher) enter(events int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.stats.Recorded += uint64(events)
	p.publishes.Add(1)
	return true
}

// publish sends until everything is acknowledged, forbidden, or ctx ends.
func (p *Publisher) publish(ctx context.Context, batch []*message) ([]*message, error) {
	for try := 0; ; try++ {
		left, err := p.send(ctx, batch, try)
		if len(left) == 0 {
			return nil, nil
		}
		for _, m := range left {
			if m.refused {
				return left, fmt.Errorf("%w: subject %s", ErrNotPermitted, m.subject)
			}
			if m.hopeless {
				return left, fmt.Errorf("event %s of %d bytes: %w", m.id, len(m.payload), err)
			}
		}
		batch = left
		p.pause(ctx, try+1, err)
		switch {
		case p.life.Err() != nil:
			return left, ErrPublisherClosed
		case p.nc.IsClosed():
			return left, nats.ErrConnectionClosed
		case ctx.Err() != nil:
			return left, fmt.Errorf("%w (last: %w)", ctx.Err(), err)
		}
	}
}

// message is an event in its wire form.
type message struct {
	place   uint64 // among the recorded events
	id      string
	subject string
	payload []byte

	// What the last try found out, if anything.
	refused  bool // NATS forbids its subject
	hopeless bool // it is larger than the server or the stream takes
	alone    bool // it travelled with others and they were together larger than that
}

// newMessage encodes u and gives it an id if it has none. A usage that breaks the
// contract comes with a [*FieldError], and without a message if its port is illegal.
func (p *Publisher) newMessage(u Usage, place uint64) (*message, error) {
	if u.ID == "" {
		u.ID = NewUUIDv7(u.OccurredAt).String()
	}
	err := u.Validate()
	if !ValidPort(u.PortID) {
		return nil, err
	}
	return &message{
		place: place, id: u.ID,
		subject: p.subject(u.PortID),
		payload: u.AppendJSON(make([]byte, 0, 512)),
	}, err
}

// send tries once to get every message acknowledged. It returns those that were
// not, in order, and a reason.
func (p *Publisher) send(ctx context.Context, messages []*message, try int) (left []*message, err error) {
	if try > 0 {
		p.count(func(s *Stats) { s.Retries += uint64(len(messages)) })
	}
	if !p.nc.IsConnected() {
		return messages, errNotConnected
	}
	lastError := p.nc.LastError()
	envelopes := p.seal(messages)
	if len(envelopes) > p.fewEnvelopes() && time.Now().UnixNano() >= p.singlesTil.Load() {
		err := p.sendBatch(ctx, envelopes, lastError)
		if err == nil {
			p.count(func(s *Stats) { s.Published += uint64(len(messages)) })
			return nil, nil
		}
		if !p.singlesInstead(err, try) && !p.forbidden(envelopes, lastError) {
			return messages, err
		}
	}
	return p.sendSingles(ctx, envelopes, lastError)
}

// sendBatch stores all of them or none, and the disk is synced for all together.
func (p *Publisher) sendBatch(ctx context.Context, envelopes []envelope, lastError error) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.AckTimeout)
	defer cancel()
	ctx, done := p.whileAnswerable(ctx, envelopes, lastError)
	defer done()
	batch := make([]*nats.Msg, len(envelopes))
	for i := range envelopes {
		batch[i] = envelopes[i].wire()
	}
	// No acknowledgement before the commit: that wait could not be cancelled.
	_, err := jetstreamext.PublishMsgBatch(ctx, p.js, batch, jetstreamext.BatchFlowControl{})
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// lookEvery is how often a wait for JetStream looks for what comes without an
// answer: a lost connection, a permission that is missing.
const lookEvery = 20 * time.Millisecond

// whileAnswerable cancels the context when no answer can come any more. Call done
// afterwards: it waits for the goroutine that looks.
func (p *Publisher) whileAnswerable(ctx context.Context, envelopes []envelope, lastError error) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	reconnects := p.nc.Stats().Reconnects
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		look := time.NewTicker(lookEvery)
		defer look.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-look.C:
				switch {
				case p.wasCut(reconnects):
					cancel(nats.ErrDisconnected)
				case p.forbidden(envelopes, lastError):
					cancel(ErrNotPermitted)
				}
			}
		}
	}()
	return ctx, func() { cancel(nil); <-ended }
}

// wasCut reports whether the connection was lost since it had reconnected so many
// times: answers to what was published before do not come any more.
func (p *Publisher) wasCut(reconnects uint64) bool {
	return !p.nc.IsConnected() || p.nc.Stats().Reconnects != reconnects
}

// singlesInstead decides whether a failed batch is worth trying one by one: yes
// when the answer is about the batch or one of its events, no when the stream
// could not be reached or is busy.
func (p *Publisher) singlesInstead(err error, try int) bool {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, jetstreamext.ErrInvalidBatchAck): // a server from before atomic batches
		p.noBatches()
		return true
	case errors.Is(err, nats.ErrMaxPayload):
		return true
	case !errors.As(err, &api):
		return false
	}
	switch api.ErrorCode {
	case jetstreamext.JSErrCodeBatchPublishNotEnabled:
		p.noBatches()
		return true
	case jetstreamext.JSErrCodeBatchPublishIncomplete:
		// The server restarted amid the batch, or has too many open batches just
		// now, or refused one event: tell them apart by trying again.
		return try >= 2
	default:
		return api.Code < 500 && api.Code != 429
	}
}

func (p *Publisher) noBatches() {
	p.singlesTil.Store(time.Now().Add(batchRefusedFor).UnixNano())
}

// forbidden reports whether NATS has refused one of the subjects since lastError.
func (p *Publisher) forbidden(envelopes []envelope, lastError error) bool {
	for _, e := range envelopes {
		if violation(p.nc, lastError, e.subject) {
			p.logRefused.Do(func() {
				p.cfg.Logger.Error("NATS does not permit this user to publish usage events of a port, they wait; grant publish on the subject",
					"subject", e.subject)
			})
			return true
		}
	}
	return false
}

func (p *Publisher) count(change func(*Stats)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.stats)
}
