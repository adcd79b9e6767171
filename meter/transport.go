package meter

import (
	"bytes"
	"cmp"
	"io"
	"net/http"
)

// Transport meters the AI calls that go through it and passes every other request
// on untouched. Put it under any SDK that takes an http.Client. It is safe for
// concurrent use; a nil *Transport is http.DefaultTransport.
//
// Each attempt of an SDK is a call of its own. Only a 2xx response counts as
// spent: it is recorded exactly once, when its body has been read, failed, was
// closed, or was garbage-collected unread. An error status, or an error before any
// response, spends nothing, except that a request which was sent whole and then
// cancelled or timed out is recorded as partial, with its estimated input: the
// provider has read it. What the caller reads is what the provider sent, byte for
// byte and error for error, but for the usage of streams that Transport itself asked
// for: see [Config.LeaveStreams].
type Transport struct {
	cfg      Config
	counters counters
	log      complaints
	options  addresses // whether they take stream_options
	told     addresses // of calls that passed unmetered
	fetched  addresses // of files of results that were recorded
}

// NewTransport returns a transport with cfg, the zero value of which meters
// nothing and forwards everything.
func NewTransport(cfg Config) *Transport {
	t := &Transport{cfg: cfg.withDefaults()}
	t.log.unreadable.Interval, t.log.unattributed.Interval = logEvery, logEvery
	t.log.gateErrors.Interval, t.log.failures.Interval = logEvery, logEvery
	return t
}

// RoundTrip makes the request. A call that the gate refuses is not made: its
// response has status 402, and reading it yields a *[RefusedError].
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if t == nil {
		return http.DefaultTransport.RoundTrip(req)
	}
	c := t.begin(req)
	if c == nil {
		return t.cfg.Base.RoundTrip(req)
	}
	out, err := c.prepare(req)
	if err != nil {
		return nil, err
	}
	if c.stray() {
		return answerTo(req)(t.cfg.Base.RoundTrip(out))
	}
	if c.API == Unknown && t.cfg.Unmetered == Refuse {
		out.Body.Close()
		t.counters.refused.Add(1)
		return refusal(req, &UnmeteredError{req.URL.Host, req.URL.Path}, "unmetered"), nil
	}
	if refused, err := c.ask(); refused != nil || err != nil {
		out.Body.Close()
		if err != nil {
			return nil, err
		}
		return refusal(req, refused, string(refused.Verdict.Reason)), nil
	}
	resp, err := answerTo(req)(c.send(req, out))
	switch {
	case err != nil:
		c.failed(err)
	case !succeeded(resp), c.API == Batch && resp.StatusCode != http.StatusOK:
		c.release()
	default:
		c.answered(resp)
	}
	return resp, err
}

// answerTo makes a response say that it is one to the caller's own request.
func answerTo(req *http.Request) func(*http.Response, error) (*http.Response, error) {
	return func(resp *http.Response, err error) (*http.Response, error) {
		if resp != nil {
			resp.Request = req
		}
		return resp, err
	}
}

// send makes the request. Where it asks for the usage of its stream and is turned
// down, that may be why: without the option it is the caller's own.
func (c *call) send(req, out *http.Request) (*http.Response, error) {
	resp, err := c.t.cfg.Base.RoundTrip(out)
	if c.asked == nil || err != nil {
		return resp, err
	}
	if succeeded(resp) {
		c.t.options.set(c.address, true)
	}
	if resp.StatusCode != http.StatusBadRequest && resp.StatusCode != http.StatusUnprocessableEntity {
		return resp, nil
	}
	why, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBytes))
	takes, _ := c.t.options.get(c.address)
	if takes && !bytes.Contains(why, []byte("stream_options")) && !bytes.Contains(why, []byte("include_usage")) {
		resp.Body = replay{io.MultiReader(bytes.NewReader(why), resp.Body), resp.Body}
		return resp, nil
	}
	resp.Body.Close()
	c.asked = nil
	c.sent.Store(false)
	plain := new(http.Request)
	*plain = *req
	if err := c.again(req, plain); err != nil {
		return nil, err
	}
	resp, err = c.t.cfg.Base.RoundTrip(plain)
	if err == nil && succeeded(resp) {
		c.t.options.set(c.address, false)
	}
	return resp, err
}

func succeeded(resp *http.Response) bool { return resp.StatusCode >= 200 && resp.StatusCode <= 299 }

// maxErrorBytes is how much of an error is read to find out what it is about.
const maxErrorBytes = 16 << 10

// begin returns the call that req is, or may be; nil when it is none.
func (t *Transport) begin(req *http.Request) (c *call) {
	t.guard("Detect", func() {
		detected, ok := t.cfg.Detect(req)
		ours := ok && t.cfg.named
		if !ok {
			detected, ok = unknownCall(req)
		}
		if !ok || !detected.API.known() || (req.Body == nil || req.Body == http.NoBody) != (detected.API == Batch) {
			return
		}
		if detected.API != Unknown {
			detected.Provider = cmp.Or(detected.Provider, detected.API.maker())
		}
		ctx := req.Context()
		c = &call{
			t: t, ctx: ctx, Call: detected, address: req.URL.Host + req.URL.Path,
			ours:    ours || hostOf(req.URL.Hostname()) != nil,
			port:    fromContext(ctx, portKey, t.cfg.Port),
			user:    fromContext(ctx, userKey, t.cfg.User),
			run:     fromContext(ctx, runKey, ""),
			feature: cmp.Or(fromContext(ctx, featureKey, t.cfg.Feature), unnamedFeature),
		}
	})
	return c
}

// CloseIdleConnections forwards to the base transport.
func (t *Transport) CloseIdleConnections() {
	base := http.DefaultTransport
	if t != nil {
		base = t.cfg.Base
	}
	if c, ok := base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

var _ http.RoundTripper = (*Transport)(nil)
