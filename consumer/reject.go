package consumer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/consumer/quarantine"
	"github.com/tidegate/tidegate/consumer/stream"
	"github.com/tidegate/tidegate/ledger"
)

const (
	quarantineTogether = 256 // copies on their way at once; JetStream stalls a client at 4,000
	quarantineAck      = 5 * time.Second
	copiedAlone        = 8 // events of a message that were refused have a copy each; of more the message has one
)

// copying is a copy to be made, of an event that was refused or of a whole message.
type copying struct {
	events []int // of a part, all of one message
}

// copies are those that a part needs: one for each event that was refused, and one for a
// message of which many were.
func copies(part []delivery, outcomes []ledger.Outcome) (list []copying) {
	of := map[*message]int{} // where in list
	for i := range outcomes {
		if outcomes[i].Fate != ledger.Rejected {
			continue
		}
		n, ok := of[part[i].msg]
		if !ok {
			n = len(list)
			of[part[i].msg], list = n, append(list, copying{})
		}
		list[n].events = append(list[n].events, i)
	}
	single := list[:0:0]
	for _, c := range list {
		if len(c.events) > copiedAlone {
			single = append(single, c)
			continue
		}
		for _, i := range c.events {
			single = append(single, copying{[]int{i}})
		}
	}
	return single
}

func (w copying) message(part []delivery, outcomes []ledger.Outcome) (*nats.Msg, error) {
	first := &part[w.events[0]]
	reason := outcomes[w.events[0]].Reason
	if len(w.events) > 1 {
		return quarantine.CopyWhole(first.msg, len(w.events), first.place, reason)
	}
	return quarantine.Copy(first.msg, first.payload, first.place, reason)
}

// publishRejected makes copies in the quarantine and returns those that are not acknowledged.
func (c *Consumer) publishRejected(ctx context.Context, part []delivery, outcomes []ledger.Outcome, rejected []copying) (left []copying) {
	for len(rejected) > 0 && ctx.Err() == nil {
		some := rejected[:min(quarantineTogether, len(rejected))]
		rejected = rejected[len(some):]
		acks := make([]jetstream.PubAckFuture, len(some))
		for n, w := range some {
			copied, err := w.message(part, outcomes)
			if err == nil {
				acks[n], err = c.js.PublishMsgAsync(copied, jetstream.WithRetryAttempts(0))
			}
			if err != nil {
				c.aside.failed(err)
			}
		}
		first := some[0].events[0]
		c.log.Warn("events quarantined", "copies", len(some), "first_subject", part[first].msg.Subject(), "first_error", outcomes[first].Reason)
		left = append(left, c.notCopied(ctx, some, acks)...)
	}
	return append(left, rejected...)
}

func (c *Consumer) notCopied(ctx context.Context, some []copying, acks []jetstream.PubAckFuture) (left []copying) {
	ctx, cancel := context.WithTimeout(ctx, quarantineAck)
	defer cancel()
	for n, w := range some {
		if !c.copied(ctx, acks[n]) {
			left = append(left, w)
		}
	}
	return left
}

// copied reports whether the quarantine has the copy that was sent. JetStream's word
// for it counts only if it stored it now: a duplicate is looked up, and sent without an id
// unless it is the same event.
func (c *Consumer) copied(ctx context.Context, future jetstream.PubAckFuture) bool {
	if future == nil {
		return false
	}
	ack, err := await(ctx, future)
	if err == nil && ack.Duplicate {
		var same bool
		if same, err = quarantine.Open(c.js).Holds(ctx, ack.Sequence, future.Msg()); err == nil && !same {
			ack, err = c.js.PublishMsg(ctx, quarantine.WithoutID(future.Msg()), jetstream.WithRetryAttempts(0))
			if err == nil && ack.Duplicate {
				err = errors.New("JetStream takes it for a duplicate, which it is not")
			}
		}
	}
	if err != nil {
		c.aside.failed(err)
	}
	return err == nil
}

func await(ctx context.Context, future jetstream.PubAckFuture) (*jetstream.PubAck, error) {
	select {
	case ack := <-future.Ok():
		return ack, nil
	case err := <-future.Err():
		return nil, err
	case <-ctx.Done():
		return nil, fmt.Errorf("JetStream does not answer: %w", ctx.Err())
	}
}

const quarantineLost = "the quarantine stream was gone and has been made again: the copies that it held are lost"

// restoreQuarantine makes the quarantine again if it is gone. Writers call it: while they
// have a refused event in hand, the fetch loop waits for them and prepares nothing.
func (c *Consumer) restoreQuarantine(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, prepareTimeout)
	defer cancel()
	owner, err := c.cfg.Ledger.ID(ctx)
	if err != nil {
		return err
	}
	made, err := stream.EnsureQuarantine(ctx, c.js, c.cfg.Replicas, owner, c.cfg.AdoptStreams)
	if made {
		c.log.Error(quarantineLost)
	}
	return err
}
