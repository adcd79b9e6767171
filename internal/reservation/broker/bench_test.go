package broker

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/reservation"
	"github.com/tidegate/tidegate/internal/reservation/hold"
)

// BenchmarkHold is what a hold from a lease costs besides the network, and what is known of a port.
func BenchmarkHold(b *testing.B) {
	user := budget.Limit{Name: "user", Per: budget.PerUser, Window: budget.Day, Hard: new(int64(1 << 50))}
	for name, limits := range map[string][]budget.Limit{"no limits": nil, "a limit of each user": {user}} {
		rule := budget.Budget{Enabled: true, HardCapTokens: new(int64(1 << 50)), Period: budget.Day, Limits: limits}.Rule()
		start, _ := budget.Day.Bounds(time.Now())
		br := NewBroker(Config{
			LeaseFrom: -1, Now: time.Now, Log: slog.New(slog.DiscardHandler), Withheld: func(string) error { return nil },
			Port: func(_ string, now time.Time) (*budget.Rule, int64, time.Time, time.Time) { return rule, 0, start, now },
			Counts: func(string) budget.Counts {
				return func(*budget.Limit, string, time.Time) budget.Count { return budget.Count{} }
			},
		})
		calls := &budget.Leased{Feature: "ocr"}
		if limits != nil {
			calls.Calls, calls.Each = []budget.Labels{{}}, map[budget.Per]budget.Allowance{budget.PerUser: {Tokens: 1 << 40, Calls: 1 << 40}}
		}
		now := time.Now()
		l := hold.Lease{PortID: "p", ID: uuid.New(), Kind: hold.Kind{Of: budget.Labels{Feature: "ocr"}, TTL: events.DefaultHoldTTL}, Calls: calls, Tokens: 1 << 50, Holds: 8,
			Created: now, Until: now.Add(time.Hour), Expires: now.Add(2 * time.Hour)}
		l.Insert(new(pgx.Batch))
		l.Holds = 1 << 50
		br.install(&reservation.Held{Leases: []hold.Lease{l}}, 0, now)
		requests := make([]events.ReserveRequest, 50)
		for i := range requests {
			requests[i] = events.ReserveRequest{PortID: "p", Feature: "ocr", Service: "web", UserID: fmt.Sprint("u", i), EstimatedTokens: 2000}
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				br.Hold(requests[i%len(requests)], func(v *events.Verdict, err error) {
					if err != nil || v.ReservationID == "" {
						b.Fatal(v, err)
					}
				})
			}
		})
	}
	br := NewBroker(Config{Port: func(_ string, now time.Time) (*budget.Rule, int64, time.Time, time.Time) { return nil, 0, now, now }})
	b.Run("known", func(b *testing.B) {
		for b.Loop() {
			br.Known("p", time.Time{})
		}
	})
}
