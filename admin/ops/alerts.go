package ops

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/tidegate/tidegate/alert"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

const (
	subjectAlerts     = subjectAdmin + ".alerts.list"
	subjectAlertTest  = subjectAdmin + ".alerts.test"
	subjectAlertRetry = subjectAdmin + ".alerts.retry"
)

const maxAlerts = 200 // of a page

// AlertFilter says which alerts to list: the zero value is all of them.
type AlertFilter struct {
	PortID string `json:"port_id"`
	Failed bool   `json:"failed"` // only those that some receiver did not take at the last attempt
}

// AlertLine is an alert and what became of it at one receiver.
type AlertLine struct {
	events.Alert
	PublishedAt *time.Time `json:"published_at"`       // on NATS; null: not yet
	Receiver    string     `json:"receiver,omitempty"` // left out: it goes to none
	Attempts    int        `json:"attempts"`
	NextAttempt *time.Time `json:"next_attempt_at,omitempty"`
	LastError   string     `json:"last_error,omitempty"`
	DeliveredAt *time.Time `json:"delivered_at,omitempty"`
	GivenUpAt   *time.Time `json:"given_up_at,omitempty"`
}

type alertsRequest struct {
	AlertFilter
	After *alertCursor `json:"after"` // null: from the newest
	Limit int          `json:"limit"`
}

type alertCursor struct {
	At       time.Time `json:"at"`
	ID       uuid.UUID `json:"id"`
	Receiver string    `json:"receiver"`
}

type alertsReply struct{ Alerts []AlertLine }

type receiverRequest struct {
	Receiver string `json:"receiver"`
}

type (
	// TestedAlert is what a receiver answered to a test alert.
	TestedAlert struct {
		Said string `json:"said"`
	}
	// Retried is how many deliveries are attempted once more.
	Retried struct {
		Deliveries int64 `json:"deliveries"`
	}
)

// Alerts calls each with every alert, once for each receiver, the newest first, until it returns false.
func (c *Client) Alerts(ctx context.Context, f AlertFilter, each func(AlertLine) bool) error {
	var after *alertCursor
	return pages(maxAlerts, func(limit int) (int, error) {
		var page alertsReply
		err := c.ask(ctx, subjectAlerts, alertsRequest{f, after, limit}, &page)
		for _, a := range page.Alerts {
			if !each(a) {
				return 0, err
			}
			after = &alertCursor{a.At, a.ID, a.Receiver}
		}
		return len(page.Alerts), err
	})
}

// TestAlert sends a test alert to a receiver. Code 404: there is no such receiver; 502: it did not take it.
func (c *Client) TestAlert(ctx context.Context, receiver string) (t TestedAlert, err error) {
	err = c.ask(ctx, subjectAlertTest, receiverRequest{receiver}, &t)
	return t, err
}

// RetryAlerts lets what was given up of a receiver be attempted once more. Code 404: there is no such receiver.
func (c *Client) RetryAlerts(ctx context.Context, receiver string) (r Retried, err error) {
	err = c.ask(ctx, subjectAlertRetry, receiverRequest{receiver}, &r)
	return r, err
}

var (
	errNoReceivers = errors.New("this process has no receivers of alerts: start each one that has the role admin with --alerts FILE")
	errNotTaken    = errors.New("it was not taken")
)

func (s *Service) listAlerts(ctx context.Context, r alertsRequest) (any, error) {
	var after *ledger.SentAlert
	if r.After != nil {
		after = &ledger.SentAlert{Alert: ledger.Alert{ID: r.After.ID, NoticedAt: r.After.At}, Receiver: r.After.Receiver}
	}
	list, err := s.cfg.Ledger.Alerts(ctx, ledger.AlertFilter(r.AlertFilter), after, clamp(r.Limit, maxAlerts))
	lines := make([]AlertLine, len(list))
	for i, a := range list {
		lines[i] = AlertLine{a.OnWire(), a.PublishedAt, a.Receiver, a.Attempts, nil, a.LastError, a.DeliveredAt, a.GivenUpAt}
		if a.DeliveredAt == nil && a.GivenUpAt == nil {
			lines[i].NextAttempt = a.NextAttempt
		}
	}
	return alertsReply{lines}, err
}

func (s *Service) testAlert(ctx context.Context, r receiverRequest) (any, error) {
	if s.cfg.Alerts == nil {
		return nil, errNoReceivers
	}
	said, err := s.cfg.Alerts.Test(ctx, r.Receiver)
	if err != nil && !errors.Is(err, alert.ErrUnknownReceiver) {
		err = fmt.Errorf("%w: %w", errNotTaken, err)
	}
	return TestedAlert{said}, err
}

func (s *Service) retryAlerts(ctx context.Context, r receiverRequest) (any, error) {
	if s.cfg.Alerts == nil {
		return nil, errNoReceivers
	}
	n, err := s.cfg.Alerts.Retry(ctx, r.Receiver)
	return Retried{n}, err
}
