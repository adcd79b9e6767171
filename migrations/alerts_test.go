package migrations_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/migrations"
)

// applyBefore brings an empty database to the schema before the migration of that name.
func applyBefore(t testing.TB, conn *pgx.Conn, name string) {
	t.Helper()
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	version := 0
	for _, f := range files { // sorted by name
		if !strings.HasSuffix(f.Name(), ".sql") {
			continue
		}
		if strings.HasSuffix(f.Name(), "_"+name+".sql") {
			run(t, conn, "create table schema_version (version int4 not null)")
			if _, err := conn.Exec(t.Context(), "insert into schema_version values ($1)", version); err != nil {
				t.Fatal(err)
			}
			return
		}
		sql, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		run(t, conn, string(sql))
		version++
	}
	t.Fatalf("there is no migration %s", name)
}

// Alerts of an older schema say what was reached when they were claimed. One that was
// never published is kept while its period lasts.
func TestAlertsOfBeforeGetTheirCaps(t *testing.T) {
	t.Parallel()
	url := testenv.EmptyDatabase(t)
	conn := connect(t, url)
	applyBefore(t, conn, "alerts")
	run(t, conn, `
		insert into ports (id) values ('p1'), ('p2'), ('p3');
		insert into system_settings_audit (port_id, key, version, new_value, changed_at) values
			('p1', 'ai.budget', 1, '{"period":"month","soft_cap_tokens":800,"hard_cap_tokens":1000}', now() - interval '3 hours'),
			('p1', 'ai.budget', 2, '{"period":"month","soft_cap_tokens":900,"hard_cap_tokens":2000}', now() - interval '1 hour'),
			('p2', 'ai.budget', 1, '{"period":"month","soft_cap_tokens":null,"hard_cap_tokens":500}', now() - interval '99 days');
		insert into ai_alerts (port_id, period, period_start, cap, claimed_at, published_at) values
			('p1', 'month', date_trunc('month', now(), 'UTC'), 'soft', now() - interval '30 minutes', now()),
			('p1', 'month', date_trunc('month', now(), 'UTC'), 'hard', now() - interval '2 hours', now()),
			('p2', 'month', date_trunc('month', now(), 'UTC'), 'hard', now() - interval '1 hour', null),
			('p2', 'month', date_trunc('month', now(), 'UTC') - interval '2 months', 'hard', now() - interval '60 days', null),
			('p3', 'day', date_trunc('day', now(), 'UTC'), 'soft', now(), now())`)
	if err := migrations.Apply(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	rows, err := conn.Query(t.Context(), `select concat_ws(' ', port_id, limit_name || counter || limit_value, unit, threshold, reached, used, published_at is not null, claimed_until - noticed_at)
		from ai_alerts order by port_id, threshold desc`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"p1 port0 tokens soft 900 900 t 00:00:15", "p1 port0 tokens hard 1000 1000 t 00:00:15", "p2 port0 tokens hard 500 500 f 00:00:15", "p3 port0 tokens soft 0 0 t 00:00:15"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("alerts (-want +got):\n%s", diff)
	}
}
