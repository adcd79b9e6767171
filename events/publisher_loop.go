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

	// Subjects that NATS refused are tried again after holdFor, or after holdBriefly
	// while somebody waits in Flush or Close. Their events wait meanwhile, and do not
	// hold up those of other ports.
	holdFor     = 30 * time.Second
	holdBriefly = time.Second
)

// loop publishes what was recorded: all that waits, then what was recorded meanwhile, and
// so on. Only its own goroutine touches it.
type loop struct {
	*outlet
	events    []*event        // to be published next, in order
	refused   map[string]bool // subjects that NATS has refused
	held      []*event        // of those
	heldSince time.Time       // the first of them
	toldDrops uint64          // drops already logged
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
		left, err := l.send(l.life, batch)
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
		switch batch := l.events; {
		case len(batch) > 0:
			l.events = nil
			return batch
		case closed && len(l.held) == 0:
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
	if len(l.waits) > 0 {
		oldest := l.oldest()
		l.waits = slices.DeleteFunc(l.waits, func(w *wait) bool {
			if w.upTo < oldest {
				close(w.done)
			}
			return w.upTo < oldest
		})
	}
	closed, hurry = l.closed, l.closed || len(l.waits) > 0
	drops := l.stats.Dropped
	l.mu.Unlock()
	if drops != l.toldDrops {
		l.logDrops.Do(func() { l.tellDrops(drops) })
	}
	return hurry, closed, waiting, since
}

// oldest is the place of the first event that is neither acknowledged nor dropped. Lock held.
func (l *loop) oldest() uint64 {
	oldest := l.accepted - uint64(len(l.recorded)) + 1
	for _, list := range [...][]*event{l.events, l.held} {
		for _, e := range list {
			oldest = min(oldest, e.place)
		}
	}
	return oldest
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
		switch {
		case e == nil:
			l.drop(1)
		case l.refused[e.subject]:
			l.hold(e)
		default:
			l.events = append(l.events, e)
		}
	}
}

// hold sets an event of a refused subject aside. Such events may fill half the buffer,
// then the oldest goes: the other ports need room too.
func (l *loop) hold(e *event) {
	if len(l.held) == 0 {
		l.heldSince = time.Now()
	}
	l.refused[e.subject] = true
	if l.held = append(l.held, e); len(l.held) > max(1, l.cfg.Buffer/2) {
		l.held = l.held[1:]
		l.drop(1)
	}
}

// release gives what was refused long enough ago another try, and says when that is due.
func (l *loop) release(now time.Time, hurry bool) (due time.Time) {
	if len(l.held) == 0 {
		return due
	}
	if due = l.heldSince.Add(holdFor); hurry {
		due = l.heldSince.Add(holdBriefly)
	}
	if now.Before(due) {
		return due
	}
	l.events = append(l.events, l.held...)
	l.held = nil
	clear(l.refused)
	return time.Time{}
}

// keep takes back what a send left.
func (l *loop) keep(left []*event) {
	for _, e := range left {
		switch {
		case e.hopeless:
			l.drop(1)
		case e.refused:
			l.hold(e)
		default:
			l.events = append(l.events, e)
		}
	}
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
	if ctx.Err() != nil || tooLarge(cause) { // then each event by itself is tried at once
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
