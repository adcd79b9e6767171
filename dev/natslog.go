package dev

import (
	"fmt"
	"log/slog"
	"strings"
)

// natsLog hands the server's log to slog.
type natsLog struct {
	log   *slog.Logger
	fatal chan string // the first fatal message; the server logs them and goes on
}

func newNATSLog(l *slog.Logger) *natsLog {
	return &natsLog{log: orDefault(l).With("from", "nats-server"), fatal: make(chan string, 1)}
}

func orDefault(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.Default()
	}
	return l
}

func (l *natsLog) Noticef(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l *natsLog) Debugf(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l *natsLog) Tracef(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l *natsLog) Errorf(format string, v ...any)  { l.log.Error(fmt.Sprintf(format, v...)) }

func (l *natsLog) Warnf(format string, v ...any) {
	if strings.HasPrefix(format, "Plaintext passwords detected") {
		return // the operator's is random and in no configuration file
	}
	l.log.Warn(fmt.Sprintf(format, v...))
}

func (l *natsLog) Fatalf(format string, v ...any) {
	msg := fmt.Sprintf(format, v...)
	l.log.Error(msg)
	select {
	case l.fatal <- msg:
	default:
	}
}
