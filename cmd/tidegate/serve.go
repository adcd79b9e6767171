package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tidegate/tidegate/identity/safehttp"
	"github.com/tidegate/tidegate/internal/health"
	"github.com/tidegate/tidegate/internal/private"
)

// server listens from the start on; its pages come with its role.
type server struct {
	http.Handler
	listener net.Listener
	pages    *safehttp.Later
	ended    chan struct{} // closed once every request is answered
}

func listen(addr, what, flag string) (*server, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s cannot be served at %s: %w (choose another address with %s)", what, addr, err, flag)
	}
	pages := new(safehttp.Later)
	return &server{Handler: pages, listener: listener, pages: pages, ended: make(chan struct{})}, nil
}

func (s *server) serve(ctx context.Context) error {
	defer close(s.ended)
	return safehttp.Serve(ctx, s.listener, s)
}

// url is where it is reached from this machine.
func (s *server) url() string {
	addr, ok := s.listener.Addr().(*net.TCPAddr)
	if ok && addr.IP.IsUnspecified() {
		return fmt.Sprintf("http://127.0.0.1:%d", addr.Port)
	}
	return "http://" + s.listener.Addr().String()
}

// prepare does what needs neither NATS nor Postgres, so that whatever is wrong with it
// ends the process before anything was started.
func (s *system) prepare() (err error) {
	if err := private.CheckDir(s.cmd.Data); err != nil {
		return fmt.Errorf("--data: %w", err)
	}
	if s.admin, err = listen(s.cmd.HTTP, "the admin page", "--http"); err != nil {
		return err
	}
	if s.cmd.Receipts != "" {
		if s.receipts, err = listen(s.cmd.Receipts, "the receipt scan", "--receipts"); err != nil {
			return err
		}
	}
	if s.cmd.has("proxy") {
		if s.proxy, err = listen(s.cmd.Proxy.Listen, "the proxy", "--proxy-listen"); err != nil {
			return err
		}
	}
	if s.cmd.has("admin") {
		if s.access, err = s.newAccess(); err != nil {
			return fmt.Errorf("admin: %w", err)
		}
	}
	if err := s.prepareAlerts(); err != nil {
		return err
	}
	s.admin.Handler = s.routes()
	s.checks.Hold("not everything has been ready yet")
	s.checks.Add("postgres", health.Failing("not connected yet"))
	s.log.Info("starting", "http", s.admin.url())
	return nil
}

func (s *system) routes() http.Handler {
	f := promauto.With(s.metrics)
	f.NewGauge(prometheus.GaugeOpts{Name: "tidegate_build_info", Help: "1, with the version of this process.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()}}).Set(1)
	requests := f.NewHistogramVec(prometheus.HistogramOpts{Name: "tidegate_http_request_seconds",
		Help: "Time to answer requests of the admin page and its API, by status and method.", Buckets: prometheus.ExponentialBuckets(0.002, 4, 8)}, []string{"code", "method"})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", health.Live)
	mux.HandleFunc("GET /readyz", s.checks.Ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics, promhttp.HandlerOpts{}))
	if s.cmd.has("edge") {
		mux.Handle("/v1/", &s.services)
	}
	if s.cmd.has("admin") {
		mux.Handle("/", promhttp.InstrumentHandlerDuration(requests, safehttp.KnownHosts(s.admin.pages, s.cmd.HTTP, s.cmd.OIDC.PublicURL)))
	}
	return mux
}
