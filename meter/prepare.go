package meter

import (
	"bytes"
	"io"
	"net/http"
	"strings"
)

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
