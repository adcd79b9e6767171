package events_test

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/events"
)

// BenchmarkRecord measures what Record costs its caller, with NATS there and with
// NATS down: the median of single calls must stay within a microsecond.
func BenchmarkRecord(b *testing.B) {
	defer slog.SetDefault(slog.Default())
	slog.SetDefault(slog.New(slog.DiscardHandler)) // a line amid the results hides one
	for _, c := range []struct {
		name    string
		connect func() *nats.Conn
	}{
		{"up", func() *nats.Conn {
			nc := startBus(b).connect()
			usageStream(b, nc)
			return nc
		}},
		{"down", func() *nats.Conn { return connect(b, deadURL(b)) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			const room = 1 << 18
			nc := c.connect()
			var p *events.Publisher
			u := call("p1", 1)
			took := make([]time.Duration, 0, b.N)
			b.ReportAllocs()
			for b.Loop() {
				if len(took)%room == 0 { // a full buffer would only measure how fast events are dropped
					b.StopTimer()
					p = freshPublisher(b, nc, p, room)
					b.StartTimer()
				}
				began := time.Now()
				p.Record(u)
				took = append(took, time.Since(began))
			}
			if dropped := p.Stats().Dropped; dropped > 0 {
				b.Fatalf("%d events were dropped", dropped)
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2]), "median-ns")
			b.ReportMetric(float64(took[len(took)*99/100]), "p99-ns")
		})
	}
}

// freshPublisher returns a publisher with an empty buffer, after it ended last.
func freshPublisher(b *testing.B, nc *nats.Conn, last *events.Publisher, room int) *events.Publisher {
	if last != nil {
		if dropped := last.Stats().Dropped; dropped > 0 {
			b.Fatalf("%d events were dropped", dropped)
		}
		ended, cancel := context.WithCancel(b.Context())
		cancel()
		_ = last.Close(ended)
	}
	return newPublisher(b, nc, events.PublisherConfig{Buffer: room})
}
