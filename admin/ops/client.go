package ops

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
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

// Verify compares ledger, totals and gates: ten million ledger rows a minute on two cores. It calls
// progress meanwhile, which may be nil, and no more once it has returned.
func (c *Client) Verify(ctx context.Context, progress func(Progress)) (v Verification, err error) {
	var r verifyRequest
	if progress != nil {
		r.Progress = c.conn.NewInbox()
		told, err := c.conn.Subscribe(r.Progress, func(msg *nats.Msg) {
			var p Progress
			if json.Unmarshal(msg.Data, &p) == nil {
				progress(p)
			}
		})
		if err != nil {
			return v, err
		}
		// The answer may overtake what was told before it: those wait for another goroutine.
		passedOn := make(chan struct{})
		told.SetClosedHandler(func(string) { close(passedOn) })
		defer func() {
			if told.Drain() == nil {
				<-passedOn
			}
		}()
	}
	err = c.ask(ctx, subjectVerify, r, &v)
	return v, err
}

// Ports calls each with every port, in the order of their ids, until it returns false.
func (c *Client) Ports(ctx context.Context, each func(ledger.Port) bool) error {
	after := ""
	return pages(maxPorts, func(limit int) (int, error) {
		var page portsReply
		err := c.ask(ctx, subjectPorts, portsRequest{After: after, Limit: limit}, &page)
		for _, p := range page.Ports {
			if !each(p) {
				return 0, err
			}
			after = p.PortID
		}
		return len(page.Ports), err
	})
}

// pages asks for pages until one has fewer entries than asked for, and for smaller ones
// where they are larger than a message (413).
func pages(limit int, ask func(limit int) (got int, err error)) error {
	for {
		got, err := ask(limit)
		var fault *events.ServiceError
		switch {
		case errors.As(err, &fault) && fault.Code == http.StatusRequestEntityTooLarge && limit > 1:
			limit /= 2
		case err != nil:
			return err
		case got < limit:
			return nil
		}
	}
}

// NamePort gives a port the name that people see; "": none. A port that nobody knows yet is
// registered.
func (c *Client) NamePort(ctx context.Context, port, name, by string) error {
	return c.ask(ctx, subjectPortName, portNameRequest{PortID: port, Name: name, By: by}, &struct{}{})
}

// DeletePort removes a port with everything it spent. Code 404: there is none.
func (c *Client) DeletePort(ctx context.Context, port, by string) (d Deleted, err error) {
	err = c.ask(ctx, subjectPortDelete, portDeleteRequest{PortID: port, By: by}, &d)
	return d, err
}

// Holds reports a port's live and unsettled reservations.
func (c *Client) Holds(ctx context.Context, port string) (ledger.HoldReport, error) {
	r := ledger.HoldReport{PortID: port, Live: []ledger.HoldGroup{}, Unsettled: []ledger.UnsettledGroup{}}
	var last *ledger.HoldGroup
	err := pages(maxHolds, func(limit int) (int, error) {
		var page holdsReply
		err := c.ask(ctx, subjectHolds, holdsRequest{PortID: port, After: last, Limit: limit}, &page)
		for _, h := range page.Live {
			r.Live, last = append(r.Live, h), &h
		}
		return len(page.Live), err
	})
	if err != nil {
		return r, err
	}
	var after ledger.UnsettledGroup
	err = pages(maxHolds, func(limit int) (int, error) {
		var page unsettledReply
		err := c.ask(ctx, subjectUnsettled, unsettledRequest{PortID: port, After: after, Limit: limit}, &page)
		for _, u := range page.Unsettled {
			r.Unsettled, after = append(r.Unsettled, u), u
		}
		return len(page.Unsettled), err
	})
	slices.SortStableFunc(r.Live, func(a, b ledger.HoldGroup) int { return cmp.Compare(b.Tokens, a.Tokens) })
	slices.SortStableFunc(r.Unsettled, func(a, b ledger.UnsettledGroup) int {
		return cmp.Or(cmp.Compare(b.Day, a.Day), cmp.Compare(b.Tokens, a.Tokens))
	})
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
	from := uint64(1)
	return pages(maxQuarantined, func(limit int) (int, error) {
		var page quarantineReply
		err := c.ask(ctx, subjectQuarantineList, quarantineListRequest{From: from, Limit: limit}, &page)
		for _, e := range page.Events {
			if !each(e) {
				return 0, err
			}
			from = e.Sequence + 1
		}
		return len(page.Events), err
	})
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
