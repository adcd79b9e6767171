package dev_test

import (
	"context"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/tidegate/tidegate/dev"
	"github.com/tidegate/tidegate/internal/testenv"
)

// started starts a cluster and stops it; what is left is what the next start finds.
func started(t *testing.T, dir string) {
	t.Helper()
	pg := startPostgres(t, dir)
	if _, err := connect(t, pg.URL()).Exec(t.Context(), "CREATE TABLE letters AS SELECT 1 AS n"); err != nil {
		t.Fatal(err)
	}
	if err := pg.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func refused(t *testing.T, dir string, parts ...string) {
	t.Helper()
	pg, err := dev.StartPostgres(t.Context(), dev.PostgresConfig{Dir: dir, NoSync: true})
	if err == nil {
		pg.Stop(context.Background())
	}
	wantError(t, err, parts...)
}

func TestPostgresRefusesAClusterInUse(t *testing.T) {
	t.Parallel()
	dir := testenv.Cluster(t)
	pg := startPostgres(t, dir)
	pid := pg.PID()
	refused(t, dir, dir+" is in use by process "+strconv.Itoa(os.Getpid()), "--data")
	if pg.PID() != pid || query[int](t, pg.URL(), "SELECT 1") != 1 {
		t.Error("the attempt disturbed the running server")
	}
}

func TestPostgresRefusesAnotherMajorVersion(t *testing.T) {
	t.Parallel()
	dir := testenv.Cluster(t)
	started(t, dir)
	version := filepath.Join(dir, "data", "PG_VERSION")
	real, err := os.ReadFile(version)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(version, []byte("9.6\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, dir, "was made by Postgres 9.6", strings.TrimSpace(string(real))+" in /", "pg_upgrade")
	if err := os.WriteFile(version, real, 0o600); err != nil {
		t.Fatal(err)
	}
	if n := query[int](t, startPostgres(t, dir).URL(), "SELECT n FROM letters"); n != 1 {
		t.Error("the refusal changed the cluster")
	}
}

func TestPostgresRefusesWhatIsNoCluster(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	diary := filepath.Join(dir, "data", "diary")
	if err := os.Mkdir(filepath.Dir(diary), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(diary, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		refused(t, dir, "belongs to root", "chown")
		if err := os.Chown(filepath.Dir(diary), 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	refused(t, dir, "is no Postgres cluster", "--data")
	if _, err := os.Stat(diary); err != nil {
		t.Errorf("the refusal cost a file: %v", err)
	}
}

func TestPostgresFinishesAnInterruptedInitdb(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	half := filepath.Join(dir, "data.unfinished")
	if err := os.Mkdir(half, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(half, "PG_VERSION"), []byte("15\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	startPostgres(t, dir)
	if _, err := os.Stat(half); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", half, err)
	}
}

func TestPostgresStopsAnOrphanAndTakesOver(t *testing.T) {
	t.Parallel()
	dir := testenv.Cluster(t)
	orphan := startByHand(t, dir)
	pg := startPostgres(t, dir)
	if alive(orphan.Process.Pid) && pg.PID() == orphan.Process.Pid {
		t.Error("the orphan still serves")
	}
	if n := query[int](t, pg.URL(), "SELECT n FROM letters"); n != 1 {
		t.Errorf("the table holds %d", n)
	}
	orphan.Wait()
	if got := orphan.ProcessState.String(); got != "exit status 0" {
		t.Errorf("the orphan was not stopped cleanly: %s", got)
	}
}

// startByHand makes a cluster and leaves its server running without anybody
// responsible for it.
func startByHand(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	started(t, dir)
	pg := startPostgres(t, dir)
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pg.PID()))
	if err != nil {
		t.Fatal(err)
	}
	if err := pg.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	args := strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00")
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	for _, sub := range []string{"data", "socket"} {
		f, err := os.Open(filepath.Join(dir, sub))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		if info, err := f.Stat(); err == nil && os.Getuid() == 0 {
			st := info.Sys().(*syscall.Stat_t)
			cmd.SysProcAttr.Credential = &syscall.Credential{Uid: st.Uid, Gid: st.Gid}
		}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Signal(syscall.SIGQUIT) })
	testenv.Eventually(t, "the server by hand is ready", func() bool {
		b, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
		return err == nil && strings.Contains(string(b), "ready")
	})
	return cmd
}

// A pid file that a crash of the machine left may name an innocent process.
func TestPostgresSparesAnInnocentProcess(t *testing.T) {
	t.Parallel()
	dir := testenv.Cluster(t)
	started(t, dir)
	innocent := exec.Command("sleep", "60")
	data, err := os.Stat(filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	if owner := data.Sys().(*syscall.Stat_t); os.Getuid() == 0 {
		// Postgres suspects processes of its own user.
		innocent.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}}
	}
	if err := innocent.Start(); err != nil {
		t.Fatal(err)
	}
	defer innocent.Wait()
	defer innocent.Process.Kill()
	pid := fmt.Sprintf("%d\n%s\n1795498899\n5432\n%s\n\n  0  0\nready   \n", innocent.Process.Pid, filepath.Join(dir, "data"), filepath.Join(dir, "socket"))
	if err := os.WriteFile(filepath.Join(dir, "data", "postmaster.pid"), []byte(pid), 0o600); err != nil {
		t.Fatal(err)
	}
	if n := query[int](t, startPostgres(t, dir).URL(), "SELECT n FROM letters"); n != 1 {
		t.Errorf("the table holds %d", n)
	}
	if !alive(innocent.Process.Pid) {
		t.Error("the innocent process was stopped")
	}
}

func TestPostgresInADeepDirectory(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), strings.Repeat("deep/", 25), "postgres")
	program := startProgram(t, "write-rows", dir)
	program.line(t)
	abandoned, err := os.Readlink(filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	program.kill(t)
	program.cmd.Wait()

	pg := startPostgres(t, dir)
	u, err := url.Parse(pg.URL())
	if err != nil {
		t.Fatal(err)
	}
	socket := u.Query().Get("host")
	info, err := os.Stat(socket)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 || socket == abandoned {
		t.Errorf("socket directory %s has mode %o; the earlier one was %s", socket, info.Mode().Perm(), abandoned)
	}
	query[int](t, pg.URL(), "SELECT 1")
	if err := pg.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{abandoned, socket} {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s is left behind: %v", dir, err)
		}
	}
}

func TestPostgresMovesWithItsDirectory(t *testing.T) {
	t.Parallel()
	near := testenv.Cluster(t)
	deep := filepath.Join(t.TempDir(), strings.Repeat("deep/", 25))
	if err := os.MkdirAll(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	far := filepath.Join(deep, "far")
	started(t, near)
	for _, move := range [][2]string{{near, far}, {far, near}} {
		if err := os.Rename(move[0], move[1]); err != nil {
			t.Fatal(err)
		}
		pg := startPostgres(t, move[1])
		if n := query[int](t, pg.URL(), "SELECT n FROM letters"); n != 1 {
			t.Errorf("in %s the table holds %d", move[1], n)
		}
		if err := pg.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// Under root the data may lie where Postgres' user cannot go, like /root.
func TestPostgresInADirectoryClosedToOthers(t *testing.T) {
	t.Parallel()
	closed := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(closed, "postgres")
	started(t, dir)
	if n := query[int](t, startPostgres(t, dir).URL(), "SELECT n FROM letters"); n != 1 {
		t.Errorf("the table holds %d", n)
	}
}

// The tests may run as root; most people do not.
func TestPostgresAsAnOrdinaryUser(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Log("every other test is this one")
		return
	}
	const nobody = 65534
	home, err := os.MkdirTemp("/tmp", "tidegate-nobody-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(home, "dev.test")
	// Another process writes it: who writes it here has it open, and so may what is started
	// meanwhile. Nobody can run it then.
	if out, err := exec.Command("install", "-m", "755", self, exe).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Chown(home, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	life := func(uid uint32, dir string) (string, error) {
		cmd := exec.CommandContext(t.Context(), exe, dir)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), roleVar + "=start-and-stop"}
		cmd.Dir = home
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	dir := filepath.Join(home, "data", "postgres")
	if out, err := life(nobody, dir); err != nil {
		t.Fatalf("as nobody: %v\n%s", err, out)
	}
	startPostgres(t, dir).Stop(t.Context()) // root takes it over, as its owner
	if out, err := life(nobody, dir); err != nil {
		t.Fatalf("as nobody, after root: %v\n%s", err, out)
	}
	if err := filepath.WalkDir(filepath.Join(dir), func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if info, err := os.Lstat(path); err == nil && info.Sys().(*syscall.Stat_t).Uid != nobody {
			t.Errorf("%s belongs to uid %d", path, info.Sys().(*syscall.Stat_t).Uid)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}

	// Two ordinary users: the second is told.
	for _, d := range []string{home, filepath.Join(home, "data"), dir} {
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	out, err := life(12345, dir)
	if err == nil || !strings.Contains(out, "belongs to nobody") {
		t.Errorf("as another user: %v, %s", err, out)
	}
}
