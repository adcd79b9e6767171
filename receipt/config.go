// Package receipt is a service that uses AI the way Tidegate wants it used: it
// asks the budget gate, reads a receipt from a photo, and reports what the
// provider says the reading cost. Whatever goes wrong, the person can type the
// receipt: the answer then says "manual" and why.
//
// It knows the wire contract (events), the meter and identity, and nothing of the
// server behind them: any service could be built like this.
package receipt

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/identity/safehttp"
	"github.com/tidegate/tidegate/meter"
	"github.com/tidegate/tidegate/receipt/page"
)

// Permission is what a caller must hold for the port that a receipt is scanned for.
const Permission = "expenses.scan"

// Feature is the feature of the usage events.
const Feature = "ocr"

// Gate answers whether a port may spend; [events.Client] is one, given a publisher.
type Gate interface {
	meter.Gate
	meter.Reserver
}

// Config configures [New]. Gate, Recorder and Auth are required.
type Config struct {
	// Gate is asked before each reading. Its policy decides when nobody answers:
	// [events.FailOpen] reads on, [events.FailClosed] asks people to type.
	Gate Gate
	// Recorder gets a usage event for each reading; [events.Publisher] is one.
	Recorder meter.Recorder
	// Auth finds out who calls.
	Auth *identity.Authenticator
	// Login serves /login and /logout. nil: nobody signs in with a browser here,
	// though a session that began elsewhere with the same key counts.
	Login *identity.Login

	// Provider reads the receipts. nil: every answer is "manual".
	Provider Provider
	// Transport makes the provider's calls, default http.DefaultTransport.
	Transport http.RoundTripper

	MaxBytes  int64         // of an upload, default 10 MiB
	MaxPixels int           // of a picture, default 40 million
	MaxScans  int           // at once; others are answered 503. Default 16, each takes up to 50 MB
	Timeout   time.Duration // of a reading, default 45 s

	// Logger gets what an operator should know. Default slog.Default().
	Logger *slog.Logger
}

func (c *Config) complete() error {
	switch {
	case c.Gate == nil || c.Recorder == nil || c.Auth == nil:
		return errors.New("receipt: Gate, Recorder and Auth are required")
	case c.MaxBytes < 0 || c.MaxPixels < 0 || c.MaxScans < 0 || c.Timeout < 0:
		return fmt.Errorf("receipt: no limit may be negative: MaxBytes %d, MaxPixels %d, MaxScans %d, Timeout %s", c.MaxBytes, c.MaxPixels, c.MaxScans, c.Timeout)
	}
	if c.Transport == nil {
		c.Transport = http.DefaultTransport
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 10 << 20
	}
	if c.MaxPixels == 0 {
		c.MaxPixels = 40_000_000
	}
	if c.MaxScans == 0 {
		c.MaxScans = 16
	}
	if c.Timeout == 0 {
		c.Timeout = 45 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return nil
}

// service is the handler's state.
type service struct {
	Config
	slots    chan struct{} // one for each scan that runs
	decoding chan struct{} // one decodes at a time: that takes the most memory
	// decodingSmall is for those that take little: they do not wait for large ones.
	decodingSmall chan struct{}
}

// multipartOverhead is room for the parts' headers and for fields beside the picture.
const multipartOverhead = 64 << 10

// New returns the handler of everything below /: the API, the page and the login.
// Serve it with [safehttp.Serve], so that scans in flight end in time when the process stops.
func New(cfg Config) (http.Handler, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	s := &service{Config: cfg, slots: make(chan struct{}, cfg.MaxScans), decoding: make(chan struct{}, 1), decodingSmall: make(chan struct{}, 1)}
	mux := http.NewServeMux()
	port := identity.PathPort("port")
	mux.Handle("POST /api/v1/ports/{port}/scan-receipt", cfg.Auth.Require(Permission, port, http.HandlerFunc(s.scan)))
	mux.Handle("/api/v1/ports/{port}/scan-receipt", cfg.Auth.Require(Permission, port, http.HandlerFunc(wrongMethod)))
	mux.Handle("GET /api/v1/session", cfg.Auth.RequireSomePort(Permission, http.HandlerFunc(s.session)))
	mux.Handle("/api/", cfg.Auth.RequireSomePort(Permission, http.HandlerFunc(unknownRoute)))
	mux.Handle("/", page.Handler())
	if cfg.Login != nil {
		login := cfg.Login.Handler()
		mux.Handle("/login", login)
		mux.Handle("/login/", login)
		mux.Handle("/logout", login)
	}
	return safehttp.SecureHeaders(safehttp.SameOrigin(safehttp.LimitBody(cfg.MaxBytes+multipartOverhead, mux))), nil
}
