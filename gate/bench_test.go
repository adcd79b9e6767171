package gate

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/tracing"
	"github.com/tidegate/tidegate/ledger"
)

// BenchmarkAnswer is what one check costs besides the network.
func BenchmarkAnswer(b *testing.B) {
	g := bare(Config{Now: time.Now, MaxStale: time.Hour, Backlog: func() events.Backlog { return events.Backlog{} }}, nil)
	soft, hard := int64(1<<40), int64(1<<41)
	for i := range 1000 {
		id := fmt.Sprintf("port-%04d", i)
		g.memory.applyBudget(id, events.Budget{Enabled: true, SoftCapTokens: &soft, HardCapTokens: &hard, Period: events.PeriodMonth, Version: 1})
		for day := range ledger.Day(24) {
			g.memory.port(id).raise(ledger.DayOf(time.Now())-day, 1000)
		}
	}
	g.memory.asOf = time.Now()
	subject, payload := "ai.budget.check.port-0500", []byte(`{"feature":"ocr","user_id":"u1","estimated_tokens":2000}`)
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		body, err := g.answerCheck(events.SubjectCheck, subject, payload, buf, tracing.None)
		if err != nil || len(body) == 0 {
			b.Fatal(err)
		}
	}
}

// BenchmarkMemory fills a gate with a million ports, each with a budget and some
// days of use, and reports bytes a port.
func BenchmarkMemory(b *testing.B) {
	for _, days := range []int{1, 15, 31} {
		b.Run(fmt.Sprintf("days=%d", days), func(b *testing.B) {
			const ports = 1_000_000
			for b.Loop() {
				before := heap()
				m := fill(ports, days)
				b.ReportMetric(float64(heap()-before)/ports, "bytes/port")
				runtime.KeepAlive(m)
			}
		})
	}
}

func heap() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// fill makes a memory the way a reading does.
func fill(ports, days int) *memory {
	m := newMemory()
	m.beginReading(true, 20_000)
	soft, hard := int64(800_000), int64(1_000_000)
	perDay := make([]ledger.PortDay, days)
	for i := range ports {
		id := fmt.Sprintf("port-%07d", i)
		m.readBudget(id, events.Budget{Enabled: true, SoftCapTokens: &soft, HardCapTokens: &hard, Period: events.PeriodMonth, Version: 1,
			UpdatedAt: time.Unix(1_700_000_000, 0), UpdatedBy: "alice"})
		for d := range perDay {
			perDay[d] = ledger.PortDay{PortID: id, Day: ledger.Day(20_000 + d), TotalTokens: 1000}
		}
		m.readDays(perDay)
	}
	m.endReading(time.Now())
	return m
}
