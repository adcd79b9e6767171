package consumer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/consumer/quarantine"
	"github.com/tidegate/tidegate/consumer/stream"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

const (
	compareEvery = time.Second       // the ledger with the stream
	rebookReader = "ai-usage-rebook" // the consumer that reads again what was acknowledged
	rebookWriter = -1                // where writers are numbered
)

// watch compares the ledger with the stream once a second, beside the fetching, and makes
// the fetch loop look for itself where something is wrong.
func (c *Consumer) watch(ctx context.Context) {
	every(ctx, compareEvery, func() {
		_ = c.followClock(ctx) // while Postgres is away its clock goes on as it was read last
		p, err := c.compare(ctx)
		foreign := (*stream.ForeignError)(nil)
		switch {
		case errors.Is(err, stream.ErrNoStream), errors.Is(err, errChanged), errors.As(err, &foreign), err == nil && p.Missing() > 0:
			c.doubt.Store(true)
		case err == nil:
			fold, cancel := context.WithTimeout(ctx, prepareTimeout)
			if err := c.cfg.Ledger.FoldBooked(fold, p.Stream, p.Last); err != nil && ctx.Err() == nil {
				c.log.Debug("what is booked could not be folded", "error", err)
			}
			cancel()
		}
	})
}

// catchUp does nothing unless there is doubt. Then it compares the ledger with the stream
// and, where messages were acknowledged that the ledger lacks, books them again before
// anything else is fetched. Until then it returns only with an error that waiting does
// not mend.
func (c *Consumer) catchUp(ctx context.Context) error {
	if !c.doubt.Load() {
		return nil
	}
	for wait := newBackoff(); ctx.Err() == nil; wait.sleep(ctx) {
		p, err := c.compare(ctx)
		if foreign := (*stream.ForeignError)(nil); errors.As(err, &foreign) {
			return fmt.Errorf("consumer: %w", err)
		}
		switch {
		case errors.Is(err, stream.ErrNoStream), errors.Is(err, errChanged):
			if err := c.prepare(ctx); err != nil {
				return err
			}
			continue
		case err != nil: // booking waits for Postgres in a way of its own, fetching for NATS
			return nil
		case p.Missing() == 0:
			c.doubt.Store(false)
			c.setHealth(nil)
			return nil
		}
		c.setHealth(&stream.BehindError{Position: p})
		c.inFlight.wait()
		if err := c.rebook(ctx, p); err != nil && ctx.Err() == nil {
			c.log.Warn("what the ledger lacks cannot be booked again yet, trying again", "error", err)
			continue
		}
		wait = newBackoff()
	}
	return nil
}

// errChanged: the stream is another one than the consumer prepared for.
var errChanged = errors.New("the usage stream has changed")

func (c *Consumer) compare(ctx context.Context) (p stream.Position, err error) {
	ctx, cancel := context.WithTimeout(ctx, prepareTimeout)
	defer cancel()
	if p, err = stream.Compare(ctx, c.js, c.cfg.Ledger); err != nil {
		return p, err
	}
	if p.Stream != c.current().stream {
		return p, errChanged
	}
	newest, err := c.cfg.Ledger.Marks(ctx, p.Stream, 1)
	if err != nil {
		return p, err
	}
	// Nothing more is booked than the stream holds, unless an older copy of it was put back.
	same, last, err := stream.Same(ctx, c.js, newest)
	if err == nil && (p.Through > last || len(newest) > 0 && same != newest[0]) {
		err = errChanged
	}
	return p, err
}

// rebook books again what p says is missing, unless another consumer does. What is in
// the ledger already is recognised by its id.
func (c *Consumer) rebook(ctx context.Context, p stream.Position) error {
	// The database may be a copy from before the stream was made: nothing of it is booked there.
	if _, err := c.track(ctx, p.Stream, 0); err != nil {
		return err
	}
	mine, err := c.cfg.Ledger.ClaimRebooking(ctx, p.Stream, c.id)
	if err != nil || !mine {
		return err
	}
	c.log.Warn("the ledger is behind its stream, booking again what is missing", "from", p.Through+1, "to", p.Acknowledged)
	reader, err := c.readAgain(ctx, p.Through+1)
	if err != nil {
		return err
	}
	known, err := quarantine.Open(c.js).Copies(ctx)
	if err != nil {
		return err
	}
	began, told, found, read := time.Now(), time.Now(), 0, uint64(0)
	for next := p.Through + 1; next <= p.Acknowledged; {
		in := newIntake(1, c.cfg.Ledger.Oldest(c.cfg.Now()))
		in.again = true
		fetchErr := c.fetch(reader, in, minLinger)
		n := in.finish()
		info, err := reader.Info(ctx)
		if err != nil {
			return errors.Join(fetchErr, err)
		}
		if read += uint64(in.n); read != info.Delivered.Consumer {
			return errors.New("messages of the stream did not arrive")
		}
		last := p.Acknowledged
		if n > 0 {
			last = in.sequences[len(in.sequences)-1].Last
		} else if fetchErr != nil {
			return fetchErr
		} else if info.NumPending > 0 {
			continue
		}
		if gone := last + 1 - next - uint64(in.n); gone > 0 {
			c.log.Error("messages had left the stream before they were booked again: what the ledger lacks of them is lost", "messages", gone, "from", next)
		}
		share := ledger.Share{Stream: p.Stream, Batch: uuid.New(), Of: 1, Sequences: []ledger.Sequences{{First: next, Last: last}}}
		if !c.bookAgain(ctx, part{events: in.parts[0], share: share}, known) {
			return ctx.Err()
		}
		next, found = last+1, found+n
		p.Through = last
		c.setHealth(&stream.BehindError{Position: p})
		if time.Since(told) > 5*time.Second {
			told = time.Now()
			c.log.Info("booking again", "sequence", last, "to", p.Acknowledged, "events", found)
		}
		if mine, err := c.cfg.Ledger.ClaimRebooking(ctx, p.Stream, c.id); err != nil || !mine {
			return err
		}
	}
	c.telling.ReadAgain() // what left the stream in the meantime is booked no more
	c.log.Warn("what was missing is booked again", "events", found, "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// readAgain returns a consumer of the stream from a sequence on, which acknowledges nothing.
func (c *Consumer) readAgain(ctx context.Context, from uint64) (jetstream.Consumer, error) {
	if err := c.js.DeleteConsumer(ctx, events.UsageStream, rebookReader); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil, fmt.Errorf("consumer: remove an earlier reader: %w", err)
	}
	reader, err := c.js.CreateConsumer(ctx, events.UsageStream, jetstream.ConsumerConfig{
		Name:              rebookReader,
		Description:       "reads again what the ledger lacks",
		AckPolicy:         jetstream.AckNonePolicy,
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       from,
		InactiveThreshold: time.Minute,
		MemoryStorage:     true,
	})
	if err != nil {
		return nil, fmt.Errorf("consumer: read the stream again: %w", err)
	}
	return reader, nil
}

// bookAgain books a part and quarantines what is refused, unless its copy is there. It
// reports whether all that is done. Only then is the part's share noted: the messages were
// acknowledged long ago, so nothing else would bring back what is in hand.
func (c *Consumer) bookAgain(ctx context.Context, p part, known quarantine.Copies) bool {
	outcomes, noted := c.book(ctx, rebookWriter, p)
	if outcomes == nil {
		return false
	}
	for i := range outcomes {
		if outcomes[i].Fate == ledger.Rejected && known.Has(p.events[i].msg, p.events[i].place) {
			outcomes[i].Fate = ledger.Duplicate // of its copy; the reason stays: it is not booked
		}
	}
	came := c.finish(ctx, rebookWriter, p, outcomes, noted)
	c.settleBatch([]fate{came})
	return came.done
}
