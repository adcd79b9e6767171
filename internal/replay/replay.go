// Package replay turns a recorded LLM trace into usage events, so that Tidegate
// can be tried with the traffic of a real service.
//
// A trace is a CSV file with the columns TIMESTAMP, ContextTokens and
// GeneratedTokens. It names no tenant, user or feature: a replay assigns ports,
// users, features, providers and models itself, and only the times' order and
// spacing and the tokens are real. The assignment is skewed, as tenants are: of
// n ports the second gets half as many rows as the first, the third a third.
package replay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/tidegate/tidegate/events"
)

// Publisher is what a replay needs of [events.Publisher]: Publish returns when
// every usage is acknowledged, and tries on through a server's restart.
type Publisher interface {
	Publish(ctx context.Context, usages []events.Usage) error
}

// Config says what to replay and how. Only File is required.
type Config struct {
	// File is the path of the trace. It is read twice, so it cannot be a pipe.
	File string
	// Seed changes the assignment and all ids. Default 1; at most [MaxSeed].
	Seed int64
	// Start is when the earliest row happens; the others keep their distance to
	// it. Zero moves the latest row to now. It is cut to whole milliseconds. Tidegate
	// books events no older than its retention and not from the future; a start
	// that would put rows there is refused.
	Start time.Time
	// Speed is how many seconds of the trace pass in one second: 1 is real time,
	// 60 a minute in a second. It changes when rows are published, never their
	// times. Default 0: as fast as they are acknowledged.
	Speed float64
	// Ports is how many ports share the rows, named p1, p2 and so on. Default 8.
	Ports int
	// Users is how many users each port has. Default 25.
	Users int
	// Features are what the calls were for, the busiest first. Default [Features].
	Features []Feature
	// BatchSize is how many rows are published together at most. Default 1,000.
	BatchSize int
	// Progress is called on Run's goroutine with how many rows are acknowledged,
	// first with 0. Default: nobody is told.
	Progress func(done, total int)
}

// Run replays the file: it reads it once to check every row, and publishes only
// if all are well, in the order of the file.
//
// The same rows, Seed and Start give the same ids, whatever the other settings
// are, so a replay can be repeated or resumed without booking a row twice.
// [Summary.Start] is the start to repeat one that had none.
//
// Run returns after the last row is acknowledged, or with an error that says how
// many were; the summary counts those. A row handed to the publisher when ctx
// ends may have been stored or not: the ids make it safe to publish it again.
func Run(ctx context.Context, p Publisher, cfg Config) (Summary, error) {
	began := time.Now()
	cfg, err := cfg.withDefaults()
	if err != nil {
		return Summary{}, err
	}
	f, err := open(cfg.File)
	if err != nil {
		return Summary{}, err
	}
	defer f.Close()
	s, err := survey(ctx, cfg.File, f)
	if err != nil {
		return Summary{}, err
	}
	if cfg.Start, err = s.start(cfg, began); err != nil {
		return Summary{}, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return Summary{}, fmt.Errorf("replay: %w", err)
	}
	r := &run{cfg: cfg, publisher: p, trace: s, began: time.Now(), assign: newAssignment(cfg)}
	r.summary = newSummary(cfg, s)
	err = r.publish(ctx, newTrace(cfg.File, f))
	r.summary.finish(r.began)
	return r.summary, err
}

func (c Config) withDefaults() (Config, error) {
	switch {
	case c.File == "":
		return c, errors.New("replay: Config.File is required: the path of a CSV file with the columns " + header)
	case c.Seed < 0 || c.Seed > MaxSeed:
		return c, fmt.Errorf("replay: seed %d: must be 1 to %d, or 0 for the default of 1", c.Seed, MaxSeed)
	case !(c.Speed >= 0 && c.Speed <= maxSpeed):
		return c, fmt.Errorf("replay: speed %g: must be from 0 (as fast as acknowledged) to %g; 1 is real time", c.Speed, float64(maxSpeed))
	case c.Ports < 0 || c.Ports > maxChoices || c.Users < 0 || c.Users > maxChoices:
		return c, fmt.Errorf("replay: %d ports of %d users: each must be 1 to %d, or 0 for the default", c.Ports, c.Users, maxChoices)
	case c.BatchSize < 0:
		return c, fmt.Errorf("replay: batch size %d: must not be negative", c.BatchSize)
	}
	c.Seed = cmp.Or(c.Seed, 1)
	c.Ports = cmp.Or(c.Ports, 8)
	c.Users = cmp.Or(c.Users, 25)
	c.BatchSize = cmp.Or(c.BatchSize, 1000)
	if len(c.Features) == 0 {
		c.Features = Features()
	}
	for _, f := range c.Features { // with the rest of the event it is known to be valid
		if err := (events.Usage{PortID: "p1", Feature: f.Name, Provider: f.Provider, Model: f.Model}).Validate(); err != nil {
			return c, fmt.Errorf("replay: feature %q of %s %s: %w", f.Name, f.Provider, f.Model, err)
		}
	}
	if c.Progress == nil {
		c.Progress = func(int, int) {}
	}
	return c, nil
}

const (
	maxSpeed   = 1e9
	maxChoices = 1_000_000
)

func open(path string) (*os.File, error) {
	info, err := os.Stat(path) // first: opening a pipe may wait for ever
	if err != nil {
		return nil, fmt.Errorf("replay: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("replay: %s is a %s: a trace is read twice, so it must be a file; save it to one first", path, kind(info.Mode()))
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("replay: %w", err)
	}
	return f, nil
}

func kind(mode os.FileMode) string {
	switch {
	case mode.IsDir():
		return "directory"
	case mode&os.ModeNamedPipe != 0:
		return "pipe"
	default:
		return "device"
	}
}
