package events

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/time/rate"

	"github.com/tidegate/tidegate/internal/dsn"
)

// Connect connects to NATS the way every Tidegate program does; opts come last
// and win. Unlike nats.go's defaults it never gives up: neither at the start when
// no server is there yet (it returns a connection that connects as soon as one
// is), nor after an hour, nor after wrong credentials. It leaves a server that answers
// nothing within 6 s, for the next of servers or of those that its cluster names. What
// happens to the connection, and what permissions forbid, is logged through slog.
//
// servers is one URL, or several with commas between. The error is about them or
// the options and never that no server is there, except with
// nats.RetryOnFailedConnect(false), which suits tools that should fail at once.
func Connect(servers string, opts ...nats.Option) (*nats.Conn, error) {
	if err := dsn.CheckList(servers); err != nil {
		return nil, fmt.Errorf("events: connecting to NATS: %w", err)
	}
	nc, err := nats.Connect(servers, append(connectOptions(), opts...)...)
	if err != nil {
		return nil, fmt.Errorf("events: connecting to NATS at %s: %w", dsn.Redact(servers), err)
	}
	return nc, nil
}

// violation reports whether NATS has forbidden this connection to publish on
// subject since lastError was its last error. The server does not answer such a
// publish: without this look it is a timeout.
func violation(nc *nats.Conn, lastError error, subject string) bool {
	err := nc.LastError()
	return err != lastError && //nolint:errorlint // the same value, not the same kind
		errors.Is(err, nats.ErrPermissionViolation) && strings.Contains(err.Error(), `"`+subject+`"`)
}

// PortInbox makes a connection expect its replies below _INBOX.<port>, for users
// whose permissions allow them to subscribe there only.
func PortInbox(port string) nats.Option { return nats.CustomInboxPrefix("_INBOX." + port) }

func connectOptions() []nats.Option {
	failed := rate.Sometimes{Interval: logEvery}
	reported := rate.Sometimes{First: 10, Interval: logEvery}
	return []nats.Option{
		nats.Name(filepath.Base(os.Args[0])),
		nats.MaxReconnects(-1),
		nats.RetryOnFailedConnect(true),
		nats.IgnoreAuthErrorAbort(),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, time.Second),
		// A node that answers nothing any more is left within 4.5 s: it misses two pings, or
		// does not take what is written to it.
		nats.PingInterval(1500 * time.Millisecond),
		nats.MaxPingsOutstanding(2),
		nats.FlusherTimeout(3 * time.Second),
		nats.ReconnectOnFlusherError(),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			reported.Do(func() { logAsyncError(sub, err) })
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil { // nil: closed on purpose
				slog.Warn("the NATS connection is lost, reconnecting", "error", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			slog.Info("connected to NATS again", "server", dsn.Redact(nc.ConnectedUrl()))
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			failed.Do(func() { slog.Warn("NATS cannot be reached, trying on", "error", err) })
		}),
	}
}

func logAsyncError(sub *nats.Subscription, err error) {
	switch {
	case errors.Is(err, nats.ErrPermissionViolation):
		slog.Error("NATS forbids this user what it just tried; a forbidden publish otherwise looks like a timeout", "error", err)
	case sub != nil:
		slog.Error("NATS subscription failed", "subject", sub.Subject, "error", err)
	default:
		slog.Error("NATS reports an error", "error", err)
	}
}
