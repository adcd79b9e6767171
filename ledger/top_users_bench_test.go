package ledger_test

import (
	"testing"
	"time"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/ledger"
)

// BenchmarkTopUsers looks for the users who spent most in a month of two million calls: a million of one
// port, the others of 200. Beside it are the sum over the ledger that this spares, and what a limit of the one port, in
// total and for each user, would begin with.
func BenchmarkTopUsers(b *testing.B) {
	s := newStore(b)
	fillMonth(b, s)
	start, end := budget.Month.Bounds(time.Date(2026, 10, 15, 0, 0, 0, 0, time.UTC))
	ports := []ledger.PortTokens{}
	rows, err := s.db.Query(b.Context(), "select port_id, sum(total_tokens)::bigint from ai_usage_port_days group by 1 order by 2 desc")
	if err != nil {
		b.Fatal(err)
	}
	for rows.Next() {
		var p ledger.PortTokens
		if err := rows.Scan(&p.PortID, &p.Tokens); err != nil {
			b.Fatal(err)
		}
		ports = append(ports, p)
	}
	rows.Close()
	run := func(name string, f func() error) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	var top ledger.TopUsers
	find := func() (err error) {
		top, err = s.TopUsers(b.Context(), ports, start, end, 8, 25, time.Minute)
		return err
	}
	began := time.Now()
	if err := find(); err != nil {
		b.Fatal(err)
	}
	b.Logf("the first time: %v, of %d ports, exact %t", time.Since(began).Round(time.Millisecond), top.Ports, top.Exact)
	for range 20 { // a report keeps days for two seconds at a time
		if err := find(); err != nil {
			b.Fatal(err)
		}
	}
	run("Again", find)
	run("AgainOfSmallPorts", func() (err error) {
		_, err = s.TopUsers(b.Context(), ports[1:], start, end, 8, 25, time.Minute)
		return err
	})
	run("SumOverTheLedger", func() error {
		_, err := s.db.Exec(b.Context(), "select port_id, user_id, sum(total_tokens) from ai_usage_ledger where created_at >= $1 and created_at < $2 and user_id is not null group by 1, 2 order by 3 desc limit 8", start, end)
		return err
	})
	limit := budget.Limit{Name: "tried", Per: budget.PerUser, Window: budget.Total, Hard: new(int64(1))}
	run("LimitNow", func() error {
		_, err := s.LimitNow(b.Context(), "big", &limit, 5, end)
		return err
	})
}
