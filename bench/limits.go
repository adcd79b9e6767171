package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

type limitsCmd struct {
	Ports  int `default:"1000"`
	Events int `default:"200000" help:"That wait in the stream, for ingest."`
}

// leaseLife is the whole life of a lease: how it is followed by the next is part of what is measured.
var (
	firstCalls = span{0, 5 * time.Second}
	leaseLife  = span{10 * time.Second, 10 * time.Second}
)

// threeLimits are what ports with limits have here: one of a feature, one of each user, one of
// weighted tokens. Nothing reaches them.
func threeLimits() []events.Limit {
	hard := int64(1 << 50)
	return []events.Limit{
		{Name: "ocr", Match: budget.Match{Feature: "ocr"}, Window: budget.Day, Hard: &hard},
		{Name: "user", Per: budget.PerUser, Window: budget.Day, Hard: &hard},
		{Name: "weighted", Window: budget.Month, Unit: budget.Weighted, Weights: budget.Weights{CacheRead: new(budget.Weight(100)), Output: new(budget.Weight(4000))}, Hard: &hard},
	}
}

func (c *limitsCmd) Run(ctx context.Context, r *report) error {
	r.section("Limits", fmt.Sprintf("%s ports with three limits each (a feature by the day, each of 50 users by the day, weighted tokens by the month) against as many with a cap alone, in the same run, rounds alternate. 64 callers; reserve is settled by an event on the shared subject. Each reservation is of one of 50 users. It is measured for ten seconds after ten, so that each port has leases of a whole life; the first five seconds, in which Postgres decides until a port is worth a lease, are measured once.", digits(c.Ports)))
	rows, err := c.answers(ctx, r)
	if err != nil {
		return err
	}
	ingest, err := c.ingest(ctx, r)
	if err != nil {
		return err
	}
	r.table([]string{"", "with limits", "without", "ratio", "p50", "without"}, append(rows, ingest))
	return nil
}

// answers measures check and reserve.
func (c *limitsCmd) answers(ctx context.Context, r *report) (rows [][]string, err error) {
	b := &reserveBench{cmd: &reserveCmd{Ports: c.Ports}}
	stop, err := b.start(ctx)
	if err != nil {
		return nil, err
	}
	defer stop()
	nc, err := b.s.connect()
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	client, err := events.NewClient(nc, events.ClientConfig{WhenUnavailable: events.FailClosed, Timeout: 30 * time.Second})
	if err != nil {
		return nil, err
	}
	hard := int64(1 << 50)
	for i := range c.Ports {
		if _, err := client.Set(ctx, events.SetRequest{PortID: fmt.Sprintf("limited-%04d", i), Enabled: true, HardCapTokens: &hard, Limits: threeLimits()}); err != nil {
			return nil, err
		}
	}
	reserve := func(nc *nats.Conn, port string) error {
		user := fmt.Sprint("u", rand.IntN(50))
		return b.reserveAs(nc, port, fmt.Appendf(nil, `{"feature":"ocr","user_id":%q,"estimated_tokens":2000}`, user), user)
	}
	for _, kind := range []struct {
		name string
		of   span
		runs int
		call func(nc *nats.Conn, port string) error
	}{
		{"reserve and settle, at first", firstCalls, 1, reserve},
		{"reserve and settle", leaseLife, r.runs, reserve},
		{"check", usual, r.runs, func(nc *nats.Conn, port string) error {
			return ask(nc, events.Subject(events.SubjectCheck, port), reserveRequest)
		}},
	} {
		var rounds []pair
		b.of = kind.of
		for range kind.runs {
			var p pair
			for prefix, to := range map[string]*rate{"port": &p.yard, "limited": &p.ours} {
				*to, _, err = b.sustained(ctx, 64, func(nc *nats.Conn, caller, i int) error {
					return kind.call(nc, prefix+b.port(caller, i)[len("port"):])
				})
				if err != nil {
					return nil, err
				}
			}
			rounds = append(rounds, p)
		}
		m := summarize(rounds)
		rows = append(rows, []string{kind.name, thousands(m.ours.perSecond) + "/s", thousands(m.yard.perSecond) + "/s", times(m.throughput), micros(m.ours.p50), micros(m.yard.p50)})
	}
	return rows, nil
}

// ingest measures how fast a stream of events is booked.
func (c *limitsCmd) ingest(ctx context.Context, r *report) ([]string, error) {
	fill := func(i *ingestCmd) func(context.Context, *nats.Conn) error {
		return func(ctx context.Context, nc *nats.Conn) error { return i.fill(ctx, nc, true) }
	}
	var with, without, ratio []float64
	for range r.runs {
		plain := &ingestCmd{Events: c.Events, Ports: c.Ports}
		limited := &ingestCmd{Events: c.Events, Ports: c.Ports, prepare: func(ctx context.Context, l *ledger.Ledger) error { return setThreeLimits(ctx, l, c.Ports) }}
		a, err := plain.once(ctx, fill(plain))
		if err != nil {
			return nil, err
		}
		b, err := limited.once(ctx, fill(limited))
		if err != nil {
			return nil, err
		}
		with, without, ratio = append(with, b.booked), append(without, a.booked), append(ratio, b.booked/a.booked)
	}
	return []string{"ingest", thousands(median(with)) + "/s", thousands(median(without)) + "/s", times(median(ratio)), "", ""}, nil
}

func setThreeLimits(ctx context.Context, l *ledger.Ledger, ports int) error {
	for i := range ports {
		b := budget.Budget{Enabled: true, Period: budget.Month, Limits: threeLimits()}
		if _, err := l.StoreBudget(ctx, fmt.Sprintf("port-%04d", i), b, nil, func(budget.Budget) error { return nil }); err != nil {
			return err
		}
	}
	return nil
}
