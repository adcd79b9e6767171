package migrations_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/migrations"
)

// applyVar makes this test binary a process that applies the migrations to the
// database it names, and nothing else.
const applyVar = "TIDEGATE_TEST_APPLY"

func TestMain(m *testing.M) {
	if url := os.Getenv(applyVar); url != "" {
		if err := migrations.Apply(context.Background(), url); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	testenv.Main(m)
}

func connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func run(t testing.TB, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// schema is everything that the migrations made, in words.
func schema(t testing.TB, url string) []string {
	t.Helper()
	rows, err := connect(t, url).Query(t.Context(), `
		select 'column ' || table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable || ' ' || coalesce(column_default, '')
			from information_schema.columns where table_schema = 'public'
		union all select 'index ' || indexdef from pg_indexes where schemaname = 'public'
		union all select 'constraint ' || conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) from pg_constraint where connamespace = 'public'::regnamespace
		union all select 'trigger ' || pg_get_triggerdef(oid) from pg_trigger where not tgisinternal
		union all select 'version ' || version from schema_version
		order by 1`)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestApplyTwice(t *testing.T) {
	t.Parallel()
	url := testenv.EmptyDatabase(t)
	var first []string
	for n := range 3 {
		if err := migrations.Apply(t.Context(), url); err != nil {
			t.Fatalf("time %d: %v", n+1, err)
		}
		if n == 0 {
			first = schema(t, url)
		}
	}
	if diff := cmp.Diff(first, schema(t, url)); diff != "" {
		t.Errorf("applying again changed (-first +then):\n%s", diff)
	}
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	versions := 0
	for _, f := range files {
		if strings.HasSuffix(f.Name(), ".sql") {
			versions++
		}
	}
	var version int
	if err := connect(t, url).QueryRow(t.Context(), "select version from schema_version").Scan(&version); err != nil || version != versions {
		t.Errorf("the schema has version %d, %v, want one for each of %d files", version, err, versions)
	}
}

// Several goroutines and several processes start on an empty database at once.
func TestApplyAtOnce(t *testing.T) {
	t.Parallel()
	want := schema(t, testenv.Database(t))
	for _, c := range []struct {
		name                  string
		goroutines, processes int
	}{{"two goroutines", 2, 0}, {"eight goroutines", 8, 0}, {"two processes", 0, 2}, {"eight of both", 4, 4}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			url := testenv.EmptyDatabase(t)
			start := make(chan struct{})
			var wg sync.WaitGroup
			for range c.goroutines {
				wg.Go(func() {
					<-start
					if err := migrations.Apply(t.Context(), url); err != nil {
						t.Error(err)
					}
				})
			}
			for range c.processes {
				wg.Go(func() {
					<-start
					cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
					cmd.Env = append(os.Environ(), applyVar+"="+url)
					if out, err := cmd.CombinedOutput(); err != nil {
						t.Errorf("a process: %v\n%s", err, out)
					}
				})
			}
			close(start)
			wg.Wait()
			if diff := cmp.Diff(want, schema(t, url)); diff != "" {
				t.Errorf("schema (-applied alone +at once):\n%s", diff)
			}
		})
	}
}

// One that comes while another works waits for it, and gives up when its caller does, or
// when its session is ended, which another try may survive.
func TestApplyWaitsAndCanBeCancelled(t *testing.T) {
	t.Parallel()
	url := testenv.EmptyDatabase(t)
	other := connect(t, url)
	run(t, other, "select pg_advisory_lock(x'71de6a7e'::int)")
	const waiting = "from pg_stat_activity where datname = current_database() and wait_event = 'advisory'"
	apply := func(ctx context.Context) chan error {
		result := make(chan error, 1)
		go func() { result <- migrations.Apply(ctx, url) }()
		testenv.Eventually(t, "it waits for the lock", func() bool { return one[int](t, other, "select count(*)::int "+waiting) == 1 })
		return result
	}
	ctx, cancel := context.WithCancel(t.Context())
	result := apply(ctx)
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) || migrations.MayPass(err) {
		t.Errorf("cancelled while it waits: %v", err)
	}
	testenv.Eventually(t, "it does not wait any more", func() bool { return one[int](t, other, "select count(*)::int "+waiting) == 0 })
	result = apply(t.Context())
	run(t, other, "select pg_terminate_backend(pid) "+waiting)
	if err := <-result; !migrations.MayPass(err) {
		t.Errorf("its session is ended: %v, want it to be tried again", err)
	}
	if got := one[int](t, other, "select count(*)::int from pg_tables where schemaname = 'public'"); got != 0 {
		t.Errorf("it made %d tables although another one held the lock", got)
	}
	run(t, other, "select pg_advisory_unlock_all()")
	if err := migrations.Apply(t.Context(), url); err != nil {
		t.Error(err)
	}
}

func one[T any](t testing.TB, conn *pgx.Conn, sql string) (v T) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), sql).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func TestNewerSchemaIsRefused(t *testing.T) {
	t.Parallel()
	url := testenv.Database(t)
	conn := connect(t, url)
	run(t, conn, "update schema_version set version = version + 1")
	before := schema(t, url)
	err := migrations.Apply(t.Context(), url)
	if err == nil || !strings.Contains(err.Error(), "newer tidegate") || migrations.MayPass(err) {
		t.Errorf("a database of a newer Tidegate: %v, want it refused with what to do", err)
	}
	if diff := cmp.Diff(before, schema(t, url)); diff != "" {
		t.Errorf("the refusal changed (-before +after):\n%s", diff)
	}
}

// A migration that fails leaves nothing of itself.
func TestFailedMigrationIsRolledBack(t *testing.T) {
	t.Parallel()
	url := testenv.EmptyDatabase(t)
	run(t, connect(t, url), "create table ai_alerts ()") // in the way of the first
	if err := migrations.Apply(t.Context(), url); err == nil || !strings.Contains(err.Error(), "ai_alerts") {
		t.Fatalf("Apply: %v, want that ai_alerts exists", err)
	}
	conn := connect(t, url)
	if got := one[int](t, conn, "select count(*)::int from pg_tables where schemaname = 'public' and tablename not in ('ai_alerts', 'schema_version')"); got != 0 {
		t.Errorf("%d tables are left of a failed migration", got)
	}
	run(t, conn, "drop table ai_alerts")
	if err := migrations.Apply(t.Context(), url); err != nil {
		t.Errorf("with the obstacle gone: %v", err)
	}
}

func TestApplySaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	if err := migrations.Apply(t.Context(), "postgres://127.0.0.1:1/none"); err == nil || !strings.HasPrefix(err.Error(), "migrations: connect to Postgres: ") || !migrations.MayPass(err) {
		t.Errorf("no server: %v", err)
	}
}

func TestAuditLogIsAppendOnly(t *testing.T) {
	t.Parallel()
	conn := connect(t, testenv.Database(t))
	insert := "insert into system_settings_audit (port_id, key, version, new_value) values ('p1', 'ai.budget', 1, '{}')"
	run(t, conn, insert)
	for _, change := range []string{
		"update system_settings_audit set changed_by = 'nobody'",
		"delete from system_settings_audit",
		"delete from system_settings_audit where false",
		"truncate system_settings_audit",
		"insert into system_settings_audit (id, port_id, key, version) overriding system value values (1, 'p1', 'k', 1) on conflict do nothing; delete from system_settings_audit",
	} {
		wantState(t, conn, change, "23001")
	}
	run(t, conn, insert)
	if got := one[int](t, conn, "select count(*)::int from system_settings_audit where changed_by = ''"); got != 2 {
		t.Errorf("%d rows as they were written, want 2", got)
	}
}

// wantState checks that Postgres refuses a statement.
func wantState(t testing.TB, conn *pgx.Conn, sql, state string) {
	t.Helper()
	var pg *pgconn.PgError
	if _, err := conn.Exec(t.Context(), sql); !errors.As(err, &pg) || pg.Code != state {
		t.Errorf("%s: %v, want SQLSTATE %s", sql, err, state)
	}
}

func TestPortIDs(t *testing.T) {
	t.Parallel()
	conn := connect(t, testenv.Database(t))
	for _, id := range []string{"p", "P-1_x", "0", "-", "_", strings.Repeat("p", 64)} {
		if _, err := conn.Exec(t.Context(), "insert into ports (id) values ($1)", id); err != nil {
			t.Errorf("%q: %v", id, err)
		}
	}
	for _, id := range []string{"", " ", "p 1", "p.1", "p*", ">", "pört", "p1\n", "\np1", "p1\nq", strings.Repeat("p", 65), "p/1", "p'1", "é"} {
		var pg *pgconn.PgError
		_, err := conn.Exec(t.Context(), "insert into ports (id) values ($1)", id)
		if !errors.As(err, &pg) || pg.ConstraintName != "ports_id_check" {
			t.Errorf("%q: %v, want it refused", id, err)
		}
	}
	wantState(t, conn, "insert into ports (id) values (null)", "23502")
	wantState(t, conn, "insert into ports (id) values ('p')", "23505")
}

// What the tables themselves enforce, whatever program writes to them.
func TestIntegrityOfTheTables(t *testing.T) {
	t.Parallel()
	conn := connect(t, testenv.Database(t))
	run(t, conn, "create table ai_usage_ledger_all partition of ai_usage_ledger default")
	run(t, conn, "insert into ports (id) values ('p1'), ('p2')")
	row := "insert into ai_usage_ledger (created_at, id, input_tokens, output_tokens, total_tokens, port_id, feature, provider, model) values "
	id := "'0199c0de-0000-7000-8000-000000000001'"
	run(t, conn, row+"('2026-11-23', "+id+", 1, 2, 3, 'p1', 'f', 'p', 'm')")
	run(t, conn, row+"('2026-11-23', "+id+", 1, 2, 3, 'p2', 'f', 'p', 'm')")
	wantState(t, conn, row+"('2026-11-23', "+id+", 1, 2, 3, 'p1', 'f', 'p', 'm')", "23505")
	wantState(t, conn, row+"('2026-11-24', "+id+", 1, 2, 4, 'p1', 'f', 'p', 'm')", "23514")
	for _, totals := range []string{
		"insert into ai_usage_totals values ('p9', '2026-11-23', 'f', 'p', 'm', 1, 1, 2, 3, 0, 0, 0)",
		"insert into ai_usage_port_days values ('p9', '2026-11-23', 1, 3)",
		"insert into system_settings (port_id, key, value, version) values ('p9', 'k', '{}', 1)",
		"insert into ai_alerts (port_id, period, period_start, threshold, reached, used, noticed_at, claimed_until) values ('p9', 'day', '2026-11-23', 'soft', 1, 1, now(), now())",
	} {
		wantState(t, conn, totals, "23503")
		run(t, conn, strings.Replace(totals, "p9", "p1", 1))
		run(t, conn, strings.Replace(totals, "p9", "p2", 1))
	}
	const limitAlert = "insert into ai_alerts (port_id, counter, limit_name, period, period_start, threshold, reached, used, noticed_at, claimed_until) values ('p2', %s, 'a', 'hour', '2026-11-24', %s, 1, 1, now(), now())"
	run(t, conn, fmt.Sprintf(limitAlert, "7", "'80%'"))
	wantState(t, conn, fmt.Sprintf(limitAlert, "0", "'80%'"), "23514")
	wantState(t, conn, fmt.Sprintf(limitAlert, "7", "'half'"), "23514")
	run(t, conn, "delete from ai_alerts where counter = 7")
	wantState(t, conn, "insert into ai_alerts (port_id, period, period_start, threshold, reached, used, noticed_at, claimed_until) values ('p1', 'day', '2026-11-24', 'medium', 1, 1, now(), now())", "23514")

	// Whoever deletes a port, by whatever way, takes everything of it and nothing else.
	run(t, conn, "delete from ports where id = 'p1'")
	for _, table := range []string{"ai_usage_ledger", "ai_usage_totals", "ai_usage_port_days", "system_settings", "ai_alerts"} {
		if got := one[string](t, conn, "select coalesce(string_agg(port_id, ' '), '') from "+table); got != "p2" {
			t.Errorf("%s holds rows of %q, want p2's one", table, got)
		}
	}
}

// Whatever is wrong with an address, the error shows no password.
func TestAddressesThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"postgres://u:s3cret h/db", "postgres://u:s3%zzcret@h/db", "host=h password=s3cret port=abc", "host=h password = s3cret port=abc",
		`password=s3\ cret port=a host=h`, "Password=s3cret port=a", "u:s3cret@h/db", "postgres://h:1/db?sslpassword=s3cret&sslmode=x", "postgres://u:s3`: cret h:x/db", "host=h sslcert=s3cret sslmode=verify-full"} {
		err := migrations.Apply(t.Context(), address)
		if err == nil || strings.Contains(err.Error(), "s3") || strings.Contains(err.Error(), "cret") || !strings.Contains(err.Error(), "cannot be parsed") {
			t.Errorf("%s: %v", address, err)
		}
	}
}
