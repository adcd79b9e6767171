package main

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/lmittmann/tint"
)

func (c *runCmd) logger() *slog.Logger {
	switch {
	case c.LogFormat == "json":
		return slog.New(newCalm(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: c.LogLevel})))
	case isTerminal(os.Stderr):
		return slog.New(newCalm(tint.NewTextHandler(os.Stderr, &tint.Options{Level: c.LogLevel, TimeFormat: time.TimeOnly})))
	default:
		return slog.New(newCalm(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: c.LogLevel})))
	}
}

const (
	calmLines = 5 // warnings of one text that are logged in calmTime
	calmTime  = 10 * time.Second
)

// calm leaves out warnings that come again and again, whatever they are about: an outage, or
// a service that goes wrong, must not fill a disk. The next one says how many.
type calm struct {
	slog.Handler
	warnings *warnings // of all handlers that are made from one
}

// warnings are those that were logged, by their text. Texts are constants of the program.
type warnings struct {
	mu     sync.Mutex
	byText map[string]warning
}

type warning struct {
	since          time.Time
	lines, leftOut int // since then
}

func newCalm(h slog.Handler) slog.Handler {
	return calm{h, &warnings{byText: map[string]warning{}}}
}

func (h calm) Handle(ctx context.Context, r slog.Record) error {
	if r.Level == slog.LevelWarn {
		leftOut, ok := h.warnings.next(r.Message, r.Time)
		if !ok {
			return nil
		}
		if leftOut > 0 {
			r = r.Clone()
			r.AddAttrs(slog.Int("left_out", leftOut))
		}
	}
	return h.Handler.Handle(ctx, r)
}

// next reports whether a warning is logged, and how many like it were left out before.
func (w *warnings) next(text string, now time.Time) (leftOut int, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	of := w.byText[text]
	if now.Sub(of.since) >= calmTime {
		leftOut, of = of.leftOut, warning{since: now}
	}
	if ok = of.lines < calmLines; ok {
		of.lines++
	} else {
		of.leftOut++
	}
	w.byText[text] = of
	return leftOut, ok
}

func (h calm) WithAttrs(attrs []slog.Attr) slog.Handler {
	return calm{h.Handler.WithAttrs(attrs), h.warnings}
}

func (h calm) WithGroup(name string) slog.Handler {
	return calm{h.Handler.WithGroup(name), h.warnings}
}
