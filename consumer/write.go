package consumer

import (
	"context"
	"time"

	"github.com/tidegate/tidegate/internal/killpoint"
	"github.com/tidegate/tidegate/ledger"
)

// write books what the queue brings until it is closed. When ctx, the drain
// deadline, ends, it hands back the rest.
func (c *Consumer) write(ctx context.Context, writer int, queue <-chan part) {
	for p := range queue {
		outcomes := c.book(ctx, writer, p)
		c.settleAll(ctx, p.events, outcomes)
		c.inFlight.settled(p.flight)
	}
}

// book returns one outcome per delivery, committed; nil when ctx ended first.
func (c *Consumer) book(ctx context.Context, writer int, p part) []ledger.Outcome {
	c.notices.begin(writer)
	part := p.events
	entries := make([]ledger.Entry, 0, len(part))
	for i := range part {
		if part[i].refused == nil {
			entries = append(entries, part[i].entry)
		}
	}
	booking, ok := c.bookUntilDone(ctx, p.share, entries)
	if !ok {
		return nil
	}
	killpoint.Here("after-commit")
	c.notices.send(booking.Days)
	killpoint.Here("notice-sent")
	c.notices.end(writer)

	outcomes := make([]ledger.Outcome, len(part))
	next := 0
	for i := range part {
		if part[i].refused != nil {
			outcomes[i] = ledger.Outcome{Fate: ledger.Rejected, Reason: part[i].refused}
			continue
		}
		outcomes[i] = booking.Outcomes[next]
		next++
	}
	return outcomes
}

// bookUntilDone tries as long as it takes: whatever Postgres suffers from, the
// events are safe in the stream and booking again is harmless.
func (c *Consumer) bookUntilDone(ctx context.Context, share ledger.Share, entries []ledger.Entry) (ledger.Booking, bool) {
	for wait := newBackoff(); ; wait.sleep(ctx) {
		if ctx.Err() != nil {
			return ledger.Booking{}, false
		}
		start := time.Now()
		booking, err := c.cfg.Ledger.BookShare(ctx, share, entries)
		if err == nil {
			c.metrics.bookSeconds.Observe(time.Since(start).Seconds())
			return booking, true
		}
		c.metrics.bookErrors.Inc()
		c.log.Warn("events cannot be booked, trying again", "events", len(entries), "error", err)
	}
}

// settleAll gives every event of a part its fate. outcomes is nil when nothing
// is known to be committed.
func (c *Consumer) settleAll(ctx context.Context, part []delivery, outcomes []ledger.Outcome) {
	if outcomes == nil {
		for i := range part {
			c.settle(&part[i], handBack, "")
		}
		return
	}
	c.quarantineAll(ctx, part, outcomes)
	booked, duplicates := 0, 0
	for i := range part {
		if i == len(part)/2 {
			killpoint.Here("during-ack")
		}
		switch outcomes[i].Fate {
		case ledger.Booked:
			booked++
			c.settle(&part[i], accept, "")
		case ledger.Duplicate:
			duplicates++
			c.settle(&part[i], accept, "")
		}
	}
	c.metrics.booked.Add(float64(booked))
	c.metrics.duplicates.Add(float64(duplicates))
}

// quarantineAll copies the rejected events to the quarantine stream and lets go
// of those whose copy is acknowledged.
func (c *Consumer) quarantineAll(ctx context.Context, part []delivery, outcomes []ledger.Outcome) {
	var rejected []int
	for i := range outcomes {
		if outcomes[i].Fate == ledger.Rejected {
			rejected = append(rejected, i)
		}
	}
	for wait := newBackoff(); len(rejected) > 0; wait.sleep(ctx) {
		rejected = c.publishRejected(ctx, part, outcomes, rejected)
		if len(rejected) == 0 {
			return
		}
		if ctx.Err() != nil {
			for _, i := range rejected {
				c.settle(&part[i], handBack, "")
			}
			return
		}
		c.log.Warn("events cannot be quarantined, trying again", "events", len(rejected))
		if err := c.restoreQuarantine(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("the quarantine stream is not ready", "error", err)
		}
	}
}
