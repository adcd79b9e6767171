package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/alecthomas/kong"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/tidegate/tidegate/alert"
	"github.com/tidegate/tidegate/consumer/stream"
	"github.com/tidegate/tidegate/dev"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity/pgstore"
	"github.com/tidegate/tidegate/identity/safehttp"
	"github.com/tidegate/tidegate/internal/dsn"
	"github.com/tidegate/tidegate/internal/health"
	"github.com/tidegate/tidegate/ledger"
	"github.com/tidegate/tidegate/migrations"
)

type runCmd struct {
	Data         string   `help:"Where the embedded NATS and the private Postgres keep their data." default:"data" env:"TIDEGATE_DATA" type:"path" placeholder:"DIR"`
	HTTP         string   `help:"Where to serve the admin page, HTTP for services (/v1/), /healthz, /readyz and /metrics." name:"http" default:"127.0.0.1:8080" env:"TIDEGATE_HTTP" placeholder:"ADDR"`
	NatsURL      string   `help:"Use this NATS instead of an embedded one." env:"TIDEGATE_NATS_URL" placeholder:"URL"`
	NatsAddr     string   `help:"Where the embedded NATS listens: a loopback address." default:"127.0.0.1:4222" env:"TIDEGATE_NATS_ADDR" placeholder:"ADDR"`
	Replicas     int      `help:"Copies that NATS must keep of the streams. Default: 3 on a cluster, 1 on a lone server." env:"TIDEGATE_REPLICAS" placeholder:"N"`
	AdoptStreams bool     `help:"Take over usage streams of another ledger, which is gone for good, and book all that they hold." env:"TIDEGATE_ADOPT_STREAMS"`
	DatabaseURL  string   `help:"Use this Postgres instead of a private one." env:"TIDEGATE_DATABASE_URL,DATABASE_URL" placeholder:"URL"`
	Roles        []string `help:"What this process does: consumer, gate, admin, edge, proxy." default:"consumer,gate,admin,edge" enum:"consumer,gate,admin,edge,proxy" env:"TIDEGATE_ROLES"`
	Receipts     string   `help:"Serve the receipt scan, read by tesseract, here too; needs the role admin, for signing in." env:"TIDEGATE_RECEIPTS" placeholder:"ADDR"`
	Alerts       string   `help:"YAML file of the receivers of alerts (webhooks, Slack, e-mail), to whom this process delivers; needs the role admin." env:"TIDEGATE_ALERTS" type:"path" placeholder:"FILE"`
	Demo         bool     `help:"Add a dozen demo ports: at the first start with budgets and 60 days of made-up calls, three of them with live ones. They stay when it ends." env:"TIDEGATE_DEMO"`

	OIDC  oidcFlags  `embed:"" prefix:"oidc-" group:"Signing in through an OIDC issuer"`
	Proxy proxyFlags `embed:"" prefix:"proxy-" group:"The role proxy"`

	RetentionMonths int           `help:"Months of ledger rows to keep beside the current one." default:"84" env:"TIDEGATE_RETENTION_MONTHS" placeholder:"N"`
	KnownPortsOnly  bool          `help:"Quarantine events of ports that nobody registered (by setting a budget)." env:"TIDEGATE_KNOWN_PORTS_ONLY"`
	MaxStale        time.Duration `help:"Refuse ports with a hard cap when the gate could not learn anything for this long; negative: never." default:"5m" env:"TIDEGATE_MAX_STALE"`
	SliceFrom       int           `help:"Reservations of a port, for one feature and lifetime, within four seconds that make a gate lease a part of its headroom; negative: never." default:"4" env:"TIDEGATE_SLICE_FROM" placeholder:"N"`
	TopPorts        int           `help:"Ports that /metrics names: those nearest to their hard cap, at most 100; negative: none." default:"20" env:"TIDEGATE_TOP_PORTS" placeholder:"N"`
	AckWait         time.Duration `help:"How long events wait for another consumer when the one that had fetched them died." default:"2s" env:"TIDEGATE_ACK_WAIT"`
	LogLevel        slog.Level    `help:"debug, info, warn or error." default:"info" env:"TIDEGATE_LOG_LEVEL"`
	LogFormat       string        `help:"text or json." enum:"text,json" default:"text" env:"TIDEGATE_LOG_FORMAT"`
}

// system is what the roles of one process share.
type system struct {
	cmd      *runCmd
	log      *slog.Logger
	nats     *dev.NATS     // nil: external
	postgres *dev.Postgres // nil: external
	natsURL  string
	dbURL    string
	ledger   *ledger.Ledger
	tokens   *pgstore.Store // nil without the roles admin, edge and proxy
	conns    []*nats.Conn
	cut      chan error // a connection that its role did not close is closed for good
	metrics  *prometheus.Registry
	checks   health.Checks

	telemetry telemetry

	admin, receipts, proxy *server        // nil: not served
	access                 *access        // nil without the role admin
	services               safehttp.Later // /v1/, once there is an edge
	receivers              []*alert.Receiver
	alerts                 *alert.Deliverer // nil: alerts are not delivered here

	gateReady <-chan struct{}
	watcher   *stream.Watcher                                  // of the ledger and its stream
	newLink   func(time.Time) (path string, expires time.Time) // nil: there are no login links
}

// Run returns when everything that it started has ended: after a signal, or with the
// error of whatever could not start or go on.
func (c *runCmd) Run(ctx context.Context, k *kong.Context) error {
	// It is never touched, so it takes address space and no memory. It makes the garbage
	// collector's first goal 128 MiB instead of 4: booking is a stream of short-lived events.
	// docs/decisions/0036-room-for-the-collector.md has what that saves.
	headroom := make([]byte, 64<<20)
	defer runtime.KeepAlive(headroom)
	if err := c.check(givenTo(k)); err != nil {
		return err
	}
	log := c.logger()
	slog.SetDefault(log)
	s := &system{cmd: c, log: log, cut: make(chan error, 1), metrics: prometheus.NewRegistry(), checks: health.Checks{Words: ledger.Plain}}
	s.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	defer s.stop()
	err := s.run(ctx)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// run listens first, so that whoever asks is told what the start waits for.
func (s *system) run(ctx context.Context) error {
	if err := s.startTelemetry(ctx); err != nil {
		return err
	}
	if err := s.prepare(); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, server := range []*server{s.admin, s.receipts, s.proxy} {
		if server != nil {
			group.Go(func() error { return server.serve(ctx) })
		}
	}
	group.Go(func() error {
		if err := s.start(ctx); err != nil {
			return err
		}
		return s.runRoles(ctx, group)
	})
	group.Go(func() error {
		select {
		case err := <-s.cut:
			return err
		case <-ctx.Done():
			s.log.Info("stopping")
			return nil
		}
	})
	return group.Wait()
}

func (c *runCmd) has(role string) bool { return slices.Contains(c.Roles, role) }

// start brings up NATS, Postgres and the schema.
func (s *system) start(ctx context.Context) (err error) {
	c := s.cmd
	if s.natsURL = c.NatsURL; s.natsURL == "" {
		// JetStream syncs every batch to disk, in calls that keep a processor of Go's
		// waiting: with as many as there are cores, the gate waits with them. Twice
		// as many halve the p99 of reservations while events pour in (decision 6).
		if os.Getenv("GOMAXPROCS") == "" {
			runtime.GOMAXPROCS(2 * runtime.GOMAXPROCS(0))
		}
		s.nats, err = dev.StartNATS(dev.NATSConfig{Dir: filepath.Join(c.Data, natsDir), Addr: c.NatsAddr, Logger: s.log})
		if err != nil {
			return err
		}
		s.natsURL = s.nats.ServiceURL()
	}
	if s.dbURL = c.DatabaseURL; s.dbURL == "" {
		s.postgres, err = dev.StartPostgres(ctx, dev.PostgresConfig{Dir: filepath.Join(c.Data, "postgres"), Logger: s.log})
		if err != nil {
			return err
		}
		s.dbURL = s.postgres.URL()
	}
	return s.openLedger(ctx)
}

// openLedger waits for an external Postgres: in a cluster the order in which
// things start is nobody's promise.
func (s *system) openLedger(ctx context.Context) error {
	for {
		err := migrations.Apply(ctx, s.dbURL)
		if err == nil {
			s.ledger, err = ledger.Open(ctx, ledger.Config{URL: s.dbURL, RetentionMonths: s.cmd.RetentionMonths,
				KnownPortsOnly: s.cmd.KnownPortsOnly, Logger: s.log})
		}
		if err == nil {
			s.checks.Add("postgres", s.ledger.Ping)
			return nil
		}
		if s.postgres != nil || !migrations.MayPass(err) {
			return err
		}
		s.log.Warn("Postgres cannot be used yet, trying again", "error", err)
		s.checks.Add("postgres", health.Failing("cannot be used yet: "+ledger.Plain(err)))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// natsDir is where the data directory has the embedded NATS.
const natsDir = "nats"

// connect makes one role's connection to NATS, in process and as operator to the embedded
// one. It is closed once all roles have ended.
func (s *system) connect(name string) (*nats.Conn, error) {
	url := s.natsURL
	if s.nats != nil && name != "receipts" { // which is a service like any other
		url = s.nats.ClientURL()
	}
	// An inbox of its own, so that a NATS user for one role need not be able to read those of others.
	opts := []nats.Option{nats.Name("tidegate " + name), nats.CustomInboxPrefix("_INBOX." + name), nats.ClosedHandler(func(nc *nats.Conn) {
		select {
		case s.cut <- fmt.Errorf("%s: NATS has closed the connection for good: %w", name, nc.LastError()):
		default:
		}
	})}
	if s.nats != nil {
		opts = append(opts, s.nats.InProcess())
	}
	nc, err := events.Connect(url, opts...)
	if err == nil {
		s.conns = append(s.conns, nc)
	}
	return nc, err
}

// stop ends the servers, Postgres last but one: whoever needs them has ended.
func (s *system) stop() {
	for _, server := range []*server{s.admin, s.receipts, s.proxy} {
		if server != nil {
			_ = server.listener.Close() // it was never served, or is closed
		}
	}
	for _, nc := range s.conns {
		nc.Close()
	}
	if s.tokens != nil {
		s.tokens.Close()
	}
	if s.ledger != nil {
		s.ledger.Close()
	}
	if s.postgres != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.postgres.Stop(ctx); err != nil {
			s.log.Error("Postgres did not stop cleanly; it recovers at the next start", "error", err)
		}
	}
	if s.nats != nil {
		s.nats.Shutdown()
	}
	if err := s.telemetry.stop(); err != nil {
		s.log.Warn("the last spans and metrics could not be sent", "error", err)
	}
	s.log.Info("stopped")
}

type migrateCmd struct {
	DatabaseURL string `help:"The database." required:"" env:"TIDEGATE_DATABASE_URL,DATABASE_URL" placeholder:"URL"`
}

func (c *migrateCmd) Run(ctx context.Context) error {
	if err := dsn.Check(c.DatabaseURL); err != nil {
		return err
	}
	if err := migrations.Apply(ctx, c.DatabaseURL); err != nil {
		return err
	}
	fmt.Println("the database has this build's schema")
	return nil
}
