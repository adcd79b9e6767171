package events

import (
	"slices"
	"time"

	"github.com/synadia-io/orbit.go/jetstreamext"
)

// fillBy is how many events are sent ahead of their batch's end at a time. Encoding
// and storing a thousand at once keeps a processor busy for milliseconds, here and in
// the server, and whoever asks the gate meanwhile waits.
const fillBy = 32

// fillFor is the longest Linger at which events are sent ahead: the server gives up
// a batch that nothing was added to for 10 s.
const fillFor = 5 * time.Second

// batch is events that are published together.
type batch struct {
	messages []*message
	begun    jetstreamext.BatchPublisher // has all but the last message; nil: none is sent
	since    moment                      // when it was begun
}

// all is the messages, also of no batch.
func (b *batch) all() []*message {
	if b == nil {
		return nil
	}
	return b.messages
}

// isBegun forgets what was sent ahead on a connection that was lost since.
func (p *Publisher) isBegun(b *batch) bool {
	if b.begun != nil && p.wasCut(b.since.reconnects) {
		b.begun = nil
	}
	return b.begun != nil
}

// add sends the message before m ahead: the last one of a batch commits it.
func (p *Publisher) add(b *batch, m *message) {
	if n := len(b.messages); n > 0 && p.isBegun(b) && b.begun.AddMsg(b.messages[n-1].wire()) != nil {
		b.begun = nil // sent anew as a whole, which tells what is wrong
	}
	b.messages = append(b.messages, m)
}

// fill sends what waits in the queue ahead, and returns how much is left there.
func (l *loop) fill(waiting int) int {
	for waiting >= fillBy && len(l.filling.all())+fillBy <= l.cfg.BatchSize && l.mayFill() {
		for _, m := range l.encode(fillBy) {
			l.add(l.filling, m)
		}
		l.mu.Lock()
		waiting = l.queue.len() // from here on Record tells when it is fillBy again
		l.mu.Unlock()
	}
	return waiting
}

// mayFill makes a batch to fill if there is none, and if there is a point in it.
func (l *loop) mayFill() bool {
	if l.filling != nil {
		return l.isBegun(l.filling)
	}
	if len(l.again) > 0 || l.cfg.Linger > fillFor || !l.nc.IsConnected() || !l.takesBatches() {
		return false
	}
	since := l.moment()
	begun, err := jetstreamext.NewBatchPublisher(l.js, jetstreamext.BatchFlowControl{})
	if err != nil {
		return false
	}
	l.filling = &batch{begun: begun, since: since}
	return true
}

// take returns what is published next: the batch that was filled, or what was tried
// before, with what else there is.
func (l *loop) take() *batch {
	b := l.filling
	if l.filling = nil; b == nil {
		n := min(len(l.again), l.cfg.BatchSize)
		b = &batch{messages: slices.Clone(l.again[:n])}
		l.again = slices.Delete(l.again, 0, n)
	}
	for _, m := range l.encode(l.cfg.BatchSize - len(b.messages)) {
		l.add(b, m)
	}
	if len(b.messages) == 0 {
		return nil
	}
	return b
}

// answer is what came of sending a batch.
type answer struct {
	left []*message // not acknowledged, in order
	err  error
}

// start sends b while the next batch fills.
func (l *loop) start(b *batch) {
	l.sending = b
	try := l.try
	go func() {
		left, err := l.send(l.life, b, try)
		l.answers <- answer{left, err}
	}()
}

// settle takes in what came of the batch on its way.
func (l *loop) settle(a answer) {
	sent := len(l.sending.messages)
	l.sending = nil
	l.keep(sent, a.left)
	if len(a.left) < sent {
		l.try = 0
	}
	if len(l.again) == 0 {
		return
	}
	l.again = append(l.again, l.filling.all()...) // would fare no better
	l.filling = nil
	l.try++
	l.pause(l.life, l.try, a.err)
}
