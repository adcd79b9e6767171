package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/events"
)

type gateCmd struct {
	Ports int `default:"1000"`
}

var checkRequest = []byte(`{"feature":"ocr","user_id":"u1","estimated_tokens":2000}`)

func (c *gateCmd) Run(ctx context.Context, r *report) error {
	r.section("Gate: check against a bare echo", "Server and responder share a process (as by default), the callers are in another, over up to four connections. The echo gets the same request, on as many subjects, and answers as many bytes. "+digits(c.Ports)+" ports with budgets; rounds alternate.")
	s, db, stop, err := startSystem(ctx)
	if err != nil {
		return err
	}
	defer stop()
	if err := c.load(ctx, s, db); err != nil {
		return err
	}
	size, err := c.answerSize(s)
	if err != nil {
		return err
	}
	echo, err := startEcho(size)
	if err != nil {
		return err
	}
	defer echo.remove()

	var rows [][]string
	for _, n := range []int{1, 16, 64, 256} {
		var rounds []pair
		for range r.runs {
			yard, err := callers(ctx, echo.nats, n, func(nc *nats.Conn, caller, i int) error { return ask(nc, c.echo(caller, i), checkRequest) })
			if err != nil {
				return err
			}
			ours, err := callers(ctx, s.nats, n, func(nc *nats.Conn, caller, i int) error { return ask(nc, c.subject(caller, i), checkRequest) })
			if err != nil {
				return err
			}
			rounds = append(rounds, pair{ours, yard})
		}
		m := summarize(rounds)
		rows = append(rows, []string{fmt.Sprint(n), thousands(m.ours.perSecond), thousands(m.yard.perSecond), times(m.throughput),
			micros(m.ours.p50), micros(m.ours.p99), micros(m.yard.p99), times(m.p99)})
	}
	r.table([]string{"callers", "check/s", "echo/s", "throughput", "p50", "p99", "echo p99", "p99 ratio"}, rows)
	return c.againstSum(ctx, r, s, db)
}

func (c *gateCmd) subject(caller, i int) string {
	return fmt.Sprintf("%s.port-%04d", events.SubjectCheck, (caller*7919+i)%c.Ports)
}

// echo spreads over as many subjects: NATS remembers the routes of a few hundred.
func (c *gateCmd) echo(caller, i int) string {
	return fmt.Sprintf("echo.port-%04d", (caller*7919+i)%c.Ports)
}

func ask(nc *nats.Conn, subject string, body []byte) error {
	msg, err := nc.Request(subject, body, 5*time.Second)
	if err != nil {
		return err
	}
	if msg.Header != nil {
		return fmt.Errorf("%s answered a fault: %s", subject, msg.Data)
	}
	return nil
}

// load gives every port a budget and a thousand events.
func (c *gateCmd) load(ctx context.Context, s *system, db *pgxpool.Pool) error {
	nc, err := s.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	if err := giveBudgets(ctx, nc, c.Ports); err != nil {
		return err
	}
	fill := &ingestCmd{Events: 1000 * c.Ports, Ports: c.Ports}
	if err := fill.fill(ctx, nc, true); err != nil {
		return err
	}
	_, err = fill.await(ctx, db, time.Now())
	return err
}

// giveBudgets gives every port one that is not reached.
func giveBudgets(ctx context.Context, nc *nats.Conn, ports int) error {
	client, err := events.NewClient(nc, events.ClientConfig{WhenUnavailable: events.FailClosed})
	if err != nil {
		return err
	}
	soft, hard := int64(1<<40), int64(1<<41)
	for i := range ports {
		if _, err := client.Set(ctx, events.SetRequest{PortID: fmt.Sprintf("port-%04d", i), Enabled: true, SoftCapTokens: &soft, HardCapTokens: &hard}); err != nil {
			return err
		}
	}
	return nil
}

func (c *gateCmd) answerSize(s *system) (int, error) {
	nc, err := s.connect()
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	msg, err := nc.Request(c.subject(0, 0), checkRequest, time.Second)
	if err != nil {
		return 0, err
	}
	if !bytes.Contains(msg.Data, []byte(`"allowed":true`)) {
		return 0, errors.New("the benchmark's port was refused: " + string(msg.Data))
	}
	return len(msg.Data), nil
}

func startEcho(size int) (*system, error) {
	echo, err := newSystem()
	if err != nil {
		return nil, err
	}
	if err := echo.spawnNATS("echo", "--body", fmt.Sprint(size)); err != nil {
		return nil, err
	}
	for range 100 {
		if nc, err := nats.Connect(echo.nats); err == nil {
			err = ask(nc, "echo.port", checkRequest)
			nc.Close()
			if err == nil {
				return echo, nil
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil, errors.New("the echo did not start")
}

// againstSum compares with what the original did on every check.
func (c *gateCmd) againstSum(ctx context.Context, r *report, s *system, db *pgxpool.Pool) error {
	const n = 64
	var rows int
	if err := db.QueryRow(ctx, "select count(*) from ai_usage_ledger").Scan(&rows); err != nil {
		return err
	}
	month, _ := events.PeriodMonth.Bounds(time.Now())
	var rounds []pair
	for range r.runs {
		ours, err := callers(ctx, s.nats, n, func(nc *nats.Conn, caller, i int) error { return ask(nc, c.subject(caller, i), checkRequest) })
		if err != nil {
			return err
		}
		yard, err := callers(ctx, s.nats, n, func(_ *nats.Conn, caller, i int) error {
			var used int64
			return db.QueryRow(ctx, "select coalesce(sum(total_tokens), 0)::bigint from ai_usage_ledger where port_id = $1 and created_at >= $2",
				fmt.Sprintf("port-%04d", (caller*7919+i)%c.Ports), month).Scan(&used)
		})
		if err != nil {
			return err
		}
		rounds = append(rounds, pair{ours, yard})
	}
	m := summarize(rounds)
	r.section("Gate: check against SELECT sum per check", fmt.Sprintf("What the original did, with %s ledger rows over %s ports and %d callers.", digits(rows), digits(c.Ports), n))
	r.table([]string{"", "per second", "p50", "p99", "Tidegate ÷ this"}, [][]string{
		{"Tidegate check", thousands(m.ours.perSecond), micros(m.ours.p50), micros(m.ours.p99), ""},
		{"SELECT sum(total_tokens)", thousands(m.yard.perSecond), micros(m.yard.p50), micros(m.yard.p99), times(m.throughput)},
	})
	return nil
}
