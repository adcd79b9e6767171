package cluster

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/dev"
	"github.com/tidegate/tidegate/internal/testenv"
)

// pair is two Postgres, of which one is the primary and the other its standby.
type pair struct {
	t         *testing.T
	passwords map[string]string
	dirs      [2]string
	servers   [2]*dev.Postgres
	primary   int
}

// startPair makes a primary by deploy/cluster/primary.sh and a standby by standby.sh.
func startPair(t *testing.T, passwords map[string]string) *pair {
	t.Helper()
	p := &pair{t: t, passwords: passwords, dirs: [2]string{openDir(t), openDir(t)}}
	if allFaults() {
		for _, dir := range p.dirs {
			ownDisk(t, dir)
		}
	}
	p.start(0)
	cmd := exec.Command(filepath.Join(deploy, "cluster", "primary.sh"))
	cmd.Env = append(os.Environ(), "PGHOST="+socket(p.servers[0]), "PGDATA="+p.data(0), "POSTGRES_USER=tidegate", "POSTGRES_DB=postgres",
		"POSTGRES_REPLICATION_PASSWORD="+passwords["POSTGRES_REPLICATION_PASSWORD"])
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("primary.sh: %v\n%s", err, out)
	}
	p.addStandby()
	p.query(0, "select pg_reload_conf()")
	testenv.Eventually(t, "commits wait for the standby", func() bool { return p.standbyIs("quorum") })
	return p
}

// openDir is a directory that the user may enter as whom Postgres runs.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (p *pair) data(i int) string { return filepath.Join(p.dirs[i], "data") }

func (p *pair) start(i int) {
	p.t.Helper()
	pg, err := dev.StartPostgres(p.t.Context(), dev.PostgresConfig{Dir: p.dirs[i], NoSync: true})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = pg.Stop(context.Background()) })
	p.servers[i] = pg
}

// addStandby makes the server that is not the primary its standby, from nothing.
func (p *pair) addStandby() {
	p.t.Helper()
	i, bin := 1-p.primary, openDir(p.t)
	if p.servers[i] != nil {
		_ = p.servers[i].Stop(p.t.Context())
	}
	owner := testenv.Must(os.Stat(p.data(p.primary))).Sys().(*syscall.Stat_t)
	for _, err := range []error{
		os.RemoveAll(p.data(i)), os.Mkdir(p.data(i), 0o700), os.Chown(p.data(i), int(owner.Uid), int(owner.Gid)),
		os.WriteFile(filepath.Join(bin, "docker-entrypoint.sh"), []byte("#!/bin/sh\n"), 0o755),
		os.WriteFile(filepath.Join(bin, "standby.sh"), testenv.Must(os.ReadFile(filepath.Join(deploy, "cluster", "standby.sh"))), 0o755),
	} {
		if err != nil {
			p.t.Fatal(err)
		}
	}
	places, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	cmd := exec.Command(filepath.Join(bin, "standby.sh"), "postgres")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}}
	cmd.Env = []string{"PATH=" + strings.Join(append([]string{bin}, append(places, os.Getenv("PATH"))...), ":"), "PGDATA=" + p.data(i), fmt.Sprintf("POSTGRES_NAME=postgres_%d", i+1),
		"POSTGRES_PRIMARY=" + socket(p.servers[p.primary]), "POSTGRES_REPLICATION_PASSWORD=" + p.passwords["POSTGRES_REPLICATION_PASSWORD"]}
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("standby.sh: %v\n%s", err, out)
	}
	p.start(i)
	testenv.Eventually(p.t, "the standby follows", func() bool { return !p.standbyIs("") })
}

// standbyIs compares how the primary sees its standby: "" if it has none.
func (p *pair) standbyIs(state string) bool {
	p.t.Helper()
	return p.query(p.primary, "select coalesce(max(sync_state), '') from pg_stat_replication where state = 'streaming'") == state
}

// cutOff makes the standby hear nothing more of the primary.
func (p *pair) cutOff() {
	p.t.Helper()
	p.execute(1-p.primary, "alter system set primary_conninfo = ''")
	p.query(1-p.primary, "select pg_reload_conf()")
	testenv.Eventually(p.t, "the standby is cut off", func() bool { return p.standbyIs("") })
}

// fail kills the primary and promotes the standby, as docs/operating.md says.
func (p *pair) fail() {
	p.t.Helper()
	if err := p.servers[p.primary].Kill(); err != nil {
		p.t.Fatal(err)
	}
	p.primary = 1 - p.primary
	p.query(p.primary, "select pg_promote()")
	p.execute(p.primary, "alter system set synchronous_standby_names = ''") // there is none now
	p.query(p.primary, "select pg_reload_conf()")
}

// url is for Tidegate: all servers, of which the primary is to be found.
func (p *pair) url() string {
	var hosts []string
	for _, server := range p.servers {
		hosts = append(hosts, socket(server))
	}
	return "postgres://tidegate@/tidegate?target_session_attrs=primary&host=" + url.QueryEscape(strings.Join(hosts, ","))
}

func socket(pg *dev.Postgres) string {
	return testenv.Must(url.Parse(pg.URL())).Query().Get("host")
}

// query asks one server for one value.
func (p *pair) query(server int, sql string) string {
	p.t.Helper()
	conn, err := pgx.Connect(p.t.Context(), p.servers[server].URL())
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var value any
	if err := conn.QueryRow(p.t.Context(), sql).Scan(&value); err != nil {
		p.t.Fatalf("%s: %v", sql, err)
	}
	return fmt.Sprint(value)
}

func (p *pair) execute(server int, sql string) {
	p.t.Helper()
	conn := testenv.Must(pgx.Connect(p.t.Context(), p.servers[server].URL()))
	defer conn.Close(context.Background())
	if _, err := conn.Exec(p.t.Context(), sql); err != nil {
		p.t.Fatalf("%s: %v", sql, err)
	}
}
