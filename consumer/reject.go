package consumer

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/consumer/quarantine"
	"github.com/tidegate/tidegate/consumer/stream"
	"github.com/tidegate/tidegate/ledger"
)

const (
	quarantineTogether = 256 // copies on their way at once; JetStream stalls a client at 4,000
	quarantineAck      = 5 * time.Second
)

// publishRejected sends quarantine copies and returns the events whose copy is not
// acknowledged.
func (c *Consumer) publishRejected(ctx context.Context, part []delivery, outcomes []ledger.Outcome, rejected []int) (left []int) {
	for len(rejected) > 0 && ctx.Err() == nil {
		some := rejected[:min(quarantineTogether, len(rejected))]
		rejected = rejected[len(some):]
		acks := make([]jetstream.PubAckFuture, len(some))
		for n, i := range some {
			if copied, err := quarantine.Copy(part[i].msg, part[i].payload, part[i].place, outcomes[i].Reason); err == nil {
				acks[n], _ = c.js.PublishMsgAsync(copied, jetstream.WithRetryAttempts(0))
			}
		}
		first := some[0]
		c.log.Warn("events quarantined", "events", len(some), "first_subject", part[first].msg.Subject(), "first_error", outcomes[first].Reason)
		left = append(left, c.notCopied(ctx, some, acks)...)
	}
	return append(left, rejected...)
}

func (c *Consumer) notCopied(ctx context.Context, some []int, acks []jetstream.PubAckFuture) (left []int) {
	ctx, cancel := context.WithTimeout(ctx, quarantineAck)
	defer cancel()
	for n, i := range some {
		if !c.copied(ctx, acks[n]) {
			left = append(left, i)
		}
	}
	return left
}

// copied reports whether the quarantine has the copy that was sent. JetStream's word
// for it counts only if it stored it now: a duplicate is looked up, and sent without an id
// unless it is the same event.
func (c *Consumer) copied(ctx context.Context, future jetstream.PubAckFuture) bool {
	ack := await(ctx, future)
	if ack == nil || !ack.Duplicate {
		return ack != nil
	}
	same, err := quarantine.Open(c.js).Holds(ctx, ack.Sequence, future.Msg())
	if err != nil || same {
		return same
	}
	ack, err = c.js.PublishMsg(ctx, quarantine.WithoutID(future.Msg()), jetstream.WithRetryAttempts(0))
	return err == nil && !ack.Duplicate
}

func await(ctx context.Context, future jetstream.PubAckFuture) *jetstream.PubAck {
	if future == nil {
		return nil
	}
	select {
	case ack := <-future.Ok():
		return ack
	case <-future.Err():
		return nil
	case <-ctx.Done():
		return nil
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
