package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/admin/ops"
	"github.com/tidegate/tidegate/events"
)

// remote are the flags of every command that speaks to a running Tidegate.
type remote struct {
	NatsURL string        `help:"Where the system's NATS is." default:"nats://127.0.0.1:4222" env:"TIDEGATE_NATS_URL" placeholder:"URL"`
	Timeout time.Duration `help:"How long to wait for an answer." default:"10s" env:"TIDEGATE_TIMEOUT"`
	JSON    bool          `help:"Print JSON, for machines." name:"json"`
}

// connect fails at once when no server is there: somebody is waiting.
func (r remote) connect() (*nats.Conn, error) {
	quiet := slog.New(slog.DiscardHandler)
	slog.SetDefault(quiet) // the error that is returned says it all
	nc, err := events.Connect(r.NatsURL, nats.Name("tidegate cli"), nats.RetryOnFailedConnect(false), nats.Timeout(min(r.Timeout, 5*time.Second)))
	if err != nil {
		return nil, fmt.Errorf("%w\n  is the system running (tidegate run)? is --nats-url right?", err)
	}
	return nc, nil
}

// ask runs f with a budget client.
func (r remote) ask(ctx context.Context, f func(ctx context.Context, c *events.Client) error) error {
	nc, err := r.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	client, err := events.NewClient(nc, events.ClientConfig{WhenUnavailable: events.FailClosed, Timeout: r.Timeout})
	if err != nil {
		return err
	}
	return explain(f(ctx, client))
}

// operate runs f with an operator's client.
func (r remote) operate(ctx context.Context, f func(ctx context.Context, c *ops.Client) error) error {
	nc, err := r.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	return explain(f(ctx, ops.NewClient(nc, r.Timeout)))
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

// whoami names the operator in the audit log.
func whoami() string {
	if u, err := user.Current(); err == nil {
		return "cli:" + u.Username
	}
	return "cli"
}
