package meter

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidegate/tidegate/events"
)

// unnamedFeature is the feature of calls that nobody named.
const unnamedFeature = "unnamed"

// unknownModel is the model of a call whose URL, request and reply name none.
const unknownModel = "unknown"

// call is one attempt at an AI call.
type call struct {
	Call
	t   *Transport
	ctx context.Context

	address                  string // the host and path that it goes to
	ours                     bool   // to a host that serves AI, or that Detect names
	port, user, run, feature string
	reservation              string
	held                     int64       // tokens that the reservation holds
	sent                     atomic.Bool // the base transport has read the whole request
	requestID                string
	shape                    shape // of the body, or of its beginning
	asked                    *edit // what was changed so that the stream tells its usage

	mu       sync.Mutex // a request's body may still be read while the reply is
	scan     *request
	rest     int64 // bytes of the body that have not passed, as far as is known
	estimate estimate
}

// ask asks the gate, or reserves. refused is a refusal, err the end of the
// caller's context.
func (c *call) ask() (refused *RefusedError, err error) {
	if !events.ValidPort(c.port) || !c.plausible() {
		return nil, nil
	}
	switch cfg := &c.t.cfg; {
	case cfg.Reserver != nil:
		refused = c.reserve(cfg.Reserver)
	case cfg.Gate != nil:
		q := c.question(c.estimate)
		refused = c.check(cfg.Gate, q.Check())
	default:
		return nil, nil
	}
	if err := c.ctx.Err(); err != nil {
		c.release()
		return nil, err
	}
	if refused != nil {
		c.t.counters.refused.Add(1)
	}
	return refused, nil
}

// question asks for tokens of this call, about which it says what limits look at.
func (c *call) question(e estimate) events.ReserveRequest {
	e.output = min(e.output, events.MaxTokens-e.input)
	return conformingQuestion(events.ReserveRequest{
		PortID: c.port, Feature: c.feature, Provider: c.Provider, Model: e.model, UserID: c.user, RunID: c.run,
		EstimatedTokens: e.total(), EstimatedInputTokens: e.input, EstimatedOutputTokens: e.output,
		TTLSeconds: int64(c.t.cfg.HoldTTL / time.Second),
	})
}

func (c *call) check(gate Gate, q events.CheckRequest) (refused *RefusedError) {
	c.t.guard("the gate", func() {
		v, err := gate.Check(c.ctx, q)
		refused = c.verdict(v, err, q.EstimatedTokens)
	})
	return refused
}

func (c *call) reserve(gate Reserver) (refused *RefusedError) {
	c.t.guard("the gate", func() {
		q := c.question(c.estimate)
		r, err := gate.Reserve(c.ctx, q)
		refused = c.verdict(r.Verdict, err, q.EstimatedTokens)
		c.reservation, c.held = r.ReservationID, r.GrantedTokens
	})
	return refused
}

// verdict acts on v; an error beside it is only told.
func (c *call) verdict(v events.Verdict, err error, tokens int64) *RefusedError {
	if err != nil && c.ctx.Err() == nil {
		c.t.counters.gateErrors.Add(1)
		c.t.log.gateErrors.Do(func() {
			c.t.cfg.Logger.Warn("meter: the gate did not answer", "port", c.port, "call made", v.Allowed, "error", err)
		})
	}
	if v.Allowed {
		return nil
	}
	return &RefusedError{Port: c.port, EstimatedTokens: tokens, Verdict: v, Err: err}
}

// release gives the hold back: the call spent nothing.
func (c *call) release() {
	if c.reservation == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), releaseTimeout)
	defer cancel()
	c.t.guard("the gate", func() {
		if err := c.t.cfg.Reserver.Release(ctx, c.port, c.reservation); err != nil {
			c.t.counters.gateErrors.Add(1)
			c.t.log.gateErrors.Do(func() {
				c.t.cfg.Logger.Warn("meter: a hold was not released, it will expire", "port", c.port, "reservation", c.reservation, "error", err)
			})
		}
	})
	c.reservation = ""
}

// failed handles an error instead of a response.
func (c *call) failed(err error) {
	if !c.sent.Load() || c.ctx.Err() == nil && !isTimeout(err) {
		c.release()
		return
	}
	c.record(reading{})
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// answered puts the meter on the body of a successful response.
func (c *call) answered(resp *http.Response) {
	c.requestID = requestID(c.API, resp.Header)
	resp.Body = newBody(c, resp)
}

// record books what the reply said, completed by estimates where it said nothing.
func (c *call) record(read reading) {
	if read.free || c.unread(read) {
		c.release()
		return
	}
	estimate := c.estimated()
	u := events.Usage{
		PortID: c.port, UserID: c.user, RunID: c.run, Feature: c.feature,
		Provider: cmp.Or(c.Provider, read.maker, c.API.maker()), Model: cmp.Or(read.model, estimate.model, unknownModel),
		RequestID: c.requestID, ResponseID: read.responseID, ReservationID: c.reservation,
		InputTokens: read.tokens.input, OutputTokens: read.tokens.output, Details: read.tokens.details,
		MeasuredBy: read.measuredBy(), Status: read.status(), TraceParent: events.TraceParent(c.ctx),
	}
	if !read.reported {
		u.InputTokens, u.OutputTokens = estimate.input, textTokens(read.text)
		if read.complete && !read.seen {
			u.OutputTokens = estimate.output // not a word of it could be read
		}
	} else if !read.complete {
		u.OutputTokens = max(u.OutputTokens, textTokens(read.text))
	}
	c.t.guard("the recorder", func() { c.deliver(conforming(u), read) })
}

func (c *call) deliver(u events.Usage, read reading) {
	t := c.t
	if read.unreadable {
		t.counters.unreadable.Add(1)
		t.log.unreadable.Do(func() {
			t.cfg.Logger.Warn("meter: the provider's usage made no sense, the call is estimated", "provider", u.Provider, "model", u.Model, "request_id", u.RequestID)
		})
	}
	if !events.ValidPort(u.PortID) {
		t.counters.unattributed.Add(1)
		t.log.unattributed.Do(func() {
			t.cfg.Logger.Error("meter: a call without a legal port is not recorded; set Config.Port or use WithPort", "port", u.PortID, "model", u.Model, "tokens", u.TotalTokens())
		})
		return
	}
	if t.cfg.Recorder == nil {
		return
	}
	t.cfg.Recorder.Record(u)
	t.counters.recorded.Add(1)
	if !read.reported {
		t.counters.estimated.Add(1)
	}
	if !read.complete {
		t.counters.partial.Add(1)
	}
}

// conforming drops a name of the provider's that an event may not carry: the
// tokens matter more.
func conforming(u events.Usage) events.Usage {
	mend(func() error { return u.Validate() }, map[string]*string{
		"model": &u.Model, "request_id": &u.RequestID, "response_id": &u.ResponseID, "reservation_id": &u.ReservationID,
	})
	return u
}

// conformingQuestion does the same for a question: the gate has to answer it. The event
// will have the same model.
func conformingQuestion(q events.ReserveRequest) events.ReserveRequest {
	mend(func() error { return q.Validate() }, map[string]*string{"provider": &q.Provider, "model": &q.Model})
	return q
}

// mend drops each of some fields that breaks its rule; a model is called unknown.
func mend(validate func() error, fields map[string]*string) {
	for range fields {
		var broken *events.FieldError
		if !errors.As(validate(), &broken) || fields[broken.Field] == nil {
			return
		}
		*fields[broken.Field] = ""
		if broken.Field == "model" {
			*fields["model"] = unknownModel
		}
	}
}
