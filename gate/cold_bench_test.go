package gate

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// BenchmarkColdStart is how long a gate takes from nothing to ready, with 100,000
// ports that have a budget and some days of use this month.
func BenchmarkColdStart(b *testing.B) {
	for _, days := range []int{1, 10} {
		b.Run(fmt.Sprintf("ports=100000/days=%d", days), func(b *testing.B) {
			url := testenv.Database(b)
			conn, err := pgx.Connect(b.Context(), url)
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close(context.Background())
			now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
			for _, sql := range []string{
				`insert into ports (id) select 'port-' || n from generate_series(1, 100000) n`,
				`insert into system_settings (port_id, key, value, version) select id, 'ai.budget', '{"enabled":true,"soft_cap_tokens":800000,"hard_cap_tokens":1000000,"period":"month"}', 1 from ports`,
				fmt.Sprintf(`insert into ai_usage_port_days (port_id, day, requests, total_tokens) select id, date '2026-11-24' - d, 10, 1000 from ports, generate_series(0, %d) d`, days-1),
				`analyze`,
			} {
				if _, err := conn.Exec(b.Context(), sql); err != nil {
					b.Fatal(err)
				}
			}
			clock := testenv.NewClock(b, url)
			clock.Stop(now)
			l, err := ledger.Open(b.Context(), ledger.Config{URL: url})
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			nats := testenv.NATS(b)
			for b.Loop() {
				g, err := New(Config{Conn: testenv.Connect(b, nats), Ledger: l, Now: clock.Now, MaxStale: -1})
				if err != nil {
					b.Fatal(err)
				}
				ctx, cancel := context.WithCancel(b.Context())
				done := make(chan error, 1)
				begin := time.Now()
				go func() { done <- g.Run(ctx) }()
				<-g.Ready()
				b.ReportMetric(time.Since(begin).Seconds(), "s/start")
				if v := g.verdict(&events.CheckRequest{PortID: "port-500"}); v.UsedTokens != int64(1000*days) {
					b.Fatalf("%d used, want %d", v.UsedTokens, 1000*days)
				}
				cancel()
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
