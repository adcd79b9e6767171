package consumer

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/ledger"
)

const (
	asideWriter = -2               // where writers are numbered
	asideRoom   = 1024             // messages that are kept, 20 KiB each; more are left to the stream
	asideAgain  = 30 * time.Second // after which the stream sends those again
	asideTold   = 3 * time.Second  // how long a message is set aside before that is worth telling
)

// aside are messages of which an event cannot be copied to the quarantine now. They are kept
// alive and tried by themselves: everything else goes on.
type aside struct {
	mu       sync.Mutex
	messages map[uint64]setAside // by sequence
	left     time.Time           // the last time that one was left to the stream, or a part handed back
	err      error               // why the last copy was not made
	wake     chan struct{}
}

type setAside struct {
	part     part // of this message only
	outcomes []ledger.Outcome
	since    time.Time
}

func newAside() *aside {
	return &aside{messages: map[uint64]setAside{}, wake: make(chan struct{}, 1)}
}

// busy reports whether copies fail at the moment: then others are not tried in a batch.
func (a *aside) busy() bool { return a.count() > 0 }

// alone reports whether batches are to be booked whole, by one writer: of parts nothing can be set aside.
func (a *aside) alone() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.messages) > 0 || time.Since(a.left) < 2*asideAgain
}

func (a *aside) handedBack() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.left = time.Now()
}

// why the last copy was not made.
func (a *aside) why() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

func (a *aside) failed(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = err
}

// add keeps a message, unless it is kept already or there is no room.
func (a *aside) add(s setAside) (kept, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	sequence := s.part.events[0].msg.sequence
	if _, known = a.messages[sequence]; known {
		return false, true
	}
	if len(a.messages) >= asideRoom {
		a.left = time.Now()
		return false, false
	}
	a.messages[sequence] = s
	select {
	case a.wake <- struct{}{}:
	default:
	}
	return true, false
}

func (a *aside) remove(sequence uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.messages, sequence)
}

// all are those that are kept, in the order of the stream.
func (a *aside) all() []setAside {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.SortedFunc(maps.Values(a.messages), func(x, y setAside) int {
		return cmp.Compare(x.part.events[0].msg.sequence, y.part.events[0].msg.sequence)
	})
}

func (a *aside) count() float64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return float64(len(a.messages))
}

// health says what an operator has to mend.
func (a *aside) health() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.messages {
		if time.Since(s.since) > asideTold {
			return fmt.Errorf("%d messages are set aside, since events of them cannot be copied to the quarantine: %w", len(a.messages), a.err)
		}
	}
	return nil
}

// setAside takes the messages of copies that could not be made out of a part, whose
// batch has no other. The rest of it goes on.
func (c *Consumer) setAside(p part, outcomes []ledger.Outcome, left []copying) (rest part, restOutcomes []ledger.Outcome) {
	taken := map[*message]*setAside{}
	for _, l := range left {
		m := p.events[l.events[0]].msg
		taken[m] = &setAside{since: time.Now()}
	}
	rest = part{share: p.share, flight: p.flight}
	for i, d := range p.events {
		if s := taken[d.msg]; s != nil {
			s.part.events, s.outcomes = append(s.part.events, d), append(s.outcomes, outcomes[i])
		} else {
			rest.events, restOutcomes = append(rest.events, d), append(restOutcomes, outcomes[i])
		}
	}
	for m, s := range taken {
		rest.share.Sequences = without(rest.share.Sequences, m.sequence)
		s.part.share = ledger.Share{Stream: p.share.Stream, Batch: uuid.New(), Of: 1, Sequences: []ledger.Sequences{{First: m.sequence, Last: m.sequence}}}
		s.part.flight = c.inFlight.begin()
		s.part.flight.add([]jetstream.Msg{m.Msg}, time.Now())
		kept, known := c.aside.add(*s)
		if kept {
			continue
		}
		c.inFlight.handOver(s.part.flight, 0)
		if !known {
			_ = m.NakWithDelay(asideAgain) // one that is lost: it comes earlier
		}
	}
	c.log.Warn("events cannot be quarantined, their messages are set aside", "messages", len(taken), "error", c.aside.why())
	return rest, restOutcomes
}

// without takes a sequence out of ascending ranges.
func without(list []ledger.Sequences, sequence uint64) (rest []ledger.Sequences) {
	for _, r := range list {
		if sequence < r.First || sequence > r.Last {
			rest = append(rest, r)
			continue
		}
		if r.First < sequence {
			rest = append(rest, ledger.Sequences{First: r.First, Last: sequence - 1})
		}
		if sequence < r.Last {
			rest = append(rest, ledger.Sequences{First: sequence + 1, Last: r.Last})
		}
	}
	return rest
}

// retry copies what was set aside until ctx ends, and then hands back what is left.
func (c *Consumer) retry(ctx context.Context) {
	for wait := newBackoff(); ctx.Err() == nil; wait.sleep(ctx) {
		if !c.aside.busy() {
			wait = newBackoff()
			select {
			case <-ctx.Done():
			case <-c.aside.wake:
			}
			continue
		}
		if err := c.restoreQuarantine(ctx); err != nil && ctx.Err() == nil {
			c.log.Debug("the quarantine stream is not ready", "error", err)
		}
		c.retryAll(ctx, c.aside.all())
	}
	for _, s := range c.aside.all() {
		c.handBack(s.part.events)
		c.forget(s)
	}
}

// retryAll tries to copy messages that were set aside, and settles those of which it could copy all.
func (c *Consumer) retryAll(ctx context.Context, list []setAside) {
	var all part
	var outcomes []ledger.Outcome
	for _, s := range list {
		all.events, outcomes = append(all.events, s.part.events...), append(outcomes, s.outcomes...)
	}
	failed := map[*message]bool{}
	for _, l := range c.publishRejected(ctx, all.events, outcomes, copies(all.events, outcomes)) {
		failed[all.events[l.events[0]].msg] = true
	}
	for _, s := range list {
		if failed[s.part.events[0].msg] || !c.note(ctx, asideWriter, s.part, s.outcomes) {
			continue
		}
		c.settleOutcomes(s.part.events, s.outcomes)
		c.forget(s)
	}
}

func (c *Consumer) forget(s setAside) {
	c.aside.remove(s.part.events[0].msg.sequence)
	c.inFlight.handOver(s.part.flight, 0)
}
