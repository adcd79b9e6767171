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

	// Unmetered says what becomes of calls to AI services that no row of the table in
	// docs/meter.md reads. Default [Pass]: they are made, counted and logged.
	Unmetered Unmetered

	// LeaveStreams sends requests for streams as they are. Otherwise those of OpenAI's
	// chat completions and completions, and of whoever speaks the same, are made to ask
	// for their usage with stream_options.include_usage, without which a stream can only
	// be estimated, and the chunk that this adds is taken out again. Who asks already
	// gets what was sent. Where a host refuses the option, the request is sent again
	// without it, and that host and path are remembered.
	LeaveStreams bool

	// Detect says which requests are AI calls, default [Detect]. Give your own where
	// paths differ from the providers', or a provider speaks another's API: one that
	// returns Call{API: ChatCompletions, Provider: "mistral"}, true, say. An empty Call
	// and true lets a request pass untouched and uncounted; false leaves the answer to
	// its host and its body.
	Detect func(*http.Request) (Call, bool)

	// Logger gets complaints, each kind at most every 10 s. Default slog.Default().
	Logger *slog.Logger

	named bool // Detect was given: it knows what it names
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
	c.named = c.Detect != nil
	if c.Detect == nil {
		c.Detect = Detect
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}
