package meter

import (
	"io"
	"net/http"
	"runtime"
	"slices"
	"sync"

	"github.com/tidegate/tidegate/events"
)

// body is a response body that is metered as it is read. It changes nothing of
// what the caller reads, until the gate stops it.
type body struct {
	rc        io.ReadCloser
	meter     *bodyMeter
	filter    *chunkFilter // nil: all that comes is the caller's
	err       error        // behind what the filter has ready
	abandoned runtime.Cleanup
}

// bodyMeter is what outlives a body that nobody closed.
type bodyMeter struct {
	call *call

	mu        sync.Mutex // Close may run beside Read
	reply     *reply     // nil: it failed, nothing can be read any more
	over      bool       // recorded
	extra     bool       // a chunk with nothing but figures has come
	stop      *RefusedError
	recheckAt int64 // output tokens at which to ask the gate again, 0: never
}

func newBody(c *call, resp *http.Response) *body {
	m := &bodyMeter{call: c}
	if c.t.cfg.Gate != nil && c.t.cfg.RecheckTokens > 0 && events.ValidPort(c.port) {
		m.recheckAt = c.t.cfg.RecheckTokens
	}
	m.reply = newReply(c.API, resp.Header)
	b := &body{rc: resp.Body, meter: m}
	if c.asked != nil && resp.Header.Get("Content-Encoding") == "" {
		b.filter = new(chunkFilter)
		resp.ContentLength = -1
		resp.Header.Del("Content-Length")
	}
	b.abandoned = runtime.AddCleanup(b, func(m *bodyMeter) { m.finish(cutShort) }, m)
	return b
}

func (b *body) Read(p []byte) (int, error) {
	if stop := b.meter.recheck(); stop != nil {
		b.rc.Close() // the provider need not go on
		return 0, stop
	}
	if b.filter == nil || len(p) == 0 {
		return b.receive(p)
	}
	for {
		if n := b.filter.take(p); n > 0 || b.err != nil {
			if n == 0 {
				return 0, b.err
			}
			return n, nil
		}
		begun := b.filter.giveBack(p)
		n, err := b.receive(p[begun:])
		n = b.filter.pass(p[:begun+n], b.meter.extra)
		if err != nil {
			b.filter.close()
			b.err = err
		}
		if n > 0 || err == nil {
			return n, nil
		}
	}
}

// receive reads what the provider sends.
func (b *body) receive(p []byte) (int, error) {
	n, err := b.rc.Read(p)
	b.meter.see(p[:n])
	switch err {
	case nil:
	case io.EOF:
		b.meter.finish(endOfBody)
	default:
		b.meter.finish(cutShort)
	}
	return n, err
}

func (b *body) Close() error {
	b.abandoned.Stop()
	b.meter.finish(cutShort)
	return b.rc.Close()
}

func (m *bodyMeter) see(p []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	reply := m.reply
	if m.over || reply == nil {
		return
	}
	m.reply = nil
	m.call.t.guard("the reply", func() {
		reply.write(p)
		m.reply, m.extra = reply, reply.extra // not reached in a panic
	})
}

// finish records the call, once.
func (m *bodyMeter) finish(how ending) {
	m.mu.Lock()
	if m.over {
		m.mu.Unlock()
		return
	}
	m.over = true
	read := reading{complete: how == endOfBody}
	if m.reply != nil {
		m.call.t.guard("the reply", func() { read = m.reply.finish(how) })
	}
	m.reply = nil
	m.mu.Unlock()
	m.call.record(read)
}

// onlyRequestsRefuse reports whether nothing but limits on the number of requests are in
// the way: the call at hand is no other request.
func onlyRequestsRefuse(v *events.Verdict) bool {
	return v.Unit == events.UnitRequests && !slices.ContainsFunc(v.Limits, func(l events.LimitVerdict) bool { return !l.Allowed && l.Unit != events.UnitRequests })
}

// recheck returns why the stream must end here, nil while it may go on. It asks
// the gate only for what no hold covers.
func (m *bodyMeter) recheck() *RefusedError {
	m.mu.Lock()
	stop, over, c := m.stop, m.over, m.call
	var output int64
	if m.reply != nil {
		output = textTokens(m.reply.textBytes())
	}
	due := m.recheckAt > 0 && output >= m.recheckAt
	if due {
		m.recheckAt = output + c.t.cfg.RecheckTokens
	}
	m.mu.Unlock()
	if stop != nil || over || !due {
		return stop
	}

	e := c.estimated()
	e.output = output
	spent := e.total()
	if spent <= c.held {
		return nil
	}
	e.input, e.output = e.beyond(c.held)
	q := c.question(e)
	q.Explain = true
	stop = c.check(c.t.cfg.Gate, q.Check())
	if stop == nil || c.ctx.Err() != nil || onlyRequestsRefuse(&stop.Verdict) {
		return nil
	}
	c.t.counters.refused.Add(1)
	stop.EstimatedTokens, stop.Streaming = spent, true
	m.mu.Lock()
	m.stop = stop
	m.mu.Unlock()
	m.finish(cutShort)
	return stop
}
