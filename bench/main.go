// Command bench measures Tidegate against yardsticks in the same run: raw COPY,
// one INSERT per event, a bare NATS echo, a SELECT sum per check, Redis. Every
// figure that matters is a ratio, since machines differ and are noisy.
//
//	go run ./bench all        # everything, into bench/results.md
//	go run ./bench ingest     # one of them, on the terminal
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

type cli struct {
	Runs int    `help:"Repeat every measurement this often; medians are reported." default:"3"`
	Out  string `help:"Write the report here too." placeholder:"FILE"`

	All     allCmd     `cmd:"" help:"Everything."`
	Ingest  ingestCmd  `cmd:"" help:"From the stream to committed totals, against COPY and INSERT."`
	Gate    gateCmd    `cmd:"" help:"check against a bare NATS echo and against SELECT sum."`
	Reserve reserveCmd `cmd:"" help:"reserve and settle against a bare NATS echo, a conditional UPDATE and Redis."`
	Fresh   freshCmd   `cmd:"" help:"From publish to visible in check."`
	Publish publishCmd `cmd:"" help:"One publisher: how much it gets stored, and how soon."`
	Process processCmd `cmd:"" help:"In-process figures: Record, memory per port, cold start."`
	Limits  limitsCmd  `cmd:"" help:"What limits beside a port's cap cost."`
	Added   addedCmd   `cmd:"" help:"A limit that is added to a port with many calls."`
	Meter   meterCmd   `cmd:"" help:"What meter.Transport adds to a call."`
	HTTP    httpCmd    `cmd:"" name:"http" help:"Reports and checks over HTTP, against a bare net/http echo."`

	Scale scaleCmd `cmd:"" help:"Cold start and verify with a million ports. It takes ten minutes and 10 GB of disk."`

	Page pageCmd `cmd:"" help:"What the admin page asks, with 100,000 ports and ten million ledger rows. It takes ten minutes and 10 GB of disk."`

	Proxy proxyBenchCmd `cmd:"" help:"Calls through the proxy, against a plain reverse proxy."`

	Echo     echoCmd     `cmd:"" hidden:"" help:"The echo yardstick's server: an embedded NATS with a bare responder."`
	HTTPEcho httpEchoCmd `cmd:"" name:"httpecho" hidden:"" help:"The net/http yardstick's server."`

	Provider   providerCmd   `cmd:"" name:"provider" hidden:"" help:"A fake AI provider."`
	PlainProxy plainProxyCmd `cmd:"" name:"plainproxy" hidden:"" help:"The reverse proxy yardstick's server."`

	Nats natsCmd `cmd:"" hidden:"" help:"A NATS server on its own, to tell its CPU from the consumer's."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	var c cli
	parsed := kong.Parse(&c, kong.Name("bench"), kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Exit(func(code int) { os.Exit(min(code, 1)) })) // as tidegate does; kong says 80
	out := io.Writer(os.Stdout)
	if c.Out != "" {
		f, err := os.Create(c.Out)
		parsed.FatalIfErrorf(err)
		defer f.Close()
		out = io.MultiWriter(os.Stdout, f)
	}
	r := &report{w: out, runs: c.Runs}
	err := parsed.Run(r)
	_ = os.RemoveAll(built)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type allCmd struct{}

func (c *allCmd) Run(ctx context.Context, r *report) error {
	r.title()
	for _, part := range []func(context.Context, *report) error{
		(&ingestCmd{Events: 1_000_000, Ports: 1_000}).Run,
		(&gateCmd{Ports: 1_000}).Run,
		(&reserveCmd{Ports: 1_000}).Run,
		(&freshCmd{Rate: 1_000, Samples: 500}).Run,
		(&publishCmd{Ports: 1_000, Rates: []int{1_000, 10_000, 50_000}, Measure: 5 * time.Second}).Run,
		(&limitsCmd{Ports: 1_000, Events: 200_000}).Run,
		(&addedCmd{Calls: 1_000_000}).Run,
		(&processCmd{}).Run,
		(&meterCmd{Calls: 20_000}).Run,
		(&httpCmd{Ports: 1_000}).Run,
		(&proxyBenchCmd{Ports: []int{10, 1_000}, Delay: 500 * time.Millisecond}).Run,
	} {
		if err := part(ctx, r); err != nil {
			return err
		}
	}
	return nil
}
