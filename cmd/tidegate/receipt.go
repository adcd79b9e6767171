package main

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/receipt"
	"github.com/tidegate/tidegate/receipt/tesseract"
)

// startReceipts makes the receipt scan beside the system, as a service of its own
// would be: it has a connection, a budget client and a publisher.
func (s *system) startReceipts() (func(context.Context) error, error) {
	nc, err := s.connectChecked("receipts")
	if err != nil {
		return nil, err
	}
	publisher, err := events.NewPublisher(nc, events.PublisherConfig{Logger: s.log})
	if err != nil {
		return nil, err
	}
	s.watchPublisher("receipts", publisher)
	client, err := events.NewClient(nc, events.ClientConfig{WhenUnavailable: events.FailClosed, Publisher: publisher, Service: "receipts"})
	if err != nil {
		return nil, err
	}
	handler, err := receipt.New(receipt.Config{Gate: client, Recorder: publisher, Auth: s.access.auth, Login: s.access.login,
		Provider: tesseract.New(tesseract.Config{}), Logger: s.log})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		s.receipts.pages.Set(handler)
		<-s.receipts.ended // no scan is under way any more
		flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		return publisher.Close(flush)
	}, nil
}

// watchPublisher puts a publisher's counts on /metrics.
func (s *system) watchPublisher(service string, p interface{ Stats() events.Stats }) {
	count := func(name, help string, value func(events.Stats) uint64) {
		s.metrics.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: prometheus.Labels{"service": service}},
			func() float64 { return float64(value(p.Stats())) }))
	}
	count("tidegate_publisher_recorded_total", "Usage events handed to the publisher.", func(s events.Stats) uint64 { return s.Recorded })
	count("tidegate_publisher_published_total", "Usage events acknowledged by JetStream.", func(s events.Stats) uint64 { return s.Published })
	count("tidegate_publisher_dropped_total", "Usage events given up: no room, no legal port, too large.", func(s events.Stats) uint64 { return s.Dropped })
	count("tidegate_publisher_retries_total", "Publishes of an event after its first.", func(s events.Stats) uint64 { return s.Retries })
}
