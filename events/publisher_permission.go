package events

import (
	"strings"
	"sync"
	"weak"

	"github.com/nats-io/nats.go"
)

// handlers guards the error handlers of connections while a publisher puts itself before one.
var handlers sync.Mutex

// hearViolations makes the connection tell p what NATS forbids: it does not answer a
// publish that it forbids.
func (p *outlet) hearViolations() {
	handlers.Lock()
	defer handlers.Unlock()
	listener, before := weak.Make(p), p.nc.ErrorHandler()
	p.nc.SetErrorHandler(func(nc *nats.Conn, sub *nats.Subscription, err error) {
		_, quoted, is := strings.Cut(err.Error(), `Permissions Violation for Publish to "`)
		if p := listener.Value(); p != nil && is {
			subject, _, _ := strings.Cut(quoted, `"`)
			p.tellForbidden(subject)
		}
		if before != nil {
			before(nc, sub, err)
		}
	})
}

// listener is who wants to know what NATS forbids.
type listener struct {
	subjects map[string]bool // refused since it asked
	news     chan struct{}   // cap 1: there are some
}

func (p *outlet) tellForbidden(subject string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.listeners {
		l.subjects[subject] = true
		select {
		case l.news <- struct{}{}:
		default:
		}
	}
}

func (p *outlet) listen() *listener {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := &listener{map[string]bool{}, make(chan struct{}, 1)}
	p.listeners[l] = struct{}{}
	return l
}

func (p *outlet) unlisten(l *listener) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.listeners, l)
}

// heard returns the subjects that were refused since it was last called.
func (p *outlet) heard(l *listener) map[string]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	subjects := l.subjects
	l.subjects = map[string]bool{}
	return subjects
}
