package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

type ingestCmd struct {
	Events int `default:"1000000"`
	Ports  int `default:"1000"`

	prepare func(context.Context, *ledger.Ledger) error // before the stream is filled; nil: nothing
}

// ingestRun is one run's figures, in events a second and CPU µs an event.
type ingestRun struct {
	booked, copied, inserted         float64
	cpuPostgres, cpuNATS, cpuConsume float64
	again                            float64 // messages that were delivered more than once
}

func (c *ingestCmd) Run(ctx context.Context, r *report) error {
	r.section("Ingest", fmt.Sprintf("%s events of ~380 bytes over %s equally busy ports wait in the stream; time from the consumer's start to the last committed total. NATS, consumer and Postgres in a process of their own each. "+
		"The events came from a publisher for each port with default settings, which recorded 40 in a row, in other runs from one on the shared subject, some 40 in a message either way, and in others each in a message of its own. "+
		"Yardsticks in the same run and cluster: COPY of as many rows in batches of 5,000 on two connections into a table like the ledger (same partition, key and index, no totals), and one autocommitted INSERT per event on 8 connections. CPU in µs an event.", digits(c.Events), digits(c.Ports)))
	var rows [][]string
	for _, form := range []struct {
		name string
		fill func(context.Context, *nats.Conn) error
	}{
		{"one port per publisher, default settings", c.fillByPort},
		{"shared subject, 40 events a message", func(ctx context.Context, nc *nats.Conn) error { return c.fill(ctx, nc, true) }},
		{"an event a message", func(ctx context.Context, nc *nats.Conn) error { return c.fill(ctx, nc, false) }},
	} {
		var runs []ingestRun
		for range r.runs {
			run, err := c.once(ctx, form.fill)
			if err != nil {
				return err
			}
			runs = append(runs, run)
			fmt.Fprintf(r.w, "<!-- %s: %+v -->\n", form.name, run)
		}
		pick := func(f func(ingestRun) float64) float64 {
			values := make([]float64, len(runs))
			for i := range runs {
				values[i] = f(runs[i])
			}
			return median(values)
		}
		cpu := func(f func(ingestRun) float64) string { return fmt.Sprintf("%.1f", pick(f)) }
		rows = append(rows, []string{form.name,
			thousands(pick(func(x ingestRun) float64 { return x.booked })),
			thousands(pick(func(x ingestRun) float64 { return x.copied })), times(pick(func(x ingestRun) float64 { return x.booked / x.copied })),
			thousands(pick(func(x ingestRun) float64 { return x.inserted })), times(pick(func(x ingestRun) float64 { return x.booked / x.inserted })),
			cpu(func(x ingestRun) float64 { return x.cpuPostgres }), cpu(func(x ingestRun) float64 { return x.cpuNATS }), cpu(func(x ingestRun) float64 { return x.cpuConsume }),
			digits(int(pick(func(x ingestRun) float64 { return x.again })))})
	}
	r.table([]string{"", "booked/s", "COPY/s", "÷ COPY", "INSERT/s", "÷ INSERT", "CPU Postgres", "NATS", "consumer", "delivered again"}, rows)
	return nil
}

func (c *ingestCmd) once(ctx context.Context, fill func(context.Context, *nats.Conn) error) (run ingestRun, err error) {
	s, err := newSystem()
	if err != nil {
		return run, err
	}
	defer s.remove()
	if err := s.spawnNATS("nats"); err != nil {
		return run, err
	}
	natsPID := s.procs[0].Process.Pid
	// Once with the consumer, to make streams and schema; then without, to fill the stream.
	if err := s.run(ctx, "--nats-url", s.nats, "--roles", "consumer"); err != nil {
		return run, err
	}
	if c.prepare != nil {
		l, err := ledger.Open(ctx, ledger.Config{URL: s.database()})
		if err != nil {
			return run, err
		}
		err = c.prepare(ctx, l)
		l.Close()
		if err != nil {
			return run, err
		}
	}
	s.stopLast()
	if err := s.filled(ctx, fill); err != nil {
		return run, err
	}
	cpuNATS := cpuSeconds(natsPID)
	start := time.Now()
	if err := s.run(ctx, "--nats-url", s.nats, "--roles", "consumer"); err != nil {
		return run, err
	}
	db, err := pgxpool.New(ctx, s.database())
	if err != nil {
		return run, err
	}
	defer db.Close()
	if start, err = c.await(ctx, db, start); err != nil {
		return run, err
	}
	run.booked = float64(c.Events) / time.Since(start).Seconds()
	pid := s.procs[1].Process.Pid
	perEvent := 1e6 / float64(c.Events)
	run.cpuConsume = cpuOf(pid) * perEvent
	run.cpuPostgres = (cpuSeconds(pid) - cpuOf(pid)) * perEvent
	run.cpuNATS = (cpuSeconds(natsPID) - cpuNATS) * perEvent
	if run.again, err = deliveredAgain(ctx, s); err != nil {
		return run, err
	}
	s.stopLast()

	// The yardsticks, on the same cluster, alone: a consumer-less process keeps it up.
	if err := s.run(ctx, "--nats-url", s.nats, "--roles", "admin"); err != nil {
		return run, err
	}
	db.Reset() // the connections to the Postgres that ended with the consumer
	if run.copied, err = c.copyYardstick(ctx, db); err != nil {
		return run, err
	}
	run.inserted, err = c.insertYardstick(ctx, db)
	return run, err
}

// deliveredAgain counts deliveries beyond the first. Nobody died, so there should be none.
func deliveredAgain(ctx context.Context, s *system) (float64, error) {
	nc, err := s.connect()
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return 0, err
	}
	durable, err := js.Consumer(ctx, events.UsageStream, events.ConsumerName)
	if err != nil {
		return 0, err
	}
	delivered := durable.CachedInfo().Delivered
	return float64(delivered.Consumer - delivered.Stream), nil
}

func (s *system) stopLast() {
	last := s.procs[len(s.procs)-1]
	s.procs = s.procs[:len(s.procs)-1]
	end := &system{procs: append(s.procs[:0:0], last)}
	end.stop()
}

func (s *system) filled(ctx context.Context, fill func(context.Context, *nats.Conn) error) error {
	nc, err := s.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	return fill(ctx, nc)
}

// fill publishes the events from one publisher. Each port uses several features and models.
func (c *ingestCmd) fill(ctx context.Context, nc *nats.Conn, shared bool) error {
	p, err := events.NewPublisher(nc, events.PublisherConfig{SharedSubject: shared})
	if err != nil {
		return err
	}
	defer p.Close(context.WithoutCancel(ctx))
	batch := make([]events.Usage, 0, 1000)
	for i := range c.Events {
		batch = append(batch, sampleUsage(i%c.Ports))
		if len(batch) == cap(batch) || i == c.Events-1 {
			if err := p.Publish(ctx, batch); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	return nil
}

// fillByPort publishes them from a publisher for each port. In turn each records 40 events
// in a row, so that the ports' messages are mixed in the stream.
func (c *ingestCmd) fillByPort(ctx context.Context, nc *nats.Conn) error {
	const together, each = 40, 40
	publishers := make([]*events.Publisher, c.Ports)
	for i := range publishers {
		p, err := events.NewPublisher(nc, events.PublisherConfig{})
		if err != nil {
			return err
		}
		defer p.Close(context.WithoutCancel(ctx))
		publishers[i] = p
	}
	for done := 0; done*c.Ports < c.Events; done += each {
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(together)
		for port, p := range publishers {
			group.Go(func() error {
				all := (c.Events + c.Ports - 1 - port) / c.Ports // the first ports have one more
				for range min(each, all-done) {
					p.Record(sampleUsage(port))
				}
				return p.Flush(ctx)
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
	}
	return nil
}

var features = []string{"ocr", "summary", "embedding", "reply_draft"}
var models = []string{"gpt-5-mini", "claude-sonnet-5", "gemini-3-flash"}

// sampleUsage is an event of about 380 bytes.
func sampleUsage(port int) events.Usage {
	now := time.Now()
	return events.Usage{
		ID: events.NewUUIDv7(now).String(), OccurredAt: now,
		PortID: fmt.Sprintf("port-%04d", port), UserID: fmt.Sprintf("user-%d", rand.IntN(50)),
		Feature: features[rand.IntN(len(features))], Provider: "openai", Model: models[rand.IntN(len(models))],
		RequestID: "req_0123456789abcdef", ResponseID: "resp_0123456789abcdef",
		InputTokens: 1000 + rand.Int64N(1000), OutputTokens: rand.Int64N(400),
		MeasuredBy: events.MeasuredByProvider, Status: events.StatusOK,
	}
}

// await returns when all events are booked, and when the first were not yet.
func (c *ingestCmd) await(ctx context.Context, db *pgxpool.Pool, start time.Time) (time.Time, error) {
	for {
		var booked int
		if err := db.QueryRow(ctx, "select coalesce(sum(requests), 0)::bigint from ai_usage_port_days").Scan(&booked); err != nil {
			return start, err
		}
		switch booked {
		case 0:
			start = time.Now()
		case c.Events:
			return start, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func digits(n int) string { return message.NewPrinter(language.English).Sprint(n) }
