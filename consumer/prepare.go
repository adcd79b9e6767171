package consumer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/tidegate/tidegate/consumer/stream"
	"github.com/tidegate/tidegate/internal/replication"
	"github.com/tidegate/tidegate/ledger"
)

// prepare waits until streams, durable and partitions exist, or ctx ends. Its error is
// one that waiting does not mend.
func (c *Consumer) prepare(ctx context.Context) error {
	wait := newBackoff()
	wait.most = time.Second // it begins within 3 s of the servers
	for {
		err := c.tryPrepare(ctx)
		if err == nil {
			err = c.cfg.Ledger.Maintain(ctx, c.cfg.Now())
		}
		if err == nil {
			err = c.followClock(ctx)
		}
		if err == nil || ctx.Err() != nil {
			return nil
		}
		c.setHealth(err)
		lossy, foreign, refused := (*stream.LossyError)(nil), (*stream.ForeignError)(nil), (*replication.RefusedError)(nil)
		if errors.As(err, &lossy) || errors.As(err, &foreign) || errors.As(err, &refused) {
			return fmt.Errorf("consumer: %w", err)
		}
		c.log.Warn("events cannot be fetched yet, trying again", "error", err)
		wait.sleep(ctx)
	}
}

// prepareTimeout is for some ten small requests. One that is lost while a server starts
// must not take long.
const prepareTimeout = 4 * time.Second

func (c *Consumer) tryPrepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, prepareTimeout)
	defer cancel()
	owner, err := c.cfg.Ledger.ID(ctx)
	if err != nil {
		return err
	}
	if c.current().durable == nil { // one that runs goes on: what it books is safe
		if err := stream.CheckCopies(ctx, c.js, c.cfg.Replicas); err != nil {
			return err
		}
	}
	id, made, err := stream.Ensure(ctx, c.js, c.cfg.Replicas, owner, c.cfg.AdoptStreams)
	if err != nil {
		return err
	}
	p, err := stream.Compare(ctx, c.js, c.cfg.Ledger)
	if err != nil {
		return err
	}
	replaced, err := c.track(ctx, id, p.Acknowledged)
	if err != nil {
		return err
	}
	if made && (replaced != nil || p.Through > 0) { // otherwise there was none before
		c.log.Error(quarantineLost)
	}
	booked, err := c.trust(ctx, id)
	if err != nil {
		return err
	}
	durable, err := stream.EnsureDurable(ctx, c.js, c.cfg.BatchSize, c.cfg.AckWait, booked+1)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.source = source{durable, id}
	c.doubt.Store(true)
	return nil
}

// track makes the ledger follow the stream, unless it does already.
func (c *Consumer) track(ctx context.Context, id uuid.UUID, acknowledged uint64) (replaced *ledger.GoneStream, err error) {
	if replaced, err = c.cfg.Ledger.TrackStream(ctx, id, acknowledged); err != nil {
		return nil, err
	}
	if replaced != nil {
		c.log.Error("this usage stream is not the one that was booked from until now: what the other had acknowledged to publishers and was not booked is lost, unless they still have it or a copy of that stream is put back",
			"unbooked_messages", replaced.Unbooked)
	}
	lost, err := c.cfg.Ledger.Unbooked(ctx)
	c.lost.Store(lost)
	c.metrics.unbooked.Set(float64(lost))
	return replaced, err
}

// allMarks of a stream: one an hour, for as long as streams must keep messages and more.
const allMarks = 2_000

// trust returns the last sequence up to which the stream is booked and is known to be the
// stream that was. If it was put back to an older copy, what follows is booked again.
func (c *Consumer) trust(ctx context.Context, id uuid.UUID) (uint64, error) {
	through, err := c.cfg.Ledger.Booked(ctx, id)
	if err != nil {
		return 0, err
	}
	marks, err := c.cfg.Ledger.Marks(ctx, id, allMarks)
	if err != nil {
		return 0, err
	}
	same, last, err := stream.Same(ctx, c.js, marks)
	if err != nil {
		return 0, err
	}
	from := same.Sequence + 1 // what follows may be something else
	if through > last || len(marks) > 0 && same != marks[0] {
		c.log.Error("the usage stream is not what it was: an older copy of it was put back. What it holds is booked again from where it differs; events are recognised by their ids. Events that came after that copy and were not booked are lost, unless their publishers still have them",
			"from", from, "booked", through)
		if err := c.cfg.Ledger.Unbook(ctx, id, from); err != nil {
			return 0, err
		}
	}
	return min(through, same.Sequence), nil
}

// followClock reads the database's clock. A query of its own is answered sooner, and so
// tells the time better, than one that does something else.
func (c *Consumer) followClock(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, prepareTimeout)
	defer cancel()
	asked := c.cfg.Now()
	at, err := c.cfg.Ledger.Now(ctx)
	if err == nil {
		c.clock.Hear(asked, c.cfg.Now(), at)
	}
	return err
}
