package events_test

import (
	"log/slog"
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

var ignoreRetries cmp.Option = cmpopts.IgnoreFields(events.Stats{}, "Retries")

// deadURL is an address where nothing listens.
func deadURL(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "nats://" + l.Addr().String()
}

// logBook collects log lines.
type logBook struct{ testenv.Buffer }

func (l *logBook) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }
