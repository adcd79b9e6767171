package dev

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
)

// readyLine is how Postgres says, in every version, that it answers. A standby's line goes on
// in another way.
const readyLine = "database system is ready to accept "

// pgLog hands what Postgres prints to slog, line by line.
type pgLog struct {
	log   *slog.Logger
	ready chan struct{} // closed at readyLine

	mu      sync.Mutex
	partial []byte
	tail    []string // the last lines, for error messages
}

func newPGLog(l *slog.Logger) *pgLog {
	return &pgLog{log: l, ready: make(chan struct{})}
}

func (l *pgLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.partial = append(l.partial, b...)
	for {
		line, rest, found := bytes.Cut(l.partial, []byte("\n"))
		if !found {
			return len(b), nil
		}
		l.line(string(line))
		l.partial = rest
	}
}

func (l *pgLog) line(s string) {
	if s = strings.TrimSpace(s); s == "" {
		return
	}
	l.tail = append(l.tail, s)
	if len(l.tail) > 8 {
		l.tail = l.tail[1:]
	}
	process, message, _ := strings.Cut(s, "|") // as log_line_prefix says
	severity, text, _ := strings.Cut(message, ":")
	level := slog.LevelDebug
	switch {
	case severity == "PANIC":
		level = slog.LevelError
	case process == "client backend": // the client has been told, and knows what it means
	case severity == "WARNING", severity == "ERROR", severity == "FATAL":
		level = slog.LevelWarn
	}
	if text == "" { // not one of its log lines
		text, process = s, "postgres"
	}
	l.log.Log(context.Background(), level, strings.TrimSpace(text), "process", process, "severity", severity)
	if strings.Contains(s, readyLine) {
		select {
		case <-l.ready:
		default:
			close(l.ready)
		}
	}
}

// lastWords is the end of what Postgres printed.
func (l *pgLog) lastWords() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.tail, "\n\t")
}
