package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/admin/ops"
)

type scaleCmd struct {
	Ports int    `default:"1000000"`
	Days  int    `default:"10" help:"Days of the current month, or before it, on which each port made a call."`
	Data  string `help:"Keep the filled database here, or use the one that is there, so that builds can take turns over it. It must be this month's." type:"path" placeholder:"DIR"`
}

// Run fills a database, starts Tidegate on it and verifies it. CPU seconds stand beside the
// others, since both share the machine with whatever else runs.
func (c *scaleCmd) Run(ctx context.Context, r *report) error {
	r.section("Scale: cold start and verify", fmt.Sprintf("%s ports, each with a budget and a call on each of %d days: %s ledger rows, totals and port days. "+
		"`start`: from `tidegate run`, servers and all roles included, to ready. `verify`: the ledger against its rollups, then against the gate. Postgres' CPU includes its workers.",
		digits(c.Ports), c.Days, digits(c.Ports*c.Days)))
	s, filled, end, err := keptSystem(c.Data)
	if err != nil {
		return err
	}
	defer end()
	if !filled {
		if err := s.run(ctx, "--roles", "consumer"); err != nil {
			return err
		}
		if err := c.fill(ctx, s.database()); err != nil {
			return err
		}
		s.stop()
	}
	var starts, startCPUs, verifies, verifyCPUs []float64
	for range r.runs {
		began := time.Now()
		if err := s.run(ctx); err != nil {
			return err
		}
		starts = append(starts, time.Since(began).Seconds())
		startCPUs = append(startCPUs, cpuSeconds(s.procs[0].Process.Pid))
		took, cpu, err := c.verify(ctx, s)
		if err != nil {
			return err
		}
		verifies, verifyCPUs = append(verifies, took.Seconds()), append(verifyCPUs, cpu)
		s.stop()
	}
	seconds := func(f float64) string { return fmt.Sprintf("%.1f s", f) }
	r.table([]string{"", "time", "CPU"}, [][]string{{"start", seconds(median(starts)), seconds(median(startCPUs))}, {"verify", seconds(median(verifies)), seconds(median(verifyCPUs))}})
	return nil
}

func (c *scaleCmd) verify(ctx context.Context, s *system) (took time.Duration, cpu float64, err error) {
	nc, err := s.connect()
	if err != nil {
		return 0, 0, err
	}
	defer nc.Close()
	began, before := time.Now(), cpuSeconds(s.procs[0].Process.Pid)
	v, err := ops.NewClient(nc, time.Hour).Verify(ctx, nil)
	if err == nil && (!v.OK || v.Rows != int64(c.Ports*c.Days)) {
		err = fmt.Errorf("verify does not agree: %+v", v)
	}
	return time.Since(began), cpuSeconds(s.procs[0].Process.Pid) - before, err
}

// fill makes what the calls would have left, much in the order in which they would have: a day
// after the other, and the ports of a day in no order.
func (c *scaleCmd) fill(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	statements := []string{
		"set session_replication_role = replica", // no foreign key is looked up: all are right
		fmt.Sprintf("insert into ports (id) select 'port-' || n from generate_series(1, %d) n", c.Ports),
		`insert into system_settings (port_id, key, value, version)
			select id, 'ai.budget', '{"enabled":true,"soft_cap_tokens":800000,"hard_cap_tokens":1000000,"period":"month"}', 1 from ports`,
	}
	last := time.Now().UTC().Truncate(24 * time.Hour)
	for d := c.Days - 1; d >= 0; d-- {
		at := last.AddDate(0, 0, -d)
		day, month := at.Format("2006-01-02"), at.Format("2006_01")
		statements = append(statements,
			fmt.Sprintf(`create table if not exists ai_usage_ledger_%s partition of ai_usage_ledger for values from ('%s-01 00:00Z') to ('%s-01 00:00Z')`, month, at.Format("2006-01"), at.AddDate(0, 1, 1-at.Day()).Format("2006-01")),
			fmt.Sprintf(`insert into ai_usage_ledger (created_at, id, input_tokens, output_tokens, total_tokens, port_id, feature, provider, model, request_id, response_id)
				select timestamptz '%s 00:00Z' + random() * interval '1 second', gen_random_uuid(), 900, 100, 1000, id, 'ocr', 'anthropic', 'claude-haiku-4-5', 'req_' || hashtext(id), 'msg_' || hashtext(id)
				from ports order by hashtext(id || '%s')`, day, day),
			fmt.Sprintf("insert into ai_usage_totals select id, '%s', 'ocr', 'anthropic', 'claude-haiku-4-5', 1, 900, 100, 1000, 0, 0, 0 from ports order by hashtext(id || '%[1]s')", day),
			fmt.Sprintf("insert into ai_usage_port_days select id, '%s', 1, 1000 from ports order by hashtext(id || '%[1]s')", day))
	}
	for _, sql := range append(statements, "vacuum analyze", "checkpoint") {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%.60s: %w", sql, err)
		}
	}
	return nil
}
