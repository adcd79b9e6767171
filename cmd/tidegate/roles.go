package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/tidegate/tidegate/alert"
	"github.com/tidegate/tidegate/consumer"
	"github.com/tidegate/tidegate/consumer/stream"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/gate"
	"github.com/tidegate/tidegate/internal/changes"
	"github.com/tidegate/tidegate/internal/demo"
)

const drainTimeout = 5 * time.Second // of the consumer; all of a stop takes less than 10 s

// role is a part of the system that this process may play. start makes it, and says in
// its error why it cannot be; the function it returns is the role at work, until ctx ends.
type role struct {
	name  string
	start func() (run func(ctx context.Context) error, err error)
}

// roles are those of this process, in the order in which they start.
func (s *system) roles() (roles []role) {
	for _, r := range []struct {
		role
		wanted bool
	}{
		{role{"ledger", s.startWatcher}, true},
		{role{"consumer", s.startConsumer}, s.cmd.has("consumer")},
		{role{"gate", s.startGate}, s.cmd.has("gate")},
		{role{"alerts", s.startAlerts}, s.cmd.Alerts != ""},
		{role{"admin", s.startAdmin}, s.cmd.has("admin")},
		{role{"edge", s.startEdge}, s.cmd.has("edge")},
		{role{"proxy", s.startProxy}, s.cmd.has("proxy")},
		{role{"receipts", s.startReceipts}, s.cmd.Receipts != ""},
		{role{"demo", s.startDemo}, s.cmd.Demo},
	} {
		if r.wanted {
			roles = append(roles, r.role)
		}
	}
	return roles
}

// runRoles starts this process's roles, all of them or none, and prints the screen when
// everything is ready. Groups of goroutines in Tidegate let a panic end the process, at
// once and with its stack; what holds it for whoever waits for the group (conc's pools)
// would leave a process that looks well and does nothing.
func (s *system) runRoles(ctx context.Context, group *errgroup.Group) error {
	var runs []func() error
	for _, r := range s.roles() {
		run, err := r.start()
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		runs = append(runs, func() error {
			err := run(ctx)
			if err == nil && ctx.Err() == nil {
				err = errors.New("ended by itself")
			}
			if err != nil {
				err = fmt.Errorf("%s: %w", r.name, err)
			}
			return err
		})
	}
	collectAsUsual := collectLess()
	for _, run := range runs {
		group.Go(run)
	}
	err := s.checks.Await(ctx)
	collectAsUsual()
	if err == nil {
		s.screen(os.Stdout)
		s.checks.Hold("")
	}
	return nil
}

// collectLess makes the garbage collector run less often until the start is over: nearly all that a gate reads
// then stays. With a million ports that saves a tenth of the start's CPU. Until then the heap may become four times
// what stays, not twice.
func collectLess() (asUsual func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	usual := debug.SetGCPercent(300)
	return func() { debug.SetGCPercent(usual) }
}

// startWatcher watches whether this ledger has what its stream acknowledged, and that
// both belong together: no role may run where they do not.
func (s *system) startWatcher() (func(context.Context) error, error) {
	nc, err := s.connect("ledger")
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	s.watcher = stream.NewWatcher(js, s.ledger, s.cmd.AdoptStreams)
	s.watchCopies()
	s.watcher.Register(s.metrics)
	s.checks.Add("ledger", func(context.Context) error { return s.watcher.Behind() })
	s.checks.Tell("backlog_messages", func() any { return s.watcher.Backlog().Messages })
	s.checks.Tell("backlog_oldest_at", func() any {
		if b := s.watcher.Backlog(); b.Messages > 0 {
			return b.OldestAt
		}
		return nil
	})
	return s.watcher.Run, nil
}

// watchCopies looks at the streams that this process's roles make. One with too few copies
// makes those unready that would make it anew, and nobody who answers callers.
func (s *system) watchCopies() {
	streams := []string{events.UsageStream}
	if s.cmd.has("consumer") {
		streams = append(streams, events.QuarantineStream)
	}
	if s.cmd.has("gate") {
		streams = append(streams, events.AlertStream, changes.Stream)
	}
	s.watcher.WatchCopies(s.cmd.Replicas, streams...)
	if s.cmd.has("consumer") {
		s.checks.Add("streams", func(context.Context) error { return s.watcher.Copies() })
	}
}

func (s *system) startConsumer() (func(context.Context) error, error) {
	nc, err := s.connectChecked("consumer")
	if err != nil {
		return nil, err
	}
	c, err := consumer.New(consumer.Config{Conn: nc, Ledger: s.ledger, Replicas: s.cmd.Replicas, AdoptStreams: s.cmd.AdoptStreams, AckWait: s.cmd.AckWait, DrainTimeout: drainTimeout, Registerer: s.metrics, Tracer: s.telemetry.tracer(), Logger: s.log})
	if err != nil {
		return nil, err
	}
	s.checks.Add("consumer", func(context.Context) error { return c.Health() })
	s.checks.Add("backlog", func(context.Context) error { return s.watcher.Stalled() })
	s.checks.Tell("lost_messages", func() any {
		if lost := c.LostMessages(); lost > 0 {
			return lost
		}
		return nil
	})
	return c.Run, nil
}

func (s *system) startGate() (func(context.Context) error, error) {
	nc, err := s.connectChecked("gate")
	if err != nil {
		return nil, err
	}
	g, err := gate.New(gate.Config{Conn: nc, Ledger: s.ledger, MaxStale: s.cmd.MaxStale, LeaseFrom: s.cmd.SliceFrom, Behind: s.watcher.Behind, Backlog: s.watcher.Backlog, Replicas: s.cmd.Replicas, AdoptStreams: s.cmd.AdoptStreams, TopPorts: s.cmd.TopPorts, Registerer: s.metrics, Tracer: s.telemetry.tracer(), Logger: s.log})
	if err != nil {
		return nil, err
	}
	s.gateReady = g.Ready()
	s.checks.Add("gate", func(context.Context) error { return g.Health() })
	return g.Run, nil
}

func (s *system) startAlerts() (func(context.Context) error, error) {
	s.alerts = alert.New(alert.Config{Ledger: s.ledger, Receivers: s.receivers, Registerer: s.metrics, Logger: s.log})
	return s.alerts.Run, nil
}

func (s *system) startDemo() (func(context.Context) error, error) {
	nc, err := s.connect("demo")
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-s.gateReady:
		}
		return demo.Run(ctx, demo.Config{Conn: nc, Name: s.ledger.NamePort, Logger: s.log})
	}, nil
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
