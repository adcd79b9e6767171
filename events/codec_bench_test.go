package events_test

import (
	"testing"
	"time"

	"github.com/tidegate/tidegate/events"
)

func BenchmarkDecodeUsage(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(whole)))
	for b.Loop() {
		if _, err := events.DecodeUsage("ai.usage.p1", []byte(whole)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendUsage(b *testing.B) {
	u, err := events.DecodeUsage("ai.usage.p1", []byte(whole))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	buf := make([]byte, 0, 1024)
	for b.Loop() {
		buf = u.AppendJSON(buf[:0])
	}
}

// BenchmarkPublish measures a whole way: recorded, stored with an fsync per
// batch, acknowledged. Server and client share this process.
func BenchmarkPublish(b *testing.B) {
	nc := startBus(b).connect()
	usageStream(b, nc)
	p := newPublisher(b, nc, events.PublisherConfig{Buffer: 1 << 17})
	u := call("p1", 1)
	b.ResetTimer()
	for range b.N {
		for p.Stats().Pending > 100_000 {
			time.Sleep(time.Millisecond)
		}
		p.Record(u)
	}
	if err := p.Flush(within(b, time.Minute)); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
