package consumer

import (
	"context"
	"slices"
	"time"

	"go.opentelemetry.io/otel/codes"

	"github.com/tidegate/tidegate/internal/killpoint"
	"github.com/tidegate/tidegate/ledger"
)

// write books what the queue brings until it is closed. When ctx, the drain
// deadline, ends, it hands back the rest.
func (c *Consumer) write(ctx context.Context, writer int, queue <-chan part) {
	for p := range queue {
		outcomes, noted := c.book(ctx, writer, p)
		c.inFlight.end(p.flight, c.finish(ctx, writer, p, outcomes, noted), c.settleBatch)
	}
}

// book returns one outcome per delivery, committed; nil when ctx ended first. The part's
// share is noted with them unless something is refused: then it has yet to be noted, once
// that is in the quarantine.
func (c *Consumer) book(ctx context.Context, writer int, p part) (outcomes []ledger.Outcome, noted bool) {
	c.telling.Begin(writer)
	ctx, span := c.trace(ctx, p.events)
	defer span.End()
	part, share := p.events, p.share
	entries := make([]ledger.Entry, 0, len(part))
	for i := range part {
		if part[i].refused == nil {
			entries = append(entries, part[i].entry)
		}
	}
	if len(entries) < len(part) {
		share = ledger.Share{}
	}
	booking, ok := c.bookUntilDone(ctx, share, entries)
	if !ok {
		span.SetStatus(codes.Error, "handed back")
		return nil, false
	}
	killpoint.Here("after-commit")
	c.telling.Send(booking.Days, booking.Counters)
	killpoint.Here("notice-sent")
	c.telling.End(writer)

	outcomes = make([]ledger.Outcome, len(part))
	next := 0
	for i := range part {
		if part[i].refused != nil {
			outcomes[i] = ledger.Outcome{Fate: ledger.Rejected, Reason: part[i].refused}
			continue
		}
		outcomes[i] = booking.Outcomes[next]
		next++
	}
	return outcomes, booking.Noted && len(entries) == len(part)
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
		c.trouble.note(err)
		if err == nil {
			c.metrics.bookSeconds.Observe(time.Since(start).Seconds())
			return booking, true
		}
		c.metrics.bookErrors.Inc()
		c.log.Warn("events cannot be booked, trying again", "events", len(entries), "error", err)
	}
}

// finish gives every event of a part its fate: first what is refused is copied, then the part's
// share is noted unless it is. Whoever dies before the messages are settled leaves messages that
// come again. Messages of which something cannot be copied are set aside. The part is handed back
// if not all is done. outcomes is nil when nothing is known to be committed.
func (c *Consumer) finish(ctx context.Context, writer int, p part, outcomes []ledger.Outcome, noted bool) fate {
	handedBack := fate{events: p.events}
	if outcomes == nil {
		return handedBack
	}
	if p.flight != nil && p.flight.letGo.Load() && slices.ContainsFunc(outcomes, func(o ledger.Outcome) bool { return o.Fate == ledger.Rejected }) {
		return handedBack // another consumer may have copied what is refused, long ago
	}
	if left := c.quarantineAll(ctx, writer, p, outcomes); len(left) > 0 {
		if ctx.Err() != nil || p.share.Of != 1 { // what is in another part counts only with this one
			c.aside.handedBack()
			return handedBack
		}
		p, outcomes = c.setAside(p, outcomes, left)
	}
	return fate{p.events, outcomes, noted || c.note(ctx, writer, p, outcomes)}
}

// settleBatch settles the messages of all parts of a batch: its sequences count as booked once
// every part is, and nothing is acknowledged before it is booked.
func (c *Consumer) settleBatch(parts []fate) {
	booked := !slices.ContainsFunc(parts, func(f fate) bool { return !f.done })
	for _, f := range parts {
		if booked {
			c.settleOutcomes(f.events, f.outcomes)
		} else {
			c.handBack(f.events)
		}
	}
}

func (c *Consumer) handBack(part []delivery) {
	for i := range part {
		c.settle(&part[i], handBack, "")
	}
}

func (c *Consumer) settleOutcomes(part []delivery, outcomes []ledger.Outcome) {
	booked, duplicates, now := 0, 0, c.cfg.Now()
	for i := range part {
		if i == len(part)/2 {
			killpoint.Here("during-ack")
		}
		switch outcomes[i].Fate {
		case ledger.Booked:
			booked++
			c.metrics.eventAge.Observe(now.Sub(part[i].entry.At).Seconds())
			c.settle(&part[i], accept, "")
		case ledger.Duplicate:
			duplicates++
			c.settle(&part[i], accept, "")
		case ledger.Rejected:
			reason := outcomes[i].Reason.Reason
			c.metrics.quarantined.WithLabelValues(string(reason)).Inc()
			c.settle(&part[i], discard, reason)
		}
	}
	if booked > 0 {
		c.metrics.lastBooking.SetToCurrentTime()
	}
	c.metrics.booked.Add(float64(booked))
	c.metrics.duplicates.Add(float64(duplicates))
}

// note notes a part's share, with what was booked of the part: Postgres may have been put
// back to an older copy since, and what is noted must be there.
func (c *Consumer) note(ctx context.Context, writer int, p part, outcomes []ledger.Outcome) bool {
	var booked []delivery
	for i := range outcomes {
		if outcomes[i].Reason == nil {
			booked = append(booked, p.events[i])
		}
	}
	_, noted := c.book(ctx, writer, part{events: booked, share: p.share})
	return noted
}

// quarantineTries is how often a part tries to make its copies whose batch has another part.
const quarantineTries = 3

// quarantineAll copies the rejected events to the quarantine stream. It returns what could not be
// copied. Only what was acknowledged long ago, and is read again, is tried until ctx ends: nothing
// else would bring it back.
func (c *Consumer) quarantineAll(ctx context.Context, writer int, p part, outcomes []ledger.Outcome) (left []copying) {
	left = copies(p.events, outcomes)
	for try, wait := 1, newBackoff(); len(left) > 0; try++ {
		if writer != rebookWriter && c.aside.busy() {
			return left // what fails now would hold up everything
		}
		left = c.publishRejected(ctx, p.events, outcomes, left)
		if len(left) == 0 || ctx.Err() != nil || writer != rebookWriter && (p.share.Of == 1 || try == quarantineTries) {
			return left
		}
		c.log.Warn("events cannot be quarantined, trying again", "copies", len(left), "error", c.aside.why())
		if err := c.restoreQuarantine(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("the quarantine stream is not ready", "error", err)
		}
		wait.sleep(ctx)
	}
	return left
}
