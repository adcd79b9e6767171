package events

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// Policy is what a [Client] answers a check with when it cannot ask.
type Policy int

// The policies. There is no default: whether an outage may stop AI calls or may
// let a budget be overrun is for each service to decide.
const (
	FailOpen   Policy = iota + 1 // allow: a missing answer never stops an AI call, caps may be overrun meanwhile
	FailClosed                   // refuse: nothing is spent that nobody has checked
)

// ClientConfig configures a [Client].
type ClientConfig struct {
	// WhenUnavailable decides checks that could not be asked. Required.
	WhenUnavailable Policy
	// Timeout bounds every call, besides its ctx. Default 2 s.
	Timeout time.Duration
	// Publisher reports what reservations cost. Required by [Client.Reserve] only;
	// it stays the caller's to close.
	Publisher *Publisher
	// Service names this program in reservations, so that calls which are never
	// reported can be traced to it. Default: the connection's name.
	Service string
}

// Client asks the budget gate. Its methods may be called from any goroutine. It
// holds nothing that must be closed; the connection stays the caller's.
//
// A question that has no answer, or to which a gate has no room (503), is asked again until
// the deadline, unless what was asked may have been done and must not be done twice. While
// NATS or the gates are away for longer than a second, calls fail at once.
//
// Every request goes to the subject that names the port, so a user whose NATS
// permissions cover one port can ask about that port only.
type Client struct {
	nc      *nats.Conn
	policy  Policy
	timeout time.Duration

	publisher *Publisher
	service   string

	missed atomic.Int64 // when NATS or the gates were found to be away, Unix ns; 0: they are not
}

// NewClient returns a client on nc. It does no I/O.
func NewClient(nc *nats.Conn, cfg ClientConfig) (*Client, error) {
	switch {
	case nc == nil:
		return nil, errors.New("events: NewClient needs a NATS connection; events.Connect makes one")
	case cfg.WhenUnavailable != FailOpen && cfg.WhenUnavailable != FailClosed:
		return nil, errors.New("events: ClientConfig.WhenUnavailable must be events.FailOpen or events.FailClosed: say what a check answers while no gate does")
	case cfg.Timeout < 0:
		return nil, fmt.Errorf("events: ClientConfig.Timeout must not be negative: got %s", cfg.Timeout)
	case cfg.Timeout == 0:
		cfg.Timeout = 2 * time.Second
	}
	cfg.Service = cmp.Or(cfg.Service, nc.Opts.Name)
	if err := checkText("service", cfg.Service, maxFeatureChars, false); err != nil {
		return nil, fmt.Errorf("events: ClientConfig.Service: %w", err)
	}
	return &Client{nc: nc, policy: cfg.WhenUnavailable, timeout: cfg.Timeout, publisher: cfg.Publisher, service: cfg.Service}, nil
}

// Check asks whether r.PortID may spend r.EstimatedTokens now. It holds nothing:
// two callers that check at once may both be allowed the last tokens.
//
// The verdict is right to act on whatever the error is: with any error its
// Allowed is the policy's answer, so a caller needs no more than
//
//	v, err := client.Check(ctx, r)
//	if err != nil { log it }
//	if !v.Allowed { refuse }
//
// The error is [ErrUnavailable] when no gate answered (a refusal then carries
// [ReasonGateUnavailable]; [ErrNotPermitted] matches too if NATS forbade to ask), a [*FieldError] when r breaks the contract, or a
// [*ServiceError]. A refusal by the gate is no error.
func (c *Client) Check(ctx context.Context, r CheckRequest) (Verdict, error) {
	var v Verdict
	if err := c.ask(ctx, question{base: SubjectCheck, repeatable: true}, &r, &v); err != nil {
		return c.undecided(err), err
	}
	return v, nil
}

// undecided is the verdict of the policy.
func (c *Client) undecided(err error) Verdict {
	v := Verdict{Allowed: c.policy == FailOpen}
	if !v.Allowed && errors.Is(err, ErrUnavailable) {
		v.Reason = ReasonGateUnavailable
	}
	return v
}

// Get returns a port's budget as it is stored, or that of [DefaultPort]. A port without one has
// Version 0, or the version at which it was given back to the default budget; its other fields are
// those of the default budget, if there is one.
// While Postgres is away the error is [ErrUnavailable].
func (c *Client) Get(ctx context.Context, port string) (b Budget, err error) {
	err = c.ask(ctx, question{base: SubjectBudgetGet, repeatable: true, waits: true}, &GetRequest{PortID: port}, &b)
	return b, err
}

// Set stores a budget and returns it with its new version. The error is
// [ErrConflict] when r.IfVersion is not the stored version: [Client.Change] begins again then. After
// [ErrUnavailable] the budget may have been stored or not: only the answer is
// known to be missing.
func (c *Client) Set(ctx context.Context, r SetRequest) (b Budget, err error) {
	err = c.ask(ctx, question{base: SubjectBudgetSet, waits: true}, &r, &b)
	return b, err
}

// changeTries is how often [Client.Change] begins. Of callers that change one budget at
// the same moment one gets through in each round.
const changeTries = 8

// Change reads a port's budget, lets edit change it and stores it, unless somebody else
// stored another one in between: then it begins again with that one, at most 8 times in
// all, and at last says [ErrConflict] and has stored nothing. So edit may run several
// times; b.Version is 0 where nothing is stored yet, and edit says in b.UpdatedBy who it
// is. The other errors are those of [Client.Get] and [Client.Set].
func (c *Client) Change(ctx context.Context, port string, edit func(b *Budget)) (Budget, error) {
	for range changeTries {
		b, err := c.Get(ctx, port)
		if err != nil {
			return Budget{}, err
		}
		version, limited, extra, until := b.Version, len(b.Limits) > 0, extraTokens(b), b.ExtraUntil
		b.UpdatedBy = ""
		edit(&b)
		if b.Limits == nil && limited {
			b.Limits = []Limit{} // left out, they would stay
		}
		switch now := extraTokens(b); {
		case now == extra && b.ExtraUntil.Equal(until):
			b.ExtraTokens, b.ExtraUntil = nil, time.Time{} // left out, they stay, or go with the hard cap
		case now == 0 && (b.ExtraUntil.IsZero() || b.ExtraUntil.Equal(until)):
			b.ExtraTokens, b.ExtraUntil = new(int64), time.Time{} // left out, they would stay
		}
		b, err = c.Set(ctx, SetRequest{PortID: port, Enabled: b.Enabled, SoftCapTokens: b.SoftCapTokens, HardCapTokens: b.HardCapTokens,
			Period: b.Period, ExtraTokens: b.ExtraTokens, ExtraUntil: b.ExtraUntil, Limits: b.Limits, IfVersion: &version, UpdatedBy: b.UpdatedBy})
		if !errors.Is(err, ErrConflict) {
			return b, err
		}
	}
	return Budget{}, fmt.Errorf("events: somebody else changed the budget of %s each of the %d times that it was read and changed here, so nothing is stored; try again: %w",
		port, changeTries, ErrConflict)
}

func extraTokens(b Budget) int64 {
	if b.ExtraTokens == nil {
		return 0
	}
	return *b.ExtraTokens
}

// Usage returns a page of a port's usage in the current period of its budget. While
// Report.More, ask again with After = Report.Next for the next one. Pages are not of one
// moment: what grows meanwhile may move from a page to come to one that was read.
func (c *Client) Usage(ctx context.Context, r ReportRequest) (report Report, err error) {
	if r.LimitName != "" {
		return report, invalid("limit_name", r.LimitName, "must be left out: LimitUsage is for what a limit counts")
	}
	err = c.ask(ctx, asksReport, &r, &report)
	return report, err
}

// LimitUsage returns a page of what the limit named r.LimitName counts in its present window,
// as [Client.Usage] does. A limit that there is not is a [*ServiceError] (400).
func (c *Client) LimitUsage(ctx context.Context, r ReportRequest) (report LimitReport, err error) {
	if r.LimitName == "" {
		return report, invalid("limit_name", "", "is required: the name of a limit of the port's budget")
	}
	err = c.ask(ctx, asksReport, &r, &report)
	return report, err
}

var asksReport = question{base: SubjectReport, repeatable: true, waits: true}
