// Command receipt serves the receipt scan: a page and an API that read a receipt
// from a photo, ask the budget gate first, and report what the reading cost. It is
// a service like any other: all it needs of Tidegate is NATS.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity/safehttp"
	"github.com/tidegate/tidegate/internal/health"
	"github.com/tidegate/tidegate/receipt"
)

// version is set by the build: -ldflags "-X main.version=…".
var version = "dev"

type cli struct {
	HTTP    string `help:"Where to serve the page, the API, /healthz and /readyz." name:"http" default:"127.0.0.1:8081" env:"TIDEGATE_RECEIPTS"`
	NatsURL string `help:"The NATS that the gate listens at; credentials may be in it." default:"nats://127.0.0.1:4222" env:"TIDEGATE_NATS_URL"`

	Provider string `help:"Who reads: ${enum}. Keys come from OPENAI_API_KEY and ANTHROPIC_API_KEY." enum:"tesseract,openai,anthropic,claude,none" default:"tesseract" env:"TIDEGATE_RECEIPT_PROVIDER"`
	Model    string `help:"The provider's model. Default: openai ${openai_model}, anthropic ${anthropic_model}." env:"TIDEGATE_RECEIPT_MODEL" placeholder:"NAME"`
	BaseURL  string `help:"The provider's address, for a proxy or a server that speaks the same." env:"TIDEGATE_RECEIPT_BASE_URL" placeholder:"URL"`
	Language string `help:"What tesseract reads, as its -l takes it." default:"eng" env:"TIDEGATE_RECEIPT_LANGUAGE"`

	FailOpen bool `help:"Read on while no gate answers, so that caps may be overrun. By default receipts are to be typed meanwhile." env:"TIDEGATE_FAIL_OPEN"`

	Data string    `help:"Directory with identity/session.key, which signs sessions, and identity/spent. With the one of tidegate run, its sessions count here too." default:"data" env:"TIDEGATE_DATA" type:"path"`
	OIDC oidcFlags `embed:"" prefix:"oidc-" group:"Callers from an OIDC issuer"`

	LogLevel slog.Level       `help:"debug, info, warn or error." default:"info" env:"TIDEGATE_LOG_LEVEL"`
	Version  kong.VersionFlag `help:"Print the version and exit."`
}

// Validate is called by kong.
func (c *cli) Validate() error {
	if remote := c.Provider == "openai" || c.Provider == "anthropic" || c.Provider == "claude"; !remote && (c.Model != "" || c.BaseURL != "") {
		return fmt.Errorf("--model and --base-url are of no use to the provider %s", c.Provider)
	}
	return nil
}

// flushTimeout is how long usage events may still take when the process ends.
const flushTimeout = 3 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var c cli
	kong.Parse(&c,
		kong.Name("receipt"),
		kong.Description("Reads receipts, inside the AI budget of their port."),
		kong.Vars{"version": version, "openai_model": openAIModel, "anthropic_model": anthropicModel},
		kong.Exit(func(code int) { os.Exit(min(code, 1)) }), // as tidegate does; kong says 80
	)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if err := c.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "receipt:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends. When it returns, scans in flight are answered and what
// they cost is published, or logged as lost.
func (c *cli) run(ctx context.Context) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: c.LogLevel}))
	slog.SetDefault(log)
	access, err := c.access(log)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", c.HTTP)
	if err != nil {
		return fmt.Errorf("the page cannot be served at %s: %w (choose another address with --http)", c.HTTP, err)
	}
	defer listener.Close()
	nc, err := events.Connect(c.NatsURL, nats.Name("receipt"))
	if err != nil {
		return err
	}
	defer nc.Close()
	publisher, err := events.NewPublisher(nc, events.PublisherConfig{Logger: log})
	if err != nil {
		return err
	}
	client, err := events.NewClient(nc, events.ClientConfig{WhenUnavailable: c.policy(), Publisher: publisher, Service: "receipt"})
	if err != nil {
		return err
	}
	scan, err := receipt.New(receipt.Config{
		Gate: client, Recorder: publisher, Auth: access.auth, Login: access.login, Provider: c.provider(), Logger: log,
	})
	if err != nil {
		return err
	}
	access.screen(os.Stdout, listener.Addr().String(), c.Provider)
	err = safehttp.Serve(ctx, listener, routes(scan, nc))
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	return errors.Join(err, publisher.Close(flush))
}

func (c *cli) policy() events.Policy {
	if c.FailOpen {
		return events.FailOpen
	}
	return events.FailClosed
}

func routes(scan http.Handler, nc *nats.Conn) http.Handler {
	var checks health.Checks
	checks.Add("nats", func(context.Context) error {
		if nc.IsConnected() {
			return nil
		}
		return fmt.Errorf("not connected: %s", nc.Status())
	})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", health.Live)
	mux.HandleFunc("GET /readyz", checks.Ready)
	mux.Handle("/", scan)
	return mux
}
