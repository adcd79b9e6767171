package events

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
)

// closeWithin is how long [Connection.Close] waits for acknowledgements.
const closeWithin = 10 * time.Second

// Connection is what a service needs to report its calls and to ask before them: a
// [Publisher] and a [Client], with their defaults, on a NATS connection of their own. Its
// methods may be called from any goroutine.
type Connection struct {
	*Publisher
	*Client
	nc *nats.Conn
}

// Open connects to NATS like [Connect]: it needs no server to be there yet, and its error
// is about servers or the options. whenUnavailable is what [Connection.Check] and
// [Connection.Reserve] answer while no gate does. Close it before the process ends.
//
// A program that needs other settings than the defaults makes its own from [Connect],
// [NewPublisher] and [NewClient].
func Open(servers string, whenUnavailable Policy, opts ...nats.Option) (*Connection, error) {
	nc, err := Connect(servers, opts...)
	if err != nil {
		return nil, err
	}
	c := &Connection{nc: nc}
	if c.Publisher, err = NewPublisher(nc, PublisherConfig{}); err == nil {
		c.Client, err = NewClient(nc, ClientConfig{WhenUnavailable: whenUnavailable, Publisher: c.Publisher})
	}
	if err != nil {
		if c.Publisher != nil {
			_ = c.Close() // at once: nothing was recorded
		}
		nc.Close()
		return nil, err
	}
	return c, nil
}

// Close takes no more events, waits until JetStream has acknowledged those that were
// recorded, at most 10 s, and disconnects. The error, and the log, say how many were not:
// they are lost. It is safe to call twice.
func (c *Connection) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	err := c.Publisher.Close(ctx)
	c.nc.Close()
	return err
}
