package testenv_test

import (
	"bufio"
	"cmp"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/internal/testenv"
)

const innerVar = "TIDEGATE_TESTENV_INNER"

// TestInner is what the tests below run in another process.
func TestInner(t *testing.T) {
	behaviour := os.Getenv(innerVar)
	switch behaviour {
	case "":
		return
	case "build":
		testenv.Binary(t, "internal/testenv/serve")
		return
	}
	conn, err := pgx.Connect(t.Context(), testenv.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "INSERT INTO ports (id) VALUES ('evidence')"); err != nil {
		t.Fatal(err)
	}
	switch behaviour {
	case "fail":
		t.Error("as asked")
	case "leak":
		go func() { select {} }()
	case "hang":
		t.Log("hanging")
		select {}
	}
}

// inner runs TestInner with a temporary directory of its own.
func inner(t *testing.T, tmp, behaviour string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestInner$", "-test.v")
	cmd.Env = append(os.Environ(), innerVar+"="+behaviour, "TMPDIR="+tmp)
	return cmd
}

func leftIn(t *testing.T, tmp string) []string {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(tmp, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return left
}

func TestMainLeavesNothing(t *testing.T) {
	t.Parallel()
	tmp := t.TempDir()
	if out, err := inner(t, tmp, "pass").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if left := leftIn(t, tmp); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestMainFailsOnALeak(t *testing.T) {
	t.Parallel()
	out, err := inner(t, t.TempDir(), "leak").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "found unexpected goroutines") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestFailureKeepsTheDatabase(t *testing.T) {
	t.Parallel()
	tmp, err := os.MkdirTemp("", "kept") // short: the socket is in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(tmp) })
	out, err := inner(t, tmp, "fail").CombinedOutput()
	if err == nil {
		t.Fatalf("the inner test passed:\n%s", out)
	}
	serve := regexp.MustCompile(`go run (\./internal/testenv/serve) (\S+)`).FindSubmatch(out)
	psql := regexp.MustCompile(`psql '(\S+)'`).FindSubmatch(out)
	if serve == nil || psql == nil {
		t.Fatalf("it does not say how to look at the database:\n%s", out)
	}
	server := exec.Command(testenv.Binary(t, "internal/testenv/serve"), string(serve[2]))
	stdout, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(stdout).ReadString('\n')
	if !strings.HasPrefix(line, "serving ") {
		t.Errorf("it prints %q", line)
	}
	evidence, err := exec.Command("psql", "--no-psqlrc", "-Atc", "SELECT id FROM ports", string(psql[1])).CombinedOutput()
	if string(evidence) != "evidence\n" {
		t.Errorf("the kept database holds %q, %v", evidence, err)
	}
	if err := server.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := server.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
}

func TestTheNextRunClearsUpAfterAKilledOne(t *testing.T) {
	t.Parallel()
	tmp := t.TempDir()
	killed := inner(t, tmp, "hang")
	stdout, err := killed.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := killed.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(stdout); lines.Scan() && !strings.Contains(lines.Text(), "hanging"); {
	}
	if out, err := inner(t, tmp, "pass").CombinedOutput(); err != nil {
		t.Fatalf("beside a running one: %v\n%s", err, out)
	}
	left := leftIn(t, tmp)
	if len(left) == 0 {
		t.Fatal("the directory of a running test is gone")
	}
	if err := killed.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = killed.Wait()
	for _, dir := range left {
		old := time.Now().Add(-time.Hour)
		if err := os.Chtimes(dir, old, old); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		var ending sync.WaitGroup
		ending.Go(func() { stragglers(t.Context(), filepath.Join(dir, "postgres", "data")) })
		t.Cleanup(ending.Wait)
	}
	if out, err := inner(t, tmp, "pass").CombinedOutput(); err != nil {
		t.Fatalf("after the killed one: %v\n%s", err, out)
	}
	if left := leftIn(t, tmp); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// stragglers writes files, as a Postgres does that is ending, until a while after
// somebody began to remove them.
func stragglers(ctx context.Context, dir string) {
	first, pause := "", time.Millisecond
	end := time.Now().Add(time.Hour)
	for ctx.Err() == nil && time.Now().Before(end) {
		f, err := os.CreateTemp(dir, "straggler")
		if err != nil {
			return // the directory is gone
		}
		f.Close()
		first = cmp.Or(first, f.Name())
		if _, err := os.Stat(first); err != nil && pause > 0 {
			pause, end = 0, time.Now().Add(300*time.Millisecond)
		}
		time.Sleep(pause)
	}
}

func TestBinaryIsBuiltOnceAndRuns(t *testing.T) {
	path := testenv.Binary(t, "internal/testenv/serve")
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := inner(t, t.TempDir(), "build").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	after, err := os.Stat(testenv.Binary(t, "internal/testenv/serve"))
	if err != nil || !os.SameFile(before, after) { // whose time the go command sets anew
		t.Errorf("built again: %v", err)
	}
	if out, err := exec.Command(path).CombinedOutput(); err == nil || !strings.HasPrefix(string(out), "usage:") {
		t.Errorf("%v, %s", err, out)
	}
}
