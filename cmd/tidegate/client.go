package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/admin/ops"
	"github.com/tidegate/tidegate/dev"
	"github.com/tidegate/tidegate/events"
)

// remote are the flags of every command that speaks to a running Tidegate.
type remote struct {
	NatsURL string        `help:"Where the system's NATS is. Default: the one that runs in --data, as its operator, else nats://127.0.0.1:4222." env:"TIDEGATE_NATS_URL" placeholder:"URL"`
	Data    string        `help:"Data directory of tidegate run: with its embedded NATS, it holds the operator's password." default:"data" env:"TIDEGATE_DATA" type:"path" placeholder:"DIR"`
	Timeout time.Duration `help:"How long to wait for an answer." default:"10s" env:"TIDEGATE_TIMEOUT"`
	JSON    bool          `help:"Print JSON, for machines." name:"json"`
}

// server is where to connect: as an operator if the address says so, or the data directory
// does. Otherwise the error says why not, and the address is good for what services do.
func (r remote) server() (address string, whyNot error) {
	operator, err := dev.OperatorURL(filepath.Join(r.Data, natsDir))
	address = cmp.Or(r.NatsURL, "nats://"+dev.DefaultNATSAddr)
	switch {
	case strings.Contains(address, "@"):
		return address, nil
	case err != nil:
		return address, err
	case r.NatsURL == "" || hostOf(address) == hostOf(operator):
		return operator, nil
	}
	return address, fmt.Errorf("another NATS runs in %s", r.Data)
}

func hostOf(address string) string {
	if !strings.Contains(address, "://") {
		address = "nats://" + address
	}
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return strings.Replace(u.Host, "localhost", "127.0.0.1", 1)
}

// use runs f with a connection. It fails at once when no server is there, for somebody is
// waiting, and when NATS forbids what f asks: that has no answer.
func (r remote) use(ctx context.Context, f func(ctx context.Context, nc *nats.Conn) error) error {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // the error that is returned says it all
	address, whyNot := r.server()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	nc, err := events.Connect(address, nats.Name("tidegate cli"), nats.RetryOnFailedConnect(false), nats.Timeout(min(r.Timeout, 5*time.Second)),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrPermissionViolation) {
				cancel(forbidden(err, whyNot))
			}
		}))
	if err != nil {
		return fmt.Errorf("%w\n  is the system running (tidegate run)? is --nats-url right?", err)
	}
	defer nc.Close()
	err = f(ctx, nc)
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, nats.ErrPermissionViolation) {
		return cause
	}
	return explain(err)
}

func forbidden(err, whyNot error) error {
	if whyNot == nil {
		return fmt.Errorf("this NATS user may not do that: %w", err)
	}
	return fmt.Errorf("this is for operators: name the data directory of tidegate run with --data, as a user who may read it, or a NATS user in --nats-url (%w; %w)", whyNot, err)
}

// ask runs f with a budget client.
func (r remote) ask(ctx context.Context, f func(ctx context.Context, c *events.Client) error) error {
	return r.use(ctx, func(ctx context.Context, nc *nats.Conn) error {
		client, err := events.NewClient(nc, events.ClientConfig{WhenUnavailable: events.FailClosed, Timeout: r.Timeout})
		if err != nil {
			return err
		}
		return f(ctx, client)
	})
}

// operate runs f with an operator's client.
func (r remote) operate(ctx context.Context, f func(ctx context.Context, c *ops.Client) error) error {
	return r.use(ctx, func(ctx context.Context, nc *nats.Conn) error { return f(ctx, ops.NewClient(nc, r.Timeout)) })
}

func explain(err error) error {
	var service *events.ServiceError
	if errors.As(err, &service) {
		return errors.New(service.Description)
	}
	return err
}

func printJSON(v any) error { return writeJSON(os.Stdout, v) }

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// jsonList prints a list as [writeJSON] does, but each element when it is there.
type jsonList struct {
	w io.Writer
	n int
}

func (l *jsonList) add(v any) error {
	separator := ",\n  "
	if l.n == 0 {
		separator = "[\n  "
	}
	l.n++
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetIndent("  ", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := io.WriteString(l.w, separator+strings.TrimSuffix(text.String(), "\n"))
	return err
}

func (l *jsonList) end() error {
	text := "\n]\n"
	if l.n == 0 {
		text = "[]\n"
	}
	_, err := io.WriteString(l.w, text)
	return err
}

// whoami names the operator in the audit log.
func whoami() string {
	if u, err := user.Current(); err == nil {
		return "cli:" + u.Username
	}
	return "cli"
}
