package meter

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
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

	address             string // the host and path that it goes to
	ours                bool   // to a host that serves AI, or that Detect names
	port, user, feature string
	reservation         string
	held                int64       // tokens that the reservation holds
	sent                atomic.Bool // the base transport has read the whole request
	requestID           string
	shape               shape // of the body, or of its beginning
	asked               *edit // what was changed so that the stream tells its usage

	mu       sync.Mutex // a request's body may still be read while the reply is
	scan     *request
	rest     int64 // bytes of the body that have not passed, as far as is known
	estimate estimate
}

// peekBytes is how much of a body that can be read only once is looked at before
// it leaves: what its first Read returns, at most.
const peekBytes = 64 << 10

// prepare estimates the cost from the request's body and returns the request to
// send instead, with a body of its own. The request's own body is closed, or the
// new one reads from it.
func (c *call) prepare(req *http.Request) (*http.Request, error) {
	out := new(http.Request)
	*out = *req
	if c.API == Batch {
		return out, nil
	}
	c.scan = newRequest(c.API)
	c.scan.binary = isBinary(req.Header.Get("Content-Type"))
	if req.GetBody == nil {
		return out, c.prepareOnce(req, out)
	}
	// Some SDKs' GetBody rewinds one shared reader: read, then rewind again.
	if err := c.scanCopy(c.scan, req); err != nil {
		return nil, err
	}
	c.shape = c.scan.shape
	c.t.guard("the estimate", c.estimateBody)
	if e, ok := c.scan.askForUsage(); ok && c.speaksStreamOptions(req) {
		if takes, known := c.t.options.get(c.address); takes || !known {
			c.asked = &e
		}
	}
	c.scan = nil
	return out, c.again(req, out)
}

// again gives out a fresh copy of the request's body, edited if that is asked for.
func (c *call) again(req, out *http.Request) error {
	if c.asked != nil && req.ContentLength > 0 {
		out.ContentLength = req.ContentLength + c.asked.grows()
	}
	e := c.asked
	out.GetBody = func() (io.ReadCloser, error) {
		body, err := req.GetBody()
		if err != nil {
			return nil, err
		}
		if e != nil {
			body = e.apply(body)
		}
		return &sentBody{ReadCloser: body, call: c}, nil
	}
	body, err := out.GetBody()
	req.Body.Close()
	out.Body = body
	return err
}

// prepareOnce looks at the beginning of a body that can be had only once, and at
// the rest as it is sent.
func (c *call) prepareOnce(req, out *http.Request) error {
	head := make([]byte, peekBytes)
	n, err := 0, error(nil)
	for range 100 { // as io.Reader allows
		if n, err = req.Body.Read(head); n > 0 || err != nil {
			break
		}
	}
	if err != nil && err != io.EOF {
		req.Body.Close()
		return err
	}
	c.t.guard("the request", func() { c.scan.Write(head[:n]) })
	if c.rest = req.ContentLength - int64(n); c.rest < 0 || err == io.EOF {
		c.rest = 0
	}
	c.shape = c.scan.shape
	c.t.guard("the estimate", c.estimateBody)
	body := replay{io.MultiReader(bytes.NewReader(head[:n:n]), &scanned{req.Body, c}), req.Body}
	out.Body = &sentBody{ReadCloser: body, call: c}
	return nil
}

// isBinary tells bodies that are counted as media.
func isBinary(contentType string) bool {
	kind, _, _ := strings.Cut(strings.ToLower(contentType), "/")
	return kind == "multipart" || kind == "audio" || kind == "image" || kind == "video" || strings.HasPrefix(strings.ToLower(contentType), "application/octet-stream")
}

func (c *call) scanCopy(scan *request, req *http.Request) error {
	body, err := req.GetBody()
	if err != nil {
		req.Body.Close()
		return err
	}
	c.t.guard("the request", func() { _, err = io.Copy(scan, body) })
	body.Close()
	if err != nil {
		req.Body.Close()
	}
	return err
}

// estimateBody estimates the call by what of its body has passed and what is to
// come.
func (c *call) estimateBody() {
	c.estimate = c.scan.estimate(c.Model, c.t.cfg.UnboundedOutput, c.rest)
}

// estimated is the call's estimate. Where the body may have been read only in part,
// only that part counts.
func (c *call) estimated() estimate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.scan != nil {
		c.rest = 0
		c.t.guard("the estimate", c.estimateBody)
	}
	return c.estimate
}

// scanned reads the rest of a body that can be had only once.
type scanned struct {
	io.Reader
	call *call
}

func (s *scanned) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	c := s.call
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t.guard("the request", func() { c.scan.Write(p[:n]) })
	return n, err
}

// replay reads from one and closes the other.
type replay struct {
	io.Reader
	io.Closer
}

// sentBody notes that it was read to its end.
type sentBody struct {
	io.ReadCloser
	call *call
}

func (b *sentBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.call.sent.Store(true)
	}
	return n, err
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
		refused = c.check(cfg.Gate, c.estimate.total())
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

func (c *call) check(gate Gate, tokens int64) (refused *RefusedError) {
	c.t.guard("the gate", func() {
		v, err := gate.Check(c.ctx, events.CheckRequest{PortID: c.port, Feature: c.feature, UserID: c.user, EstimatedTokens: tokens})
		refused = c.verdict(v, err, tokens)
	})
	return refused
}

func (c *call) reserve(gate Reserver) (refused *RefusedError) {
	c.t.guard("the gate", func() {
		tokens := c.estimate.total()
		r, err := gate.Reserve(c.ctx, events.ReserveRequest{
			PortID: c.port, Feature: c.feature, UserID: c.user, EstimatedTokens: tokens,
			TTLSeconds: int64(c.t.cfg.HoldTTL / time.Second),
		})
		refused = c.verdict(r.Verdict, err, tokens)
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
		PortID: c.port, UserID: c.user, Feature: c.feature,
		Provider: cmp.Or(c.Provider, read.maker, c.API.maker()), Model: cmp.Or(read.model, estimate.model, unknownModel),
		RequestID: c.requestID, ResponseID: read.responseID, ReservationID: c.reservation,
		InputTokens: read.tokens.input, OutputTokens: read.tokens.output, Details: read.tokens.details,
		MeasuredBy: read.measuredBy(), Status: read.status(),
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
	for range 4 {
		var broken *events.FieldError
		if !errors.As(u.Validate(), &broken) {
			break
		}
		switch broken.Field {
		case "model":
			u.Model = unknownModel
		case "request_id":
			u.RequestID = ""
		case "response_id":
			u.ResponseID = ""
		case "reservation_id":
			u.ReservationID = ""
		}
	}
	return u
}
