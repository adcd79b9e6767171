package events

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"
)

// question is a kind of request.
type question struct {
	base       string
	repeatable bool   // asking twice is as good as asking once
	waits      bool   // the gate may let it wait, and is told for how long it may
	again      func() // makes the request one that is repeatable, once an answer is missing; nil: it cannot be
}

// How long [Client.ask] waits before it asks again, at first and at most.
const (
	askAgainAfter  = 10 * time.Millisecond
	askAgainAtMost = 250 * time.Millisecond
)

// awayFor is for how long a question waits for NATS or for the gates, counted from the first
// that missed them: when a node or a gate dies others are there in less. An outage must not add
// the timeout to every AI call, so that questions that come later fail at once.
const awayFor = time.Second

// away reports whether err says that NATS or all gates are away, so that nothing was done,
// and it is worth waiting for them.
func (c *Client) away(err error) bool {
	if !errors.Is(err, errNotConnected) && !errors.Is(err, nats.ErrNoResponders) {
		return false
	}
	now := time.Now().UnixNano()
	first := c.missed.CompareAndSwap(0, now)
	return !c.nc.IsClosed() && (first || time.Duration(now-c.missed.Load()) < awayFor)
}

// inquiry is a question that is asked, maybe several times.
type inquiry struct {
	*Client
	question
	about   request
	subject string
	payload atomic.Pointer[[]byte]
}

func (i *inquiry) encode() error {
	payload, err := json.Marshal(i.about)
	if err != nil {
		return fmt.Errorf("events: encoding a request to %s: %w", i.subject, err)
	}
	i.payload.Store(&payload)
	return nil
}

// ask asks until it has an answer. A question that got none, or a gate that is too busy
// (503), is asked again within the deadline, unless what was asked may have been done and
// must not be done twice. The request, which nobody else uses, is asked on the subject of its port.
//
// A request is not left in nats.go's buffer: it would be asked long after its caller gave up.
func (c *Client) ask(ctx context.Context, q question, request request, reply any) error {
	if err := request.Validate(); err != nil {
		return err
	}
	i := &inquiry{Client: c, question: q, about: request, subject: q.base}
	if port := request.port(); *port != DefaultPort { // which no subject can name
		i.subject, *port = Subject(q.base, *port), ""
	}
	if err := i.encode(); err != nil {
		return err
	}
	if err := ctx.Err(); errors.Is(err, context.Canceled) {
		return fmt.Errorf("events: asking %s: %w", i.subject, err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var told error // by an earlier try
	for pause := askAgainAfter; ; pause = min(2*pause, askAgainAtMost) {
		answer, err := i.exchange(ctx)
		if told != nil && errors.Is(err, context.DeadlineExceeded) {
			return told // it says more
		}
		var busy *ServiceError
		switch {
		case err == nil:
			if err = json.Unmarshal(answer, reply); err != nil {
				err = fmt.Errorf("events: %s answered something else than its contract: %w", i.subject, err)
			}
			return err
		case c.away(err), errors.As(err, &busy) && busy.Code == 503 && (busy.TryAgain || q.repeatable):
			told = err
		default:
			return err
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return fmt.Errorf("events: asking %s: %w", i.subject, ctx.Err())
			}
			return told
		case <-time.After(pause/2 + rand.N(pause)):
		}
	}
}

// exchange asks, and once more by the side while there is no answer: whoever got the first
// may be dead. The answer that comes first counts, so that one which is only slow is heard too.
func (i *inquiry) exchange(ctx context.Context) ([]byte, error) {
	if i.waits || !i.repeatable && i.again == nil {
		return i.request(ctx)
	}
	type result struct {
		answer []byte
		err    error
	}
	first, stop := context.WithCancel(ctx)
	defer stop()
	again := make(chan result, 1)
	defer time.AfterFunc(i.patience(ctx), func() {
		answer, err := i.askAgain(first)
		again <- result{answer, err}
		stop()
	}).Stop()
	answer, err := i.request(first)
	if errors.Is(err, context.Canceled) && ctx.Err() == nil {
		r := <-again
		return r.answer, r.err
	}
	return answer, err
}

// patience is how long an answer is waited for before the question is asked again: half of
// the time that is left, and at least a quarter of all.
func (i *inquiry) patience(ctx context.Context) time.Duration {
	deadline, _ := ctx.Deadline()
	return max(time.Until(deadline)/2, i.timeout/4)
}

// askAgain asks until somebody answers, or ctx ends.
func (i *inquiry) askAgain(ctx context.Context) ([]byte, error) {
	if i.again != nil {
		i.again()
		if err := i.encode(); err != nil {
			return nil, err
		}
	}
	for {
		try, cancel := context.WithTimeout(ctx, i.patience(ctx))
		answer, err := i.request(try)
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case i.away(err):
			select {
			case <-ctx.Done():
			case <-time.After(askAgainAtMost / 2):
			}
		case !errors.Is(err, context.DeadlineExceeded):
			return answer, err
		}
	}
}

// request does one request and reply.
func (i *inquiry) request(ctx context.Context) ([]byte, error) {
	if !i.nc.IsConnected() {
		return nil, unavailable(i.subject, errNotConnected)
	}
	request := &nats.Msg{Subject: i.subject, Data: *i.payload.Load()}
	if deadline, ok := ctx.Deadline(); ok && i.waits {
		request.Header = nats.Header{TimeoutHeader: {strconv.FormatInt(max(time.Until(deadline).Milliseconds(), 1), 10)}}
	}
	request.Header = addTrace(request.Header, TraceParent(ctx))
	lastError := i.nc.LastError()
	msg, err := i.nc.RequestMsgWithContext(ctx, request)
	switch {
	case errors.Is(err, context.Canceled):
		return nil, fmt.Errorf("events: asking %s: %w", i.subject, err)
	case err != nil && violation(i.nc, lastError, i.subject):
		return nil, unavailable(i.subject, ErrNotPermitted)
	case err != nil:
		return nil, unavailable(i.subject, err)
	}
	if i.missed.Load() != 0 { // it is everybody's, and written seldom
		i.missed.Store(0)
	}
	return msg.Data, serviceError(i.subject, msg)
}

// serviceError reads the fault that a NATS micro service puts into the headers.
func serviceError(subject string, msg *nats.Msg) error {
	code := msg.Header.Get("Nats-Service-Error-Code")
	if code == "" {
		return nil
	}
	n, err := strconv.Atoi(code)
	if err != nil {
		n = 500
	}
	return &ServiceError{Code: n, Description: msg.Header.Get("Nats-Service-Error"), Subject: subject, TryAgain: msg.Header.Get(TryAgainHeader) == "true"}
}
