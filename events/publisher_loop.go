package events

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// manyEvents do not linger.
	manyEvents = 1000

	// A subject that NATS refused is tried again after holdFor, or after holdBriefly
	// while somebody waits in Flush or Close. Its events wait meanwhile, and do not
	// hold up those of other ports.
	holdFor     = 30 * time.Second
	holdBriefly = time.Second
)

// loop publishes what was recorded: all that waits, then what was recorded meanwhile, and
// so on. Only its own goroutine touches it.
type loop struct {
	*outlet
	events    []*event             // in hand and not acknowledged, in order
	refused   map[string]time.Time // subjects, and since when
	toldDrops uint64               // drops already logged
}

// run ends when the publisher is closed and everything is acknowledged or dropped, when
// its connection is closed under it, or when its life ends.
func (l *loop) run() {
	defer close(l.done)
	defer l.end()
	try := 0
	for {
		batch := l.next()
		if batch == nil {
			return
		}
		left, err := l.send(l.life, batch, try)
		l.keep(left)
		if len(left) < len(batch) {
			try = 0
		}
		if l.nc.IsClosed() { // for good
			return
		}
		if err != nil {
			try++
			l.pause(l.life, try, err)
		}
	}
}

// next waits for something to publish; nil means that there will be nothing more.
func (l *loop) next() []*event {
	for l.life.Err() == nil {
		now := time.Now()
		hurry, closed, waiting, since := l.look()
		wakeAt := l.release(now, hurry)
		if lingerEnd := since.Add(l.cfg.Linger); waiting > 0 && (hurry || waiting >= manyEvents || !now.Before(lingerEnd)) {
			l.take()
		} else if waiting > 0 {
			wakeAt = earlier(wakeAt, lingerEnd)
		}
		if batch := l.permitted(); len(batch) > 0 {
			return batch
		}
		if closed && len(l.events) == 0 {
			return nil
		}
		l.sleep(now, wakeAt)
	}
	return nil
}

// look takes stock, and tells calls of Flush and Close whose events are all acknowledged
// or dropped.
func (l *loop) look() (hurry, closed bool, waiting int, since time.Time) {
	l.mu.Lock()
	waiting, since = len(l.recorded), l.since
	oldest := l.accepted - uint64(waiting) + 1
	for _, e := range l.events {
		oldest = min(oldest, e.place)
	}
	l.waits = slices.DeleteFunc(l.waits, func(w *wait) bool {
		if w.upTo < oldest {
			close(w.done)
		}
		return w.upTo < oldest
	})
	closed, hurry = l.closed, l.closed || len(l.waits) > 0
	drops := l.stats.Dropped
	l.mu.Unlock()
	if drops != l.toldDrops {
		l.logDrops.Do(func() { l.tellDrops(drops) })
	}
	return hurry, closed, waiting, since
}

// take brings in what was recorded.
func (l *loop) take() {
	l.mu.Lock()
	recorded := l.recorded
	l.recorded = nil
	l.inHand += len(recorded)
	place := l.accepted - uint64(len(recorded))
	l.mu.Unlock()
	for _, u := range recorded {
		place++
		e, err := l.newEvent(*u, place)
		if err != nil {
			l.countInvalid(*u, err)
		}
		if e != nil {
			l.events = append(l.events, e)
		} else {
			l.drop(1)
		}
	}
}

// permitted takes the events out whose subjects are not refused. The others may fill half
// the buffer, then the oldest go: the other ports need room too.
func (l *loop) permitted() []*event {
	if len(l.refused) == 0 {
		batch := l.events
		l.events = nil
		return batch
	}
	var batch, held []*event
	for _, e := range l.events {
		if _, refused := l.refused[e.subject]; refused {
			held = append(held, e)
		} else {
			batch = append(batch, e)
		}
	}
	over := max(0, len(held)-max(1, l.cfg.Buffer/2))
	l.drop(over)
	l.events = held[over:]
	return batch
}

// release gives the subjects that were refused long enough ago another try, and
// says when the next one is due.
func (l *loop) release(now time.Time, hurry bool) (next time.Time) {
	wait := holdFor
	if hurry {
		wait = holdBriefly
	}
	for subject, since := range l.refused {
		if due := since.Add(wait); now.Before(due) {
			next = earlier(next, due)
		} else {
			delete(l.refused, subject)
		}
	}
	return next
}

// keep takes back what a send left.
func (l *loop) keep(left []*event) {
	var again []*event
	hopeless := 0
	for _, e := range left {
		switch {
		case e.hopeless:
			hopeless++
			continue
		case e.refused:
			l.refused[e.subject] = time.Now()
		}
		again = append(again, e)
	}
	l.events = append(again, l.events...)
	l.drop(hopeless)
}

// drop gives up n events in hand.
func (l *loop) drop(n int) {
	l.mu.Lock()
	l.stats.Dropped += uint64(n)
	l.inHand -= n
	l.mu.Unlock()
}

func (l *loop) countInvalid(u Usage, err error) {
	l.mu.Lock()
	l.stats.Invalid++
	n := l.stats.Invalid
	l.mu.Unlock()
	l.logInvalid.Do(func() {
		l.cfg.Logger.Error("a usage event breaks the contract; it goes to the quarantine if its port is legal",
			"error", err, "port_id", u.PortID, "feature", u.Feature, "invalid_in_all", n)
	})
}

func (l *loop) tellDrops(drops uint64) {
	l.cfg.Logger.Error("usage events dropped, their tokens will not be counted: the buffer was full, or NATS cannot carry them",
		"dropped", drops-l.toldDrops, "dropped_in_all", drops, "buffer", l.cfg.Buffer)
	l.toldDrops = drops
}

// end gives up what is left.
func (l *loop) end() {
	l.look()
	l.mu.Lock()
	l.closed = true
	l.lost = l.waiting()
	l.stats.Dropped += uint64(l.lost)
	l.recorded, l.inHand = nil, 0
	l.mu.Unlock()
	if l.lost > 0 {
		l.cfg.Logger.Error("the publisher ends with usage events not acknowledged, their tokens will not be counted", "lost", l.lost, "nats", l.nc.Status().String())
	}
}

// sleep waits until something happens, or until the given time unless it is zero.
func (l *loop) sleep(now, until time.Time) {
	var alarm <-chan time.Time
	if !until.IsZero() {
		alarm = time.After(until.Sub(now))
	}
	select {
	case <-alarm:
	case <-l.wake:
	case <-l.life.Done():
	}
}

// earlier is the earlier of two times, of which zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// pause waits between two tries: 25 to 50 ms at first, up to 1 to 2 s. Without a
// connection it ends as soon as there is one again.
func (p *outlet) pause(ctx context.Context, try int, cause error) {
	if ctx.Err() != nil || tooLarge(cause) { // then fewer events a message are tried at once
		return
	}
	p.logRetry.Do(func() {
		p.mu.Lock()
		waiting := p.waiting()
		p.mu.Unlock()
		p.cfg.Logger.Warn("usage events are not acknowledged yet; they are published again with the same ids",
			"error", cause, "waiting", waiting, "nats", p.nc.Status().String())
	})
	connection := p.nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer p.nc.RemoveStatusListener(connection)
	longest := min(50*time.Millisecond<<min(try-1, 10), 2*time.Second)
	select {
	case <-time.After(longest/2 + rand.N(longest/2)):
	case <-connection:
	case <-ctx.Done():
	}
}
