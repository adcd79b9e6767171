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

// tellForbidden tells everybody who listens. There is room for all of one's own messages; what
// others' leave no room for shows in a timeout.
func (p *outlet) tellForbidden(subject string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.listeners {
		select {
		case l <- subject:
		default:
		}
	}
}

// listen returns the subjects that NATS forbids from now on.
func (p *outlet) listen() chan string {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := make(chan string, maxOpen)
	p.listeners[l] = struct{}{}
	return l
}

func (p *outlet) unlisten(l chan string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.listeners, l)
}
