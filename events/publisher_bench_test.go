package events_test

import (
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/events"
)

// BenchmarkRecord measures what Record costs its caller, with NATS there and with
// NATS down: the median of single calls must stay within a microsecond.
func BenchmarkRecord(b *testing.B) {
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
			p := newPublisher(b, c.connect(), events.PublisherConfig{Buffer: 1 << 20})
			u := call("p1", 1)
			took := make([]time.Duration, 0, b.N)
			b.ReportAllocs()
			for b.Loop() {
				began := time.Now()
				p.Record(u)
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2]), "median-ns")
			b.ReportMetric(float64(took[len(took)*99/100]), "p99-ns")
			b.ReportMetric(float64(p.Stats().Dropped), "dropped")
		})
	}
}
