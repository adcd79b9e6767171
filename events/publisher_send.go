package events

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/nats-io/nats.go"
)

// Publish publishes usages and returns when JetStream has acknowledged every one of
// them. It fills missing IDs, and their times, in the slice itself, so that calling it
// again with the same slice books nothing twice. Usages without a TraceParent get that of ctx. It publishes again through reconnects
// and restarts until ctx ends.
//
// Its errors are a [*FieldError] for the first usage that breaks the contract
// (nothing was published then), [ErrNotPermitted], [ErrPublisherClosed], the
// server's when an event is larger than it takes, and ctx's own; all but the
// first say how many usages were not acknowledged.
//
// Within one call the order of a port's events in the stream is the order given, unless
// something had to be published again.
func (p *Publisher) Publish(ctx context.Context, usages []Usage) error {
	defer runtime.KeepAlive(p)
	events, parent := make([]*event, len(usages)), TraceParent(ctx)
	for i := range usages {
		fillTime(&usages[i])
		e, err := p.newEvent(usages[i], 0)
		if err == nil && e.trace == "" {
			e.trace = parent
		}
		if err != nil {
			return fmt.Errorf("events: usage %d of %d: %w", i+1, len(usages), err)
		}
		events[i], usages[i].ID = e, e.id
	}
	return p.publishAll(ctx, events)
}

// publishAll publishes until all are acknowledged or that cannot be.
func (p *outlet) publishAll(ctx context.Context, events []*event) error {
	p.mu.Lock()
	closed := p.closed
	if !closed {
		p.stats.Recorded += uint64(len(events))
		p.publishes.Add(1)
	}
	p.mu.Unlock()
	if closed {
		return ErrPublisherClosed
	}
	defer p.publishes.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.life, cancel)()
	if left, err := p.publish(ctx, events); err != nil {
		p.count(func(s *Stats) { s.Dropped += uint64(len(left)) })
		return fmt.Errorf("events: %d of %d usages not acknowledged: %w", len(left), len(events), err)
	}
	return nil
}

// publish sends until everything is acknowledged, one event cannot be, or ctx ends.
func (p *outlet) publish(ctx context.Context, events []*event) ([]*event, error) {
	for try := 0; len(events) > 0; try++ {
		left, err := p.send(ctx, events)
		for _, e := range left {
			if e.refused {
				return left, fmt.Errorf("%w: subject %s", ErrNotPermitted, e.subject)
			}
			if e.hopeless {
				return left, fmt.Errorf("event %s of %d bytes: %w", e.id, len(e.payload), err)
			}
		}
		if events = left; len(left) == 0 {
			break
		}
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
	return nil, nil
}

// event is a usage in its wire form.
type event struct {
	place   uint64 // among the recorded events, from 1; 0: it is Publish's
	id      string
	subject string
	payload []byte
	trace   string // the caller's span; "": there is none

	sent  bool // at least once
	again bool // it is from the outbox

	// What the last try found out, if anything.
	refused  bool // NATS forbids its subject
	hopeless bool // it is larger than the server or the stream takes
	alone    bool // the batch that it was in was not stored
}

// newEvent encodes u and gives it an id if it has none. A usage that breaks the
// contract comes with a [*FieldError], and without an event if its port is illegal.
func (p *outlet) newEvent(u Usage, place uint64) (*event, error) {
	if u.ID == "" {
		u.ID = NewUUIDv7(u.OccurredAt).String()
	}
	err := u.Validate()
	if !ValidPort(u.PortID) {
		return nil, err
	}
	return &event{place: place, id: u.ID, subject: p.subjectOf(u.PortID), payload: u.AppendJSON(make([]byte, 0, 512)), trace: u.TraceParent}, err
}

func (p *outlet) subjectOf(port string) string {
	if p.cfg.SharedSubject {
		return SubjectUsage
	}
	return Subject(SubjectUsage, port)
}

// send tries once to get every event acknowledged. It returns those that were
// not, each subject's in order, and a reason.
func (p *outlet) send(ctx context.Context, events []*event) (left []*event, err error) {
	again := uint64(0)
	for _, e := range events {
		if e.sent {
			again++
		}
		e.sent = true
	}
	p.count(func(s *Stats) { s.Retries += again })
	messages := p.gather(events)
	err = p.exchange(ctx, p.pack(messages))
	p.outbox.keep(messages)
	for _, m := range messages {
		if m.acknowledged {
			continue
		}
		refused := errors.Is(m.err, ErrNotPermitted)
		for _, e := range m.events {
			e.refused, e.alone = refused, errors.Is(m.err, errOneByOne)
			e.hopeless = tooLarge(m.err) && len(m.events) == 1
		}
		if refused {
			p.logRefused.Do(func() {
				p.cfg.Logger.Error("NATS does not permit this user to publish usage events of a port, they wait; grant publish on the subject",
					"subject", m.subject)
			})
		}
		if tooLarge(m.err) {
			err = m.err
			if len(m.events) > 1 {
				p.noArrays.Store(true)
			}
		}
		left = append(left, m.events...)
	}
	return left, err
}

// message is what travels as one NATS message.
type message struct {
	subject      string
	events       []*event // of that subject
	size         int      // as an array, at most
	acknowledged bool
	err          error // why it is not
}

// gather puts events into messages, as many of a subject together as one may hold.
func (p *outlet) gather(events []*event) []*message {
	together := MaxEventsPerMessage
	if p.noArrays.Load() {
		together = 1
	}
	var messages []*message
	last := map[string]*message{} // by subject
	for _, e := range events {
		size := len(e.payload) + len(",")
		m := last[e.subject]
		if m == nil || m.size+size > MaxPayloadBytes || len(m.events) == together {
			m = &message{subject: e.subject, size: len("[")}
			last[e.subject] = m
			messages = append(messages, m)
		}
		m.events = append(m.events, e)
		m.size += size
	}
	return messages
}

// header names the callers' spans. It is nil where nobody traces.
func (m *message) header() (h nats.Header) {
	for _, e := range m.events {
		h = addTrace(h, e.trace)
	}
	return h
}

// payload is the event, or an array of several.
func (m *message) payload() []byte {
	if len(m.events) == 1 {
		return m.events[0].payload
	}
	payload := append(make([]byte, 0, m.size), '[')
	for i, e := range m.events {
		if i > 0 {
			payload = append(payload, ',')
		}
		payload = append(payload, e.payload...)
	}
	return append(payload, ']')
}

func (p *outlet) count(change func(*Stats)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.stats)
}
