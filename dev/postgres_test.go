package dev_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/dev"
	"github.com/tidegate/tidegate/internal/testenv"
)

func programContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), programLifetime)
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func query[T any](t *testing.T, url, sql string) T {
	t.Helper()
	var v T
	if err := connect(t, url).QueryRow(t.Context(), sql).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func TestPostgresIsDurableAndPrivate(t *testing.T) {
	t.Parallel()
	pg, err := dev.StartPostgres(t.Context(), dev.PostgresConfig{Dir: filepath.Join(t.TempDir(), "a b+c%41")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pg.Stop(context.Background()) })
	got := map[string]string{}
	want := map[string]string{
		"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "data_checksums": "on",
		"listen_addresses": "", "TimeZone": "UTC", "server_encoding": "UTF8", "lc_collate": "C",
	}
	for setting := range want {
		got[setting] = query[string](t, pg.URL(), "SHOW "+setting)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
	u, err := url.Parse(pg.URL())
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(u.Query().Get("host"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("the socket's directory has mode %o: others could connect", info.Mode().Perm())
	}
	if pgid, err := syscall.Getpgid(pg.PID()); err != nil || pgid == syscall.Getpgrp() {
		t.Errorf("Postgres is in our process group (%d, %v): Ctrl-C would stop it before the last batch", pgid, err)
	}
	out, err := exec.Command("psql", "--no-psqlrc", "-Atc", "SELECT current_database()", pg.URL()).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "tidegate" {
		t.Errorf("psql %s: %v, %q", pg.URL(), err, out)
	}
}

func TestPostgresKeepsCommittedRowsThroughKill9(t *testing.T) {
	t.Parallel()
	dir := testenv.Cluster(t)
	var committed uint64
	for range 2 {
		program := startProgram(t, "write-rows", dir)
		postmaster := int(number(t, program.line(t)))
		for range 50 {
			committed = number(t, program.line(t))
		}
		if last := program.kill(t); last != "" {
			committed = number(t, last)
		}
		program.cmd.Wait()
		testenv.Eventually(t, "Postgres ends with the process that started it", func() bool { return !alive(postmaster) })

		pg := startPostgres(t, dir)
		if rows := query[uint64](t, pg.URL(), "SELECT max(n) FROM letters"); rows < committed || rows > committed+1 {
			t.Fatalf("row %d committed, row %d is the last there", committed, rows)
		}
		if err := pg.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// A new Tidegate may be faster than the end of the killed one's Postgres.
func TestPostgresStartsRightAfterKill9(t *testing.T) {
	t.Parallel()
	dir := testenv.Cluster(t)
	program := startProgram(t, "write-rows", dir)
	program.line(t)
	committed := number(t, program.line(t))
	program.kill(t)
	program.cmd.Wait()
	pg := startPostgres(t, dir)
	if rows := query[uint64](t, pg.URL(), "SELECT max(n) FROM letters"); rows < committed {
		t.Fatalf("row %d committed, row %d is the last there", committed, rows)
	}
}

// writeRows commits rows until killed; it prints the server's pid and then the
// number of each committed row.
func writeRows(dir string) error {
	ctx, cancel := programContext()
	defer cancel()
	pg, err := dev.StartPostgres(ctx, dev.PostgresConfig{Dir: dir})
	if err != nil {
		return err
	}
	fmt.Println(pg.PID())
	conn, err := pgx.Connect(ctx, pg.URL())
	if err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "CREATE TABLE IF NOT EXISTS letters (n bigint GENERATED ALWAYS AS IDENTITY)"); err != nil {
		return err
	}
	for {
		var n int64
		if err := conn.QueryRow(ctx, "INSERT INTO letters DEFAULT VALUES RETURNING n").Scan(&n); err != nil {
			return err
		}
		fmt.Println(n)
	}
}

func TestPostgresComesBackWhenItDiesByItself(t *testing.T) {
	t.Parallel()
	pg := testenv.PrivatePostgres(t)
	conn := connect(t, pg.URL())
	if _, err := conn.Exec(t.Context(), "CREATE TABLE letters AS SELECT generate_series(1, 1000) AS n"); err != nil {
		t.Fatal(err)
	}
	for _, sig := range []syscall.Signal{syscall.SIGQUIT, syscall.SIGKILL, syscall.SIGINT} {
		died := pg.PID()
		if err := syscall.Kill(died, sig); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, "another server answers", func() bool {
			if pg.PID() == died || pg.PID() == 0 {
				return false
			}
			conn, err := pgx.Connect(t.Context(), pg.URL())
			if err != nil {
				return false
			}
			defer conn.Close(t.Context())
			var n int
			return conn.QueryRow(t.Context(), "SELECT count(*) FROM letters").Scan(&n) == nil && n == 1000
		})
	}
}

func TestPostgresKilledStaysDownUntilRestart(t *testing.T) {
	t.Parallel()
	pg := testenv.PrivatePostgres(t)
	conn := connect(t, pg.URL())
	if _, err := conn.Exec(t.Context(), "CREATE TABLE letters AS SELECT 1 AS n"); err != nil {
		t.Fatal(err)
	}
	if err := pg.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := conn.Ping(t.Context()); err == nil {
		t.Error("a session outlived Kill")
	}
	time.Sleep(300 * time.Millisecond) // longer than the first pause before a start
	if _, err := pgx.Connect(t.Context(), pg.URL()); err == nil || pg.PID() != 0 {
		t.Errorf("it came back without Restart (pid %d, %v)", pg.PID(), err)
	}
	for range 2 { // the second time it runs
		if err := pg.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := query[int](t, pg.URL(), "SELECT n FROM letters"); n != 1 {
			t.Errorf("after Restart the table holds %d", n)
		}
	}
}

func TestPostgresStopCutsSessionsAndEndsAll(t *testing.T) {
	t.Parallel()
	pg := startPostgres(t, testenv.Cluster(t))
	conn := connect(t, pg.URL())
	pid, begin := pg.PID(), time.Now()
	if err := pg.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("Stop took %s", took)
	}
	if alive(pid) {
		t.Error("the server still runs after Stop")
	}
	if conn.Ping(t.Context()) == nil {
		t.Error("a session outlived Stop")
	}
	if err := pg.Stop(t.Context()); err != nil {
		t.Errorf("a second Stop: %v", err)
	}
}

func TestPostgresStopIsHardWhenTimeIsUp(t *testing.T) {
	t.Parallel()
	dir := testenv.Cluster(t)
	pg := startPostgres(t, dir)
	pid := pg.PID()
	if _, err := connect(t, pg.URL()).Exec(t.Context(), "CREATE TABLE letters AS SELECT 1 AS n"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("no time at all"))
	wantError(t, pg.Stop(ctx), "no time at all", "stopped hard")
	if alive(pid) {
		t.Error("the server still runs")
	}
	if n := query[int](t, startPostgres(t, dir).URL(), "SELECT n FROM letters"); n != 1 {
		t.Errorf("after a hard stop the table holds %d", n)
	}
}

// startAndStop is a whole life as the user that runs it.
func startAndStop(dir string) error {
	ctx, cancel := programContext()
	defer cancel()
	for range 2 {
		pg, err := dev.StartPostgres(ctx, dev.PostgresConfig{Dir: dir})
		if err != nil {
			return err
		}
		conn, err := pgx.Connect(ctx, pg.URL())
		if err != nil {
			return errors.Join(err, pg.Stop(ctx))
		}
		if err := errors.Join(conn.Close(ctx), pg.Stop(ctx)); err != nil {
			return err
		}
	}
	return nil
}
