package gate

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

// BenchmarkCounters is what the counters of a million users take of a gate's memory, and how
// long one takes to be set.
func BenchmarkCounters(b *testing.B) {
	const users = 1_000_000
	start, _ := budget.Hour.Bounds(time.Now())
	heap := func() uint64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	for b.Loop() {
		before := heap()
		m := newMemory()
		for i := range users {
			m.raiseCounter(ledger.Counter{PortID: "p", Counter: 1, Value: fmt.Sprintf("user-%09d", i), Start: start, Used: int64(i)})
		}
		b.ReportMetric(float64(heap()-before)/users, "bytes/counter")
		runtime.KeepAlive(m)
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N)/users*1e9, "ns/counter")
}

// BenchmarkColdCounters is how long a gate takes to be ready with a million users' counters in
// the ledger.
func BenchmarkColdCounters(b *testing.B) {
	url := testenv.Database(b)
	db := testenv.Must(pgx.Connect(b.Context(), url))
	defer db.Close(context.Background())
	l := testenv.Must(ledger.Open(b.Context(), ledger.Config{URL: url}))
	defer l.Close()
	stored, err := l.StoreBudget(b.Context(), "p", budget.Budget{Enabled: true, Period: budget.Month,
		Limits: []budget.Limit{{Name: "user", Per: budget.PerUser, Window: budget.Month, Hard: new(int64(5))}}}, nil, func(budget.Budget) error { return nil })
	if err != nil {
		b.Fatal(err)
	}
	server := testenv.NATS(b)
	start, end := budget.Month.Bounds(time.Now())
	if _, err := db.Exec(b.Context(), `insert into ai_limit_counters select 'p', $1, 'user-' || n, $2, $3, n from generate_series(1, 1000000) n`, int64(stored.Limits[0].Counter), start, end); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		g := testenv.Must(New(Config{Conn: testenv.Connect(b, server), Ledger: l}))
		begin := time.Now()
		if _, err := g.resync(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(begin).Seconds(), "s/start")
		if c := g.memory.counts("p")(&stored.Limits[0], "user-77", start); c.Used != 77 {
			b.Fatal(c)
		}
	}
}
