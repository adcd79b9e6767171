package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/lmittmann/tint"
	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/dev"
	"github.com/tidegate/tidegate/edge"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity/safehttp"
	"github.com/tidegate/tidegate/internal/dsn"
	"github.com/tidegate/tidegate/proxy"
)

// proxyFlags are those of the command and of the role.
type proxyFlags struct {
	Listen        string            `help:"Where the proxy for AI SDKs listens." default:"127.0.0.1:8090" env:"TIDEGATE_PROXY_LISTEN" placeholder:"ADDR"`
	Upstream      map[string]string `help:"A provider that speaks OpenAI's API, reached at /compatible/NAME, or another address for openai, anthropic, gemini, azure (with {resource} in it) or bedrock (with {region}); may be repeated." env:"TIDEGATE_PROXY_UPSTREAM" placeholder:"NAME=URL"`
	MaxCall       time.Duration     `help:"How long a call may take, at most 59m; its hold lives a minute longer." default:"10m" env:"TIDEGATE_PROXY_MAX_CALL"`
	PassUnmetered bool              `help:"Make calls that nobody can meter, instead of refusing them." env:"TIDEGATE_PROXY_PASS_UNMETERED"`
}

func (f *proxyFlags) config() proxy.Config {
	return proxy.Config{Upstreams: f.Upstream, MaxCall: f.MaxCall, PassUnmetered: f.PassUnmetered}
}

// startProxy makes the proxy that asks for tokens.
func (s *system) startProxy() (func(context.Context) error, error) {
	if err := s.openTokens(); err != nil {
		return nil, err
	}
	nc, err := s.connectChecked("proxy")
	if err != nil {
		return nil, err
	}
	cfg := s.cmd.Proxy.config()
	cfg.Conn, cfg.Tokens, cfg.Permissions = nc, s.tokens, []string{edge.PermissionReport, edge.PermissionReserve}
	cfg.Registerer, cfg.Logger = s.metrics, s.log
	p, err := proxy.New(cfg)
	if err != nil {
		return nil, err
	}
	s.watchPublisher("proxy", p)
	return func(ctx context.Context) error {
		s.proxy.pages.Set(p)
		<-s.proxy.ended
		return closeProxy(ctx, p)
	}, nil
}

func closeProxy(ctx context.Context, p *proxy.Proxy) error {
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	return p.Close(flush)
}

type proxyCmd struct {
	Port    string `help:"The port that pays for all calls." required:"" placeholder:"PORT"`
	Feature string `help:"The feature of calls that name none in X-Tidegate-Feature." placeholder:"FEATURE"`
	NatsURL string `help:"Where the system's NATS is. Default: the one that runs in --data, else nats://127.0.0.1:4222." env:"TIDEGATE_NATS_URL" placeholder:"URL"`
	Data    string `help:"Data directory of tidegate run." default:"data" env:"TIDEGATE_DATA" type:"path" placeholder:"DIR"`
	proxyFlags
}

// Run serves one port, to whoever is on this machine. Returns once calls in flight have ended, at most 10 s after
// a signal, and what they cost is in the stream.
func (c *proxyCmd) Run(ctx context.Context) error {
	host, _, err := net.SplitHostPort(c.Listen)
	if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("--listen %s must be a loopback address, such as 127.0.0.1:8090: whoever reaches it spends what port %s has. For others there is the role proxy of tidegate run, which asks for tokens", c.Listen, c.Port)
	}
	log := slog.New(tint.NewTextHandler(os.Stderr, &tint.Options{TimeFormat: time.TimeOnly, NoColor: !isTerminal(os.Stderr)}))
	slog.SetDefault(log)
	address := c.service()
	nc, err := events.Connect(address, nats.Name("tidegate proxy"))
	if err != nil {
		return err
	}
	defer nc.Close()
	cfg := c.config()
	cfg.Conn, cfg.Port, cfg.Feature, cfg.Logger = nc, c.Port, c.Feature, log
	p, err := proxy.New(cfg)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("the proxy cannot listen at %s: %w (choose another address with --listen)", c.Listen, err)
	}
	fmt.Printf("port %s pays for calls through http://%s/openai/v1 (/anthropic, /gemini, …: docs/proxy.md)\n", c.Port, listener.Addr())
	if !nc.IsConnected() {
		log.Warn("NATS cannot be reached: calls are refused until it can", "nats", dsn.Redact(address))
	}
	err = safehttp.Serve(ctx, listener, p)
	return cmp.Or(err, closeProxy(ctx, p))
}

// service is where to connect as a service: the operator's file is read for the address alone.
func (c *proxyCmd) service() string {
	if c.NatsURL != "" {
		return c.NatsURL
	}
	if operator, err := dev.OperatorURL(filepath.Join(c.Data, natsDir)); err == nil {
		if u, err := url.Parse(operator); err == nil {
			u.User = nil
			return u.String()
		}
	}
	return "nats://" + dev.DefaultNATSAddr
}
