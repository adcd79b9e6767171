package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/sourcegraph/conc/pool"

	"github.com/tidegate/tidegate/consumer"
	"github.com/tidegate/tidegate/consumer/stream"
	"github.com/tidegate/tidegate/demo"
	"github.com/tidegate/tidegate/gate"
	"github.com/tidegate/tidegate/identity/web"
	"github.com/tidegate/tidegate/internal/health"
)

const drainTimeout = 5 * time.Second // of the consumer; all of a stop takes less than 10 s

// runRoles runs this process's roles until ctx ends or one of them fails, and
// returns after all have ended.
func (s *system) runRoles(ctx context.Context) error {
	listener, err := net.Listen("tcp", s.cmd.HTTP)
	if err != nil {
		return fmt.Errorf("the admin page cannot be served at %s: %w (choose another address with --http)", s.cmd.HTTP, err)
	}
	s.checks.Add("postgres", s.ledger.Ping)
	group := pool.New().WithContext(ctx).WithCancelOnError().WithFirstError()
	if err := s.startWatcher(group); err != nil {
		_ = listener.Close()
		return err
	}
	for role, start := range map[string]func(*pool.ContextPool) error{"consumer": s.startConsumer, "gate": s.startGate, "admin": s.startAdmin} {
		if !s.cmd.has(role) {
			continue
		}
		if err := start(group); err != nil {
			_ = listener.Close()
			return errors.Join(err, group.Wait())
		}
	}
	mux := http.NewServeMux()
	s.routes(mux)
	group.Go(func(ctx context.Context) error { return web.Serve(ctx, listener, mux) })
	if s.cmd.Receipts != "" {
		if err := s.startReceipts(group); err != nil {
			return errors.Join(err, group.Wait())
		}
	}
	if s.cmd.Demo {
		if err := s.startDemo(group); err != nil {
			return errors.Join(err, group.Wait())
		}
	}
	s.screen(os.Stdout, listener.Addr().String())
	return group.Wait()
}

// startWatcher watches whether this ledger has what its stream acknowledged, and that
// both belong together: no role may run where they do not.
func (s *system) startWatcher(group *pool.ContextPool) error {
	nc, err := s.connect("watcher")
	if err != nil {
		return err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	s.watcher = stream.NewWatcher(js, s.ledger)
	s.checks.Add("ledger", func(context.Context) error { return s.watcher.Behind() })
	group.Go(func(ctx context.Context) error {
		defer nc.Close()
		return s.watcher.Run(ctx)
	})
	return nil
}

func (s *system) startConsumer(group *pool.ContextPool) error {
	nc, err := s.connectChecked("consumer")
	if err != nil {
		return err
	}
	c, err := consumer.New(consumer.Config{Conn: nc, Ledger: s.ledger, Replicas: s.cmd.Replicas, AdoptStreams: s.cmd.AdoptStreams, AckWait: s.cmd.AckWait, DrainTimeout: drainTimeout, Registerer: s.metrics, Logger: s.log})
	if err != nil {
		return err
	}
	s.checks.Add("consumer", func(context.Context) error { return c.Health() })
	group.Go(func(ctx context.Context) error {
		defer nc.Close()
		return c.Run(ctx)
	})
	return nil
}

func (s *system) startGate(group *pool.ContextPool) error {
	nc, err := s.connectChecked("gate")
	if err != nil {
		return err
	}
	g, err := gate.New(gate.Config{Conn: nc, Ledger: s.ledger, MaxStale: s.cmd.MaxStale, SliceFrom: s.cmd.SliceFrom, Behind: s.watcher.Behind, Registerer: s.metrics, Logger: s.log})
	if err != nil {
		return err
	}
	s.gateReady = g.Ready()
	s.checks.Add("gate", ready(g.Ready(), "totals are not loaded yet"))
	group.Go(g.Run)
	return nil
}

func (s *system) startDemo(group *pool.ContextPool) error {
	nc, err := s.connect("demo")
	if err != nil {
		return err
	}
	group.Go(func(ctx context.Context) error {
		defer nc.Close()
		select {
		case <-ctx.Done():
			return nil
		case <-s.gateReady:
		}
		return demo.Run(ctx, nc, s.log)
	})
	return nil
}

// ready is a check that fails until c is closed.
func ready(c <-chan struct{}, otherwise string) func(context.Context) error {
	return func(context.Context) error {
		select {
		case <-c:
			return nil
		default:
			return errors.New(otherwise)
		}
	}
}

// connectChecked makes a role's connection and reports its state in /readyz.
func (s *system) connectChecked(role string) (*nats.Conn, error) {
	nc, err := s.connect(role)
	if err != nil {
		return nil, err
	}
	s.checks.Add("nats "+role, func(context.Context) error {
		if nc.IsConnected() {
			return nil
		}
		return fmt.Errorf("not connected: %s", nc.Status())
	})
	return nc, nil
}

func (s *system) routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", health.Live)
	mux.HandleFunc("GET /readyz", s.checks.Ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics, promhttp.HandlerOpts{}))
	if s.page != nil {
		mux.Handle("/", s.page)
	}
}
