package ledger_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tidegate/tidegate/events"
)

// fillMonth gives "big" and 200 other ports a million calls each side in October
// 2026, as consumers would have booked them: batches of 5,000, sorted by port. The
// sizes are spread like those of real calls, from 436 to 8,136 tokens, and one call
// in a hundred has none.
func fillMonth(b *testing.B, s store) {
	b.Helper()
	if err := s.Maintain(b.Context(), time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC)); err != nil {
		b.Fatal(err)
	}
	for _, sql := range []string{
		"select setseed(0.5)",
		"insert into ports (id) select 'big' union all select 'p' || n from generate_series(0, 199) n",
		`insert into ai_usage_ledger (created_at, id, input_tokens, output_tokens, total_tokens, port_id, feature, provider, model, user_id, request_id, response_id)
		select at, gen_random_uuid(), t, case when t = 0 then 0 else 33 end, case when t = 0 then 0 else t + 33 end, port,
			(array['ocr', 'summary', 'embedding', 'reply_draft'])[1 + i % 4], 'anthropic', 'claude-sonnet', 'u' || i % 500, 'req_' || md5(i::text), 'msg_' || md5(i::text)
		from (select i, timestamptz '2026-10-01 00:00Z' + i * interval '1.339 seconds' as at,
				case when random() < 0.01 then 0 else exp(6 + random() * 3)::bigint end as t,
				case when i % 2 = 0 then 'big' else 'p' || (random() * 199)::int end as port
			from generate_series(0, 1999999) i) calls
		order by i / 5000, port, at`,
		`insert into ai_usage_port_days select port_id, (created_at at time zone 'UTC')::date, count(*), sum(total_tokens) from ai_usage_ledger group by 1, 2`,
		"vacuum analyze ai_usage_ledger", "analyze ai_usage_port_days",
	} {
		if _, err := s.db.Exec(b.Context(), sql); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSimulate: a million calls of one port in the month, a million of others
// beside them. The cap is given as the part of the month's tokens that it allows.
func BenchmarkSimulate(b *testing.B) {
	s := newStore(b)
	fillMonth(b, s)
	from, to := events.PeriodMonth.Bounds(time.Date(2026, 10, 15, 0, 0, 0, 0, time.UTC))
	spend, err := s.Spend(b.Context(), "big", from, to)
	if err != nil {
		b.Fatal(err)
	}
	run := func(name string, period events.Period, hard int64, from, to time.Time) {
		b.Run(name, func(b *testing.B) {
			budget := events.Budget{Period: period, HardCapTokens: &hard, SoftCapTokens: new(hard * 8 / 10)}
			var took []time.Duration
			for b.Loop() {
				start := time.Now()
				if _, err := s.Simulate(b.Context(), "big", budget, from, to); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
	for _, percent := range []int64{2, 50, 95, 120} {
		run(fmt.Sprintf("month/cap=%d%%", percent), events.PeriodMonth, spend.UsedTokens*percent/100, from, to)
	}
	// The same calls under a budget by the day: 31 periods, each crossing its cap.
	run("days/cap=50%", events.PeriodDay, spend.UsedTokens/31/2, from, to)
	b.Run("one-day", func(b *testing.B) {
		// All million within one day.
		for _, sql := range []string{
			"update ai_usage_ledger set created_at = timestamptz '2026-10-10 00:00Z' + (created_at - timestamptz '2026-10-01 00:00Z') / 31 where port_id = 'big'",
			"delete from ai_usage_port_days where port_id = 'big'",
			"insert into ai_usage_port_days select port_id, (created_at at time zone 'UTC')::date, count(*), sum(total_tokens) from ai_usage_ledger where port_id = 'big' group by 1, 2",
			"vacuum analyze ai_usage_ledger",
		} {
			if _, err := s.db.Exec(b.Context(), sql); err != nil {
				b.Fatal(err)
			}
		}
		day, next := events.PeriodDay.Bounds(time.Date(2026, 10, 10, 0, 0, 0, 0, time.UTC))
		for _, percent := range []int64{2, 50, 95} {
			hard := spend.UsedTokens * percent / 100
			b.Run(fmt.Sprintf("cap=%d%%", percent), func(b *testing.B) {
				for b.Loop() {
					if _, err := s.Simulate(b.Context(), "big", events.Budget{Period: events.PeriodDay, HardCapTokens: &hard}, day, next); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	})
}
