package ops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/tidegate/tidegate/consumer/quarantine"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

// Client asks a running Tidegate. Its errors match [events.ErrUnavailable] when
// no admin role answers; faults are [*events.ServiceError].
type Client struct {
	conn    *nats.Conn
	timeout time.Duration
}

// NewClient returns a client on conn, which stays the caller's. Each request may
// take as long as timeout.
func NewClient(conn *nats.Conn, timeout time.Duration) *Client { return &Client{conn, timeout} }

// Verify compares ledger, totals and gates. It takes seconds per ten million rows.
func (c *Client) Verify(ctx context.Context) (v Verification, err error) {
	err = c.ask(ctx, subjectVerify, struct{}{}, &v)
	return v, err
}

// Ports calls each with every port, in the order of their ids, until it returns false.
func (c *Client) Ports(ctx context.Context, each func(ledger.Port) bool) error {
	for after := ""; ; {
		var page portsReply
		if err := c.ask(ctx, subjectPorts, portsRequest{After: after, Limit: maxPorts}, &page); err != nil {
			return err
		}
		for _, p := range page.Ports {
			if !each(p) {
				return nil
			}
			after = p.PortID
		}
		if len(page.Ports) < maxPorts {
			return nil
		}
	}
}

// DeletePort removes a port with everything it spent. Code 404: there is none.
func (c *Client) DeletePort(ctx context.Context, port, by string) (d Deleted, err error) {
	err = c.ask(ctx, subjectPortDelete, portDeleteRequest{PortID: port, By: by}, &d)
	return d, err
}

// Holds reports a port's live and unsettled reservations.
func (c *Client) Holds(ctx context.Context, port string) (r ledger.HoldReport, err error) {
	err = c.ask(ctx, subjectHolds, holdsRequest{port}, &r)
	return r, err
}

// EraseUser takes a user's name off every row and every later event.
func (c *Client) EraseUser(ctx context.Context, user string) (d Deleted, err error) {
	err = c.ask(ctx, subjectUserErase, userEraseRequest{UserID: user}, &d)
	return d, err
}

// Quarantine calls each with every quarantined event, oldest first, payloads left
// out, until it returns false.
func (c *Client) Quarantine(ctx context.Context, each func(quarantine.Event) bool) error {
	for from := uint64(1); ; {
		var page quarantineReply
		if err := c.ask(ctx, subjectQuarantineList, quarantineListRequest{From: from, Limit: maxQuarantined}, &page); err != nil {
			return err
		}
		for _, e := range page.Events {
			if !each(e) {
				return nil
			}
			from = e.Sequence + 1
		}
		if len(page.Events) < maxQuarantined {
			return nil
		}
	}
}

// QuarantineShow returns one event whole. Code 404: there is none.
func (c *Client) QuarantineShow(ctx context.Context, sequence uint64) (e quarantine.Event, err error) {
	err = c.ask(ctx, subjectQuarantineShow, quarantineRequest{sequence}, &e)
	return e, err
}

// QuarantineReplay sends one event back to the stream. Code 404: there is none.
func (c *Client) QuarantineReplay(ctx context.Context, sequence uint64) error {
	return c.ask(ctx, subjectQuarantineReplay, quarantineRequest{sequence}, &struct{}{})
}

func (c *Client) ask(ctx context.Context, subject string, request, reply any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	msg, err := c.conn.RequestWithContext(ctx, subject, body)
	if errors.Is(err, nats.ErrNoResponders) {
		return fmt.Errorf("nobody answers %s: is a tidegate with the role admin running there? %w", subject, events.ErrUnavailable)
	}
	if err != nil {
		return fmt.Errorf("asking %s: %w", subject, err)
	}
	if code, err := strconv.Atoi(msg.Header.Get(micro.ErrorCodeHeader)); err == nil {
		return &events.ServiceError{Code: code, Description: msg.Header.Get(micro.ErrorHeader), Subject: subject}
	}
	if err := json.Unmarshal(msg.Data, reply); err != nil {
		return fmt.Errorf("the answer of %s cannot be read: %w", subject, err)
	}
	return nil
}
