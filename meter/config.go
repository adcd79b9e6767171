package meter

import (
	"log/slog"
	"net/http"

	"github.com/tidegate/tidegate/events"
)

// Recorder takes usage events; events.Publisher is one. Record must not block and
// must be safe for concurrent use.
type Recorder interface {
	Record(u events.Usage)
}

// Config says for whom and to whom a [Transport] meters. Every field may be left
// at its zero value.
type Config struct {
	// Base makes the requests, default http.DefaultTransport.
	Base http.RoundTripper

	// Port, User and Feature are whom calls count for, unless their context says
	// otherwise: see [WithPort], [WithUser], [WithFeature]. Without a port a call is
	// made, but neither asked for nor recorded, since nobody could say whose it is:
	// it is counted as Unattributed. A missing feature is recorded as "unnamed".
	Port    string
	User    string
	Feature string

	// Recorder gets one usage event for each call that spent tokens. nil: none.
	Recorder Recorder

	// Gate is asked before each call and refuses it with a [RefusedError]. nil: every
	// call is made. See also [Reserver] and [Releaser].
	Gate Gate

	// RecheckTokens asks the gate again during a stream, whenever so many more tokens
	// than before are estimated to have come, and ends the stream with a
	// [RefusedError] when the cap is reached. 0: never.
	RecheckTokens int64

	// UnboundedOutput is the output, in tokens, that the estimate of a request
	// without a limit such as max_tokens contains, default 1,024.
	UnboundedOutput int64

	// Detect says which requests are AI calls, default [Detect]. A service whose
	// paths are its own, or whose provider is another one, says so here.
	Detect func(*http.Request) (Call, bool)

	// Logger gets complaints, each kind at most every 10 s. Default slog.Default().
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Base == nil {
		c.Base = http.DefaultTransport
	}
	if c.UnboundedOutput <= 0 {
		c.UnboundedOutput = 1024
	}
	if c.Detect == nil {
		c.Detect = Detect
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}
