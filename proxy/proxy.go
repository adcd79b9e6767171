// Package proxy puts a budget under any AI SDK: a client whose base URL leads here is reserved,
// metered and settled, call by call, by [meter.Transport], and otherwise gets what its provider
// said. It keeps no keys: those of the providers pass through. docs/proxy.md has the rules.
package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/identity/safehttp"
	"github.com/tidegate/tidegate/internal/room"
	"github.com/tidegate/tidegate/meter"
	"github.com/tidegate/tidegate/meter/meterprom"
)

// MostCall is the longest that [Config.MaxCall] may be: a hold lives an hour at most.
const MostCall = events.MaxHoldTTL - holdBeyond

const (
	maxBody     = 32 << 20         // of a request
	bodyTimeout = 60 * time.Second // for a request's body
	holdBeyond  = time.Minute      // that a hold outlives its call
)

// Config makes a [Proxy].
type Config struct {
	// Conn may report usage, reserve and release: of Port, or of any port without one. It
	// stays the caller's to close, after [Proxy.Close]. Required.
	Conn *nats.Conn
	// Tokens is where API tokens are looked up; each must hold all Permissions for the port
	// that pays. Required, unless there is a Port.
	Tokens      identity.TokenStore
	Permissions []string
	// Port pays for all calls, and no token is asked for: who reaches the address may spend.
	Port string
	// Feature is that of calls which name none. Default "unnamed".
	Feature string
	// Upstreams are more of them, or others in place of the built-in ones: addresses by name.
	Upstreams map[string]string
	// MaxCall is how long a call may take, default 10 minutes, at most [MostCall]. Its hold lives a minute longer.
	MaxCall time.Duration
	// PassUnmetered makes calls that nobody can meter. Otherwise they are refused.
	PassUnmetered bool
	// Room is for requests in flight, default 4,096 of them with bodies of 256 MiB. Beyond, the
	// answer is 503; a caller that takes more than half of either gets 429.
	Room *room.Room
	// Registerer gets the metrics. nil: there are none.
	Registerer prometheus.Registerer
	// Logger gets what an operator should know. Default slog.Default().
	Logger *slog.Logger
}

// Proxy answers for the providers.
type Proxy struct {
	cfg       Config
	tokens    *identity.Tokens
	upstreams map[string]*upstream
	room      *room.Room
	publisher *events.Publisher
	base      *http.Transport
	reverse   *httputil.ReverseProxy
	origin    *http.CrossOriginProtection
	hosts     safehttp.Hosts
	log       *slog.Logger
	requests  *prometheus.CounterVec
	inFlight  prometheus.Gauge
	calls     sync.WaitGroup
}

// New does no I/O.
func New(cfg Config) (*Proxy, error) {
	switch {
	case cfg.Conn == nil:
		return nil, errors.New("proxy: Conn is required")
	case (cfg.Tokens == nil) == (cfg.Port == ""):
		return nil, errors.New("proxy: Tokens or Port is required, and not both: who pays for a call?")
	case cfg.Tokens != nil && len(cfg.Permissions) == 0:
		return nil, errors.New("proxy: Tokens need Permissions: what must one hold?")
	case cfg.MaxCall < 0 || cfg.MaxCall > MostCall:
		return nil, fmt.Errorf("proxy: MaxCall must be at most %s: got %s", MostCall, cfg.MaxCall)
	}
	if err := (events.CheckRequest{PortID: cmp.Or(cfg.Port, "any"), Feature: cfg.Feature}).Validate(); err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	cfg.MaxCall = cmp.Or(cfg.MaxCall, 10*time.Minute)
	upstreams, err := upstreamsOf(cfg.Upstreams)
	if err != nil {
		return nil, err
	}
	p := &Proxy{
		cfg: cfg, upstreams: upstreams, log: cmp.Or(cfg.Logger, slog.Default()), origin: http.NewCrossOriginProtection(), hosts: safehttp.NewHosts(),
		room: cmp.Or(cfg.Room, room.New(4096, 256<<20)),
	}
	if cfg.Tokens != nil {
		p.tokens = identity.NewTokens(identity.Remember(cfg.Tokens), p.log)
	}
	// Without a Port, calls of any port are let through, each for its own.
	if p.publisher, err = events.NewPublisher(cfg.Conn, events.PublisherConfig{SharedSubject: cfg.Port == "", Logger: p.log}); err != nil {
		return nil, err
	}
	client, err := events.NewClient(cfg.Conn, events.ClientConfig{WhenUnavailable: events.FailClosed, Publisher: p.publisher, Service: "proxy"})
	if err != nil {
		return nil, err
	}
	p.forward(client)
	return p, nil
}

// forward makes what sends calls on.
func (p *Proxy) forward(client *events.Client) {
	p.base = http.DefaultTransport.(*http.Transport).Clone()
	p.base.DisableCompression = true // chunks of a stream must not wait for each other
	p.base.MaxIdleConns, p.base.MaxIdleConnsPerHost = 0, 256
	metered := meter.Config{Base: p.base, Feature: p.cfg.Feature, Recorder: p.publisher, Reserver: client, HoldTTL: p.cfg.MaxCall + holdBeyond, Detect: detect, Logger: p.log}
	if !p.cfg.PassUnmetered {
		metered.Unmetered = meter.Refuse
	}
	transport := meter.NewTransport(metered)
	// It flushes what is a stream, or does not say its length, after each write. To have it flush all else
	// too (FlushInterval) would send each head by itself.
	p.reverse = &httputil.ReverseProxy{
		Transport: transport, Rewrite: rewrite, ModifyResponse: p.look, ErrorHandler: p.refuse,
		BufferPool: new(buffers), ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}
	f := promauto.With(p.cfg.Registerer)
	p.requests = f.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_proxy_requests_total", Help: "Requests to the proxy, by upstream and by what became of them."}, []string{"upstream", "outcome"})
	p.inFlight = f.NewGauge(prometheus.GaugeOpts{Name: "tidegate_proxy_in_flight", Help: "Requests that the proxy has not answered to the end."})
	if p.cfg.Registerer != nil {
		p.cfg.Registerer.MustRegister(meterprom.NewCollector(transport, prometheus.Labels{"service": "proxy"}))
	}
}

// Close waits until calls that were cut off are recorded and all that was recorded is in the stream. Call it
// once the server has ended.
func (p *Proxy) Close(ctx context.Context) error {
	ended := make(chan struct{})
	go func() {
		p.calls.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	p.base.CloseIdleConnections()
	return p.publisher.Close(ctx)
}

// Stats are the counts of the proxy's publisher.
func (p *Proxy) Stats() events.Stats { return p.publisher.Stats() }

// buffers are those that responses are copied through.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if buffer, ok := b.pool.Get().(*[]byte); ok {
		return *buffer
	}
	return make([]byte, 32<<10)
}

func (b *buffers) Put(buffer []byte) { b.pool.Put(&buffer) }

var _ http.Handler = (*Proxy)(nil)
