package events

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"
)

// A subject that NATS refused is tried again after holdFor, or after holdBriefly
// while somebody waits in Flush or Close. Its events wait aside meanwhile, so
// that they do not hold up other ports' events.
const (
	holdFor     = 30 * time.Second
	holdBriefly = time.Second
)

// loop publishes what was recorded. Only its own goroutine touches it.
type loop struct {
	*Publisher
	again     []*message           // to be published again, in order
	held      []*message           // their subjects are refused
	refused   map[string]time.Time // those subjects, and since when
	toldDrops uint64               // drops already logged
}

// run ends when the publisher is closed and everything is settled, when its
// connection is closed under it, or when its life ends.
func (p *Publisher) run() {
	defer close(p.done)
	l := &loop{Publisher: p, refused: map[string]time.Time{}}
	defer l.end()
	try := 0
	for {
		batch := l.next(p.life)
		if batch == nil {
			return
		}
		left, err := p.send(p.life, batch, try)
		l.keep(len(batch), left)
		if len(left) < len(batch) {
			try = 0
		}
		if p.nc.IsClosed() { // for good
			return
		}
		if len(l.again) > 0 {
			try++
			p.pause(p.life, try, err)
		}
	}
}

// next waits for something to publish; nil means that there will be nothing more.
func (l *loop) next(ctx context.Context) []*message {
	var lingerEnd time.Time
	for ctx.Err() == nil {
		now := time.Now()
		hurry, closed, waiting := l.look()
		nextRelease := l.release(now, hurry)
		full := waiting >= l.cfg.BatchSize
		switch {
		case len(l.again) > 0, full, waiting > 0 && (hurry || !lingerEnd.IsZero() && !now.Before(lingerEnd)):
			if batch := l.take(); len(batch) > 0 {
				return batch
			}
			continue // everything taken was set aside
		case closed && waiting == 0 && len(l.held) == 0:
			return nil
		case waiting > 0 && lingerEnd.IsZero():
			lingerEnd = now.Add(l.cfg.Linger)
		}
		l.sleep(ctx, now, earlier(lingerEnd, nextRelease))
	}
	return nil
}

// look takes stock: it tells whoever waits in Flush or Close how far things are.
func (l *loop) look() (hurry, closed bool, waiting int) {
	l.mu.Lock()
	hurry, closed, waiting = l.hurried > 0 || l.closed, l.closed, l.queue.len()
	if hurry {
		l.oldest = l.accepted - uint64(waiting) + 1
		for _, m := range l.again {
			l.oldest = min(l.oldest, m.place)
		}
		for _, m := range l.held {
			l.oldest = min(l.oldest, m.place)
		}
		close(l.progress)
		l.progress = make(chan struct{})
	}
	drops := l.stats.Dropped
	l.mu.Unlock()
	if drops != l.toldDrops {
		l.logDrops.Do(func() { l.tellDrops(drops) })
	}
	return hurry, closed, waiting
}

func (l *loop) tellDrops(drops uint64) {
	l.cfg.Logger.Error("usage events dropped, their tokens will not be counted: the buffer was full, or NATS cannot carry them",
		"dropped", drops-l.toldDrops, "dropped_in_all", drops, "buffer", l.cfg.Buffer)
	l.toldDrops = drops
}

// release gives the subjects that were refused long enough ago another try, and
// says when the next one is due.
func (l *loop) release(now time.Time, hurry bool) (next time.Time) {
	wait := holdFor
	if hurry {
		wait = holdBriefly
	}
	released := false
	for subject, since := range l.refused {
		if due := since.Add(wait); now.Before(due) {
			next = earlier(next, due)
			continue
		}
		delete(l.refused, subject)
		released = true
	}
	if !released {
		return next
	}
	l.held = slices.DeleteFunc(l.held, func(m *message) bool {
		if _, refused := l.refused[m.subject]; refused {
			return false
		}
		l.again = append(l.again, m)
		return true
	})
	return next
}

// take puts together what is published next: first what was tried before.
func (l *loop) take() []*message {
	n := min(len(l.again), l.cfg.BatchSize)
	batch := slices.Clone(l.again[:n])
	l.again = slices.Delete(l.again, 0, n)

	l.mu.Lock()
	taken := l.queue.pop(l.cfg.BatchSize - n)
	place := l.accepted - uint64(l.queue.len()+len(taken))
	l.inHand += len(taken)
	l.mu.Unlock()
	for _, u := range taken {
		place++
		m, err := l.newMessage(*u, place)
		if err != nil {
			l.countInvalid(*u, err)
		}
		switch {
		case m == nil:
			l.drop(1)
		case l.isRefused(m):
			l.hold(m)
		default:
			batch = append(batch, m)
		}
	}
	return batch
}

func (l *loop) isRefused(m *message) bool {
	_, refused := l.refused[m.subject]
	return refused
}

// keep takes back what a send left.
func (l *loop) keep(sent int, left []*message) {
	l.mu.Lock()
	l.inHand -= sent - len(left)
	l.mu.Unlock()
	var again []*message
	for _, m := range left {
		switch {
		case m.hopeless:
			l.drop(1)
		case m.refused:
			m.refused = false
			l.refused[m.subject] = time.Now()
			l.hold(m)
		default:
			again = append(again, m)
		}
	}
	l.again = append(again, l.again...)
}

// hold sets an event of a refused subject aside. Such events may fill half the
// buffer, then the oldest go: the other ports need room too.
func (l *loop) hold(m *message) {
	l.held = append(l.held, m)
	if over := len(l.held) - max(1, l.cfg.Buffer/2); over > 0 {
		l.held = slices.Delete(l.held, 0, over)
		l.drop(over)
	}
}

// drop gives up n events that the loop holds.
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

// end gives up what is left.
func (l *loop) end() {
	l.look()
	l.mu.Lock()
	l.closed = true
	l.lost = l.waiting()
	l.stats.Dropped += uint64(l.lost)
	l.queue, l.inHand = newRing(0), 0
	l.mu.Unlock()
	if l.lost > 0 {
		l.cfg.Logger.Error("the publisher ends with usage events not acknowledged, their tokens will not be counted", "lost", l.lost, "nats", l.nc.Status().String())
	}
}

// sleep waits until something happens, or until the given time unless it is zero.
func (l *loop) sleep(ctx context.Context, now, until time.Time) {
	var alarm <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(until.Sub(now))
		defer timer.Stop()
		alarm = timer.C
	}
	select {
	case <-alarm:
	case <-l.wake:
	case <-ctx.Done():
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
func (p *Publisher) pause(ctx context.Context, try int, cause error) {
	if ctx.Err() != nil {
		return
	}
	p.logRetry.Do(func() {
		p.mu.Lock()
		waiting := p.waiting()
		p.mu.Unlock()
		p.cfg.Logger.Warn("usage events are not acknowledged yet; they are published again with the same ids",
			"error", cause, "waiting", waiting, "nats", p.nc.Status().String())
	})
	longest := min(50*time.Millisecond<<min(try-1, 10), 2*time.Second)
	end := time.NewTimer(longest/2 + rand.N(longest/2))
	defer end.Stop()
	connected := p.nc.IsConnected()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-end.C:
			return
		case <-ctx.Done():
			return
		case <-look.C:
			if !connected && p.nc.IsConnected() || p.nc.IsClosed() {
				return
			}
		}
	}
}
