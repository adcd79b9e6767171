package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

type addedCmd struct {
	Calls int    `default:"5000000" help:"Of the port, that the limit has to count."`
	Data  string `help:"Keep the filled database here, or use the one that is there. It must be this month's." type:"path" placeholder:"DIR"`
}

// Run measures a limit that is added to a port with many calls in the window, and how long
// a booking for another port takes at most meanwhile.
func (c *addedCmd) Run(ctx context.Context, r *report) error {
	s, filled, end, err := keptSystem(c.Data)
	if err != nil {
		return err
	}
	defer end()
	if err := s.run(ctx); err != nil {
		return err
	}
	if !filled {
		if err := c.fill(ctx, s.database()); err != nil {
			return err
		}
	}
	l, err := ledger.Open(ctx, ledger.Config{URL: s.database()})
	if err != nil {
		return err
	}
	defer l.Close()
	var rows [][]string
	for range 2 { // the first time connections are made, and ports are registered
		slowest, end := bookAlong(ctx, l)
		time.Sleep(3 * time.Second)
		end()
		rows = [][]string{{"none", "", slowest().Round(time.Millisecond).String()}}
	}
	for _, limit := range threeLimits() {
		limit.Window = budget.Month
		slowest, end := bookAlong(ctx, l)
		begin := time.Now()
		_, err := l.StoreBudget(ctx, "big", budget.Budget{Enabled: true, Period: budget.Month, Limits: []budget.Limit{limit}}, nil, func(budget.Budget) error { return nil })
		took := time.Since(begin)
		end()
		if err != nil {
			return err
		}
		rows = append(rows, []string{limit.Name, took.Round(time.Millisecond).String(), slowest().Round(time.Millisecond).String()})
	}
	r.section("A limit that is added", fmt.Sprintf("To a port with %s calls of 10,000 users in the month that the limit counts, while another port's calls are booked, one event at a time. One run.", digits(c.Calls)))
	r.table([]string{"limit", "until it is stored", "slowest booking meanwhile"}, rows)
	return nil
}

// fill makes the port's calls of the running month.
func (c *addedCmd) fill(ctx context.Context, url string) error {
	db, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer db.Close(context.WithoutCancel(ctx))
	_, err = db.Exec(ctx, `insert into ports (id) values ('big')`)
	if err == nil {
		_, err = db.Exec(ctx, `insert into ai_usage_ledger (created_at, id, input_tokens, output_tokens, total_tokens, port_id, user_id, feature, provider, model, measured_by, status)
			select date_trunc('month', now(), 'UTC') + n * (now() - date_trunc('month', now(), 'UTC')) / $1, gen_random_uuid(), 1000, 100, 1100, 'big', 'user-' || n % 10000, 'ocr', 'openai', 'gpt-5', 'provider', 'ok'
			from generate_series(1, $1::int) n`, c.Calls)
	}
	if err == nil {
		_, err = db.Exec(ctx, "vacuum analyze ai_usage_ledger")
	}
	return err
}

// bookAlong books events of another port, one after the other, until end is called.
func bookAlong(ctx context.Context, l *ledger.Ledger) (slowest func() time.Duration, end func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan time.Duration, 1)
	go func() {
		var most time.Duration
		for ctx.Err() == nil {
			u := sampleUsage(rand.IntN(10))
			id, _ := events.ParseUUIDv7(u.ID)
			begin := time.Now()
			if _, err := l.Book(context.WithoutCancel(ctx), []ledger.Entry{{ID: id, At: events.UUIDv7Time(id), Usage: u}}); err != nil {
				break
			}
			most = max(most, time.Since(begin))
		}
		ended <- most
	}()
	return func() time.Duration { return <-ended }, cancel
}
