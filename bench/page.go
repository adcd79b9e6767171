package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/admin"
	"github.com/tidegate/tidegate/admin/ops"
)

type pageCmd struct {
	Ports int `default:"100000"`
	Rows  int `default:"10000000" help:"Ledger rows, over 60 days."`
}

const pageDays = 60

// Run fills a database with 60 days of many ports, starts Tidegate on it, and asks what the page asks.
func (c *pageCmd) Run(ctx context.Context, r *report) error {
	r.section("The page", fmt.Sprintf("%s ports, each with a name and a budget, and %s ledger rows over %d days, some ports busier than others. Time of an answer over HTTP, as the browser waits for it, with an API token; one after the other. "+
		"*first*: right after the start, when nothing was read yet. *First paint*: the page, its session and its first ports at once, the last of them. Yardsticks of the same run: the server's own bare answer, and the sum over the ledger that a page without rollups would make.",
		digits(c.Ports), digits(c.Rows), pageDays))
	s, err := newSystem()
	if err != nil {
		return err
	}
	defer s.remove()
	if err := s.run(ctx, "--roles", "consumer"); err != nil {
		return err
	}
	if err := c.fill(ctx, s.database()); err != nil {
		return err
	}
	s.stop()
	if err := s.run(ctx); err != nil {
		return err
	}
	v, err := newViewer(ctx, s, nil)
	if err != nil {
		return err
	}
	var busiest []string // whose overview is read for each request
	for i := range min(c.Ports, 200) {
		busiest = append(busiest, "port-"+strconv.Itoa(i+1))
	}
	some, err := newViewer(ctx, s, busiest)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, q := range []struct {
		name, bar string
		ask       func(context.Context) error
	}{
		{"first paint", "300 ms", v.paint},
		{"overview", "", v.get("/api/v1/overview")},
		{"overview of 200 ports", "", some.get("/api/v1/overview")},
		{"search, many found", "100 ms", v.get("/api/v1/ports?limit=50&q=harbour+77")},
		{"search, one found", "100 ms", v.get("/api/v1/ports?limit=50&q=port-" + strconv.Itoa(c.Ports))},
		{"search, none found", "100 ms", v.get("/api/v1/ports?limit=50&q=nowhere")},
		{"table, fullest first", "", v.get("/api/v1/ports?limit=50&sort=share")},
		{"table, at their hard cap", "", v.get("/api/v1/ports?limit=50&sort=share&state=hard")},
		{"a port's budget", "", v.get("/api/v1/ports/port-1/ai-budget")},
		{"a port's month by feature", "", v.get("/api/v1/ports/port-1/ai-usage/series?by=feature&step=day")},
		{"*bare answer*", "", v.get("/healthz")},
	} {
		first, rate, err := askAgain(ctx, q.ask)
		if err != nil {
			return fmt.Errorf("%s: %w", q.name, err)
		}
		rows = append(rows, []string{q.name, millis(first), millis(rate.p50), millis(rate.p99), q.bar})
	}
	naive, err := c.naive(ctx, s.database())
	if err != nil {
		return err
	}
	rows = append(rows, []string{"*sum over the ledger*", millis(naive), "", "", ""})
	r.table([]string{"", "first", "p50", "p99", "bar"}, rows)
	return nil
}

// askAgain asks once, and then for two seconds.
func askAgain(ctx context.Context, ask func(context.Context) error) (first time.Duration, again rate, err error) {
	var all []time.Duration
	for began := time.Now(); len(all) < 10 || time.Since(began) < measureAt; {
		start := time.Now()
		if err := ask(ctx); err != nil {
			return 0, rate{}, err
		}
		all = append(all, time.Since(start))
	}
	first, all = all[0], all[1:]
	slices.Sort(all)
	return first, rate{p50: quantile(all, 0.5), p99: quantile(all, 0.99)}, nil
}

// viewer asks what the page asks.
type viewer struct {
	base, token string
	client      http.Client
}

// newViewer may see some ports; nil: all.
func newViewer(ctx context.Context, s *system, ports []string) (*viewer, error) {
	nc, err := s.connect()
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	t, err := ops.NewClient(nc, time.Minute).CreateToken(ctx, ops.NewToken{Name: "bench", Permissions: []string{admin.View}, Ports: ports, CreatedBy: "bench"})
	if err != nil {
		return nil, err
	}
	return &viewer{base: "http://" + s.http, token: t.Secret}, nil
}

func (v *viewer) get(path string) func(context.Context) error {
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.base+path, nil)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+v.token)
		resp, err := v.client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", path, resp.Status)
		}
		return nil
	}
}

// paint is what a browser needs before it can show anything.
func (v *viewer) paint(ctx context.Context) error {
	if err := v.get("/")(ctx); err != nil {
		return err
	}
	var wg sync.WaitGroup
	var session, ports error
	wg.Go(func() { session = v.get("/api/v1/session")(ctx) })
	wg.Go(func() { ports = v.get("/api/v1/ports?limit=50")(ctx) })
	wg.Wait()
	if session != nil {
		return session
	}
	return ports
}

func (c *pageCmd) naive(ctx context.Context, url string) (time.Duration, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	began := time.Now()
	_, err = conn.Exec(ctx, "select port_id, sum(total_tokens) from ai_usage_ledger where created_at >= date_trunc('month', now()) group by port_id order by 2 desc limit 50")
	return time.Since(began), err
}

// fill makes what the calls would have left. Few ports make many of the calls, and most make few.
func (c *pageCmd) fill(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// Rows come before the keys, and their integrity is ours: one by one they would take an hour.
	statements := []string{
		"set session_replication_role = replica; set synchronous_commit = off; set work_mem = '128MB'; set maintenance_work_mem = '512MB'",
		"alter table ai_usage_totals drop constraint ai_usage_totals_pkey; alter table ai_usage_port_days drop constraint ai_usage_port_days_pkey",
		fmt.Sprintf("insert into ports (id, name) select 'port-' || n, 'Harbour ' || n * 7919 %% %d from generate_series(1, %[1]d) n", c.Ports),
		`insert into system_settings (port_id, key, value, version)
			select id, 'ai.budget', jsonb_build_object('enabled', true, 'soft_cap_tokens', 20000 + abs(hashtext(id)) % 40000, 'hard_cap_tokens', 60000 + abs(hashtext(id)) % 60000, 'period', 'month'), 1 from ports`,
	}
	today := time.Now().UTC().Truncate(24 * time.Hour)
	oldest := today.AddDate(0, 0, 1-pageDays)
	for month := oldest.AddDate(0, 0, 1-oldest.Day()); !month.After(today); month = month.AddDate(0, 1, 0) {
		table, first, last := "ai_usage_ledger_"+month.Format("2006_01"), later(month, oldest), month.AddDate(0, 1, -1)
		if last.After(today) {
			last = today
		}
		statements = append(statements,
			fmt.Sprintf("drop table if exists %s; create table %[1]s (like ai_usage_ledger including defaults including constraints)", table),
			fmt.Sprintf(`insert into %s (created_at, id, input_tokens, output_tokens, total_tokens, port_id, user_id, feature, provider, model)
				select day + random() * interval '1 second', gen_random_uuid(), 900, 100, 1000, 'port-' || 1 + floor(%d * random() * random())::int,
					'user' || n %% 50, (array['ocr', 'summary', 'reply_draft', 'embedding', 'agent', 'search'])[1 + n %% 6], 'anthropic', (array['claude-sonnet-4-5', 'claude-haiku-4-5', 'claude-opus-4-5'])[1 + n %% 3]
				from generate_series(timestamptz '%s 00:00Z', '%s 00:00Z', '1 day') day, generate_series(1, %d) n`, table, c.Ports, first.Format(time.DateOnly), last.Format(time.DateOnly), c.Rows/pageDays),
			fmt.Sprintf("alter table ai_usage_ledger attach partition %s for values from ('%s 00:00Z') to ('%s 00:00Z')", table, month.Format(time.DateOnly), month.AddDate(0, 1, 0).Format(time.DateOnly)),
			fmt.Sprintf(`insert into ai_usage_totals select port_id, (created_at at time zone 'UTC')::date, feature, provider, model, count(*), sum(input_tokens), sum(output_tokens), sum(total_tokens), 0, 0, 0
				from %s group by 1, 2, 3, 4, 5`, table))
	}
	statements = append(statements,
		"insert into ai_usage_port_days select port_id, day, sum(requests), sum(total_tokens) from ai_usage_totals group by port_id, day",
		"alter table ai_usage_totals add primary key (port_id, day, feature, provider, model); alter table ai_usage_port_days add primary key (port_id, day)")
	for _, sql := range append(statements, "vacuum analyze", "checkpoint") {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%.60s: %w", sql, err)
		}
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
