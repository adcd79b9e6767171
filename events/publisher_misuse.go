package events

import "context"

// abandoned ends a publisher that nobody holds any more, once all is acknowledged or
// the connection is closed.
func abandoned(o *outlet) {
	o.mu.Lock()
	closed, waiting := o.closed, o.queue.len()+o.inHand
	o.mu.Unlock()
	if closed {
		return
	}
	if waiting > 0 {
		o.cfg.Logger.Warn("a publisher was dropped without Close; its usage events are lost if the process ends before they are acknowledged", "waiting", waiting)
	}
	go func() { _ = (&Publisher{o}).Close(context.Background()) }() // what gets lost, the loop logs
}

// tellLate says what a caller of Record would not notice.
func (p *Publisher) tellLate(dropped uint64) {
	p.cfg.Logger.Error("a usage event was recorded after its publisher or its connection was closed: its tokens will not be counted", "dropped_in_all", dropped)
}
