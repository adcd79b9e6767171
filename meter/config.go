package meter

import (
	"log/slog"
	"net/http"
	"time"

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
	// call is made. A Gate that can reserve too, as events.Client can, is the Reserver,
	// unless CheckOnly says otherwise.
	Gate Gate

	// Reserver is asked before each call instead of Gate, and holds what the call may
	// cost, so that callers who ask at once cannot overrun the cap together. The hold is
	// settled by the usage event, or released. Default: Gate, if it can.
	Reserver Reserver

	// CheckOnly asks Gate and holds nothing: callers who ask at once may overrun the cap
	// together.
	CheckOnly bool

	// HoldTTL is how long a hold lives, at most an hour: longer than the longest call.
	// 0 leaves that to the gate, whose default is 5 minutes.
	HoldTTL time.Duration

	// RecheckTokens asks Gate again during a stream, whenever so many more tokens are
	// estimated to have come, and ends the stream with a [RefusedError] when what it
	// spent, beyond its hold, fits the cap no longer. 0: never.
	RecheckTokens int64

	// UnboundedOutput is the output, in tokens, that the estimate of a request
	// without a limit such as max_tokens contains, default 1,024.
	UnboundedOutput int64

	// Detect says which requests are AI calls, default [Detect]. Give your own where
	// paths differ from the providers', or a provider speaks another's API: one that
	// returns Call{API: ChatCompletions, Provider: "mistral"}, true, say.
	Detect func(*http.Request) (Call, bool)

	// Logger gets complaints, each kind at most every 10 s. Default slog.Default().
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Base == nil {
		c.Base = http.DefaultTransport
	}
	if c.Reserver == nil && !c.CheckOnly {
		c.Reserver, _ = c.Gate.(Reserver)
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
