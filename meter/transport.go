package meter

import (
	"cmp"
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
// byte and error for error.
type Transport struct {
	cfg      Config
	counters counters
	log      complaints
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
	if refused, err := c.ask(); refused != nil || err != nil {
		out.Body.Close()
		if err != nil {
			return nil, err
		}
		return refusal(req, refused), nil
	}
	resp, err := t.cfg.Base.RoundTrip(out)
	if resp != nil {
		resp.Request = req
	}
	switch {
	case err != nil:
		c.failed(err)
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		c.release()
	default:
		c.answered(resp)
	}
	return resp, err
}

// begin returns the call that req is, nil when it is none.
func (t *Transport) begin(req *http.Request) (c *call) {
	t.guard("Detect", func() {
		detected, ok := t.cfg.Detect(req)
		if !ok || !detected.API.known() || req.Body == nil || req.Body == http.NoBody {
			return
		}
		detected.Provider = cmp.Or(detected.Provider, detected.API.maker())
		ctx := req.Context()
		c = &call{
			t: t, ctx: ctx, Call: detected,
			port:    fromContext(ctx, portKey, t.cfg.Port),
			user:    fromContext(ctx, userKey, t.cfg.User),
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
