package admin_test

import (
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// BenchmarkUsageByFeature asks, over HTTP and with an API token, for the breakdown
// of a port whose totals stand for ten million calls of this year: 6 features by 3
// models on each of 326 days, 552 rows in the month asked for, beside 1,000 other
// ports with a month each. The ledger itself holds 200,000 of the calls: no
// statement of this request reads it, so the rest would only take up space.
func BenchmarkUsageByFeature(b *testing.B) {
	w := newWorld(b)
	db, err := pgx.Connect(b.Context(), w.dbURL)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close(b.Context())
	if err := w.ledger.Maintain(b.Context(), noon); err != nil {
		b.Fatal(err)
	}
	for _, sql := range []string{
		"insert into ports (id) select 'p1' union all select 'other' || n from generate_series(1, 1000) n",
		`insert into ai_usage_totals select 'p1', day, 'feature' || f, 'anthropic', 'model' || m, 1704, 2000000, 700000, 2700000, 0, 0, 0
			from generate_series(date '2026-01-01', date '2026-11-22', '1 day') day, generate_series(1, 6) f, generate_series(1, 3) m`,
		`insert into ai_usage_totals select 'other' || n, day, 'feature' || f, 'anthropic', 'model1', 100, 200000, 70000, 270000, 0, 0, 0
			from generate_series(1, 1000) n, generate_series(date '2026-10-24', date '2026-11-22', '1 day') day, generate_series(1, 6) f`,
		`insert into ai_usage_ledger (created_at, id, input_tokens, output_tokens, total_tokens, port_id, feature, provider, model)
			select timestamptz '2026-11-01Z' + n * interval '9 seconds', gen_random_uuid(), 1200, 400, 1600, 'p1', 'feature' || n % 6, 'anthropic', 'model1' from generate_series(1, 200000) n`,
		"vacuum analyze",
	} {
		if _, err := db.Exec(b.Context(), sql); err != nil {
			b.Fatal(err)
		}
	}
	req, err := http.NewRequestWithContext(b.Context(), "GET", w.URL+"/api/v1/ports/p1/ai-usage?by=feature", nil)
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.all)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		response, err := client.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		took = append(took, time.Since(start))
		if response.Body.Close(); err != nil || response.StatusCode != http.StatusOK || len(body) < 500 {
			b.Fatalf("%d %s %v", response.StatusCode, body, err)
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}
