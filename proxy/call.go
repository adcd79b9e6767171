package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tidegate/tidegate/meter"
)

// target is where a request goes.
type target struct {
	*upstream
	url *url.URL
}

type targetKey struct{}

func targetOf(ctx context.Context) target {
	t, _ := ctx.Value(targetKey{}).(target)
	return t
}

// ServeHTTP makes a call, or answers in its provider's words why it is not made.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.calls.Add(1)
	defer p.calls.Done()
	p.inFlight.Inc()
	defer p.inFlight.Dec()
	to, address, err := p.route(r.URL)
	r = r.WithContext(context.WithValue(r.Context(), targetKey{}, target{to, address}))
	if err == nil {
		err = p.serve(w, r)
	}
	if err != nil {
		p.refuse(w, r, err)
	}
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) error {
	who, err := p.payer(r)
	if err != nil {
		return err
	}
	if err := impossible(r); err != nil {
		return err
	}
	size := r.ContentLength
	if size < 0 {
		size = maxBody // as large as it may get
	}
	leave, err := p.room.Enter(who.caller, min(size, maxBody))
	if err != nil {
		return err
	}
	defer leave()
	if err := readBody(w, r, maxBody); err != nil {
		return err
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(p.cfg.MaxCall + bodyTimeout))
	ctx, cancel := context.WithTimeout(r.Context(), p.cfg.MaxCall)
	defer cancel()
	ctx = meter.WithUser(meter.WithPort(ctx, who.port), who.user)
	if who.feature != "" {
		ctx = meter.WithFeature(ctx, who.feature)
	}
	if who.run != "" {
		ctx = meter.WithRun(ctx, who.run)
	}
	p.reverse.ServeHTTP(w, r.WithContext(ctx))
	return nil
}

// impossible is why a request cannot be passed on.
func impossible(r *http.Request) error {
	switch {
	case strings.Contains(strings.ToLower(r.Header.Get("Upgrade")), "websocket"):
		return &fault{kind: forbidden, message: "a WebSocket cannot be metered: realtime sessions do not go through Tidegate's proxy"}
	case strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-"):
		return &fault{kind: badRequest, message: "an AWS signature names the host that it is for, so it is worth nothing once it has passed a proxy: use a Bedrock API key (AWS_BEARER_TOKEN_BEDROCK)"}
	}
	return nil
}

// readBody reads the body whole, so that it can be looked at before it leaves, and made to ask for
// the usage of its stream.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) error {
	if r.ContentLength == 0 {
		return nil
	}
	if r.ContentLength > limit {
		return &http.MaxBytesError{Limit: limit}
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
	buffer := bytes.NewBuffer(make([]byte, 0, max(r.ContentLength, 0)+bytes.MinRead))
	if _, err := buffer.ReadFrom(http.MaxBytesReader(w, r.Body, limit)); errors.Is(err, io.ErrUnexpectedEOF) {
		return &fault{kind: badRequest, message: "the request's body ended too early"}
	} else if err != nil {
		return err
	}
	body := buffer.Bytes()
	r.ContentLength, r.TransferEncoding = int64(len(body)), nil
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.Body, _ = r.GetBody()
	return nil
}

// detect knows that whatever goes to an upstream goes to an AI service.
func detect(r *http.Request) (meter.Call, bool) {
	call, ok := meter.Detect(r)
	if !ok && r.Method == http.MethodPost && !meter.Free(r.URL) {
		call, ok = meter.Call{API: meter.Unknown}, true
	}
	if provider := targetOf(r.Context()).provider; provider != "" {
		call.Provider = provider
	}
	return call, ok
}

// look sees what came back: the provider's answer, or why the call was not made.
func (p *Proxy) look(resp *http.Response) error {
	if err := refusedIn(resp); err != nil {
		return err
	}
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return &fault{kind: badGateway, message: "the provider answered with a redirect, which is not followed: configure the address that it leads to"}
	}
	p.requests.WithLabelValues(targetOf(resp.Request.Context()).name, "forwarded").Inc()
	return nil
}

// refusedIn is why the transport did not make the call, nil if it did.
func refusedIn(resp *http.Response) error {
	if resp.StatusCode != http.StatusPaymentRequired {
		return nil
	}
	_, err := resp.Body.Read(nil) // nothing is taken from a provider's body
	var refused *meter.RefusedError
	var unmetered *meter.UnmeteredError
	if errors.As(err, &refused) || errors.As(err, &unmetered) {
		return err
	}
	return nil
}
