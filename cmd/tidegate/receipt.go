package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sourcegraph/conc/pool"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity/web"
	"github.com/tidegate/tidegate/receipt"
	"github.com/tidegate/tidegate/receipt/tesseract"
)

// startReceipts runs the receipt scan beside the system, as a service of its own
// would be: it has a connection, a budget client and a publisher.
func (s *system) startReceipts(group *pool.ContextPool) error {
	listener, err := net.Listen("tcp", s.cmd.Receipts)
	if err != nil {
		return fmt.Errorf("the receipt scan cannot be served at %s: %w (choose another address with --receipts)", s.cmd.Receipts, err)
	}
	nc, err := s.connectChecked("receipts")
	if err != nil {
		return err
	}
	publisher, err := events.NewPublisher(nc, events.PublisherConfig{Logger: s.log})
	if err != nil {
		return err
	}
	s.watchPublisher("receipts", publisher)
	client, err := events.NewClient(nc, events.ClientConfig{WhenUnavailable: events.FailClosed, Publisher: publisher, Service: "receipts"})
	if err != nil {
		return err
	}
	handler, err := receipt.New(receipt.Config{Gate: client, Recorder: publisher, Auth: s.access.auth, Login: s.access.login,
		Provider: tesseract.New(tesseract.Config{}), Logger: s.log})
	if err != nil {
		return err
	}
	s.receipts = listener.Addr().String()
	group.Go(func(ctx context.Context) error {
		defer nc.Close()
		err := web.Serve(ctx, listener, handler)
		flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if closeErr := publisher.Close(flush); err == nil {
			err = closeErr
		}
		return err
	})
	return nil
}

// watchPublisher puts a publisher's counts on /metrics.
func (s *system) watchPublisher(service string, p *events.Publisher) {
	count := func(name, help string, value func(events.Stats) uint64) {
		s.metrics.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: prometheus.Labels{"service": service}},
			func() float64 { return float64(value(p.Stats())) }))
	}
	count("tidegate_publisher_recorded_total", "Usage events handed to the publisher.", func(s events.Stats) uint64 { return s.Recorded })
	count("tidegate_publisher_published_total", "Usage events acknowledged by JetStream.", func(s events.Stats) uint64 { return s.Published })
	count("tidegate_publisher_dropped_total", "Usage events given up: no room, no legal port, too large.", func(s events.Stats) uint64 { return s.Dropped })
	count("tidegate_publisher_retries_total", "Publishes of an event after its first.", func(s events.Stats) uint64 { return s.Retries })
}
