// Package testenv gives tests the real servers: one private Postgres for each
// test binary with a fresh database for each test, a nats-server for each test
// that asks, and the built programs. A package that uses it has
//
//	func TestMain(m *testing.M) { testenv.Main(m) }
//
// What is missing on the machine fails the test with what to install.
package testenv

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// env is what the tests of this binary share. It lives from Main to its end.
var env struct {
	mu      sync.Mutex
	dir     string // everything shared, removed at the end
	kept    bool   // a failed test's database is in dir
	cluster cluster
	build   builds
}

// Main runs the tests and exits. By then every server it started has ended, and
// the goroutines too: one left behind fails the run.
func Main(m goleak.TestingM) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func run(m goleak.TestingM) (code int, err error) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // a test that wants the log passes a logger
	sweep()
	env.dir, err = os.MkdirTemp(os.TempDir(), dirPrefix)
	if err != nil {
		return 1, fmt.Errorf("testenv: %w", err)
	}
	inUse, err := holdDir(env.dir)
	if err != nil {
		return 1, err
	}
	defer inUse.Close()

	code = m.Run()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := env.cluster.stop(ctx); err != nil {
		return code, err
	}
	if !env.kept {
		if err := os.RemoveAll(env.dir); err != nil {
			return code, fmt.Errorf("testenv: %w", err)
		}
	}
	if code != 0 {
		return code, nil // a failed test may well leave something running
	}
	return code, goleak.Find(AbandonedBatches()...)
}

// AbandonedBatches are goroutines that a nats-server leaves behind when it stops amid
// an atomic batch, whose publisher may have been killed: the batch's store stays open.
func AbandonedBatches() []goleak.Option {
	const server = "github.com/nats-io/nats-server/v2/server"
	return []goleak.Option{
		goleak.IgnoreAnyFunction(server + ".(*msgBlock).flushLoop"),
		goleak.IgnoreAnyFunction(server + ".(*fileStore).flushStreamStateLoop"),
		goleak.IgnoreAnyFunction(server + "/ats.Register.func1"),
	}
}

// patience is how long a test waits for what happens in its own time: the machine may be busy.
const patience = time.Minute

// Eventually fails the test unless ok becomes true within a minute. It asks the less often the
// longer it has waited: what it asks costs a processor that others wait for too.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for start := time.Now(); !ok(); {
		waited := time.Since(start)
		if waited > patience {
			t.Fatalf("did not happen within %s: %s", patience, what)
		}
		time.Sleep(min(max(waited/8, 5*time.Millisecond), 100*time.Millisecond))
	}
}

// Await receives from a channel. It fails the test unless something comes within a minute, or the channel is closed.
func Await[T any](t testing.TB, what string, from <-chan T) (got T) {
	t.Helper()
	select {
	case got = <-from:
	case <-time.After(patience):
		t.Fatalf("did not happen within %s: %s", patience, what)
	}
	return got
}

// Must returns v, and panics at an error.
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// sharedDir is a directory under what Main made.
func sharedDir(t testing.TB, name string) string {
	t.Helper()
	env.mu.Lock()
	defer env.mu.Unlock()
	if env.dir == "" {
		t.Fatal("testenv: the package needs `func TestMain(m *testing.M) { testenv.Main(m) }`")
	}
	return filepath.Join(env.dir, name)
}

const (
	dirPrefix = "tidegate-test-"
	keepFor   = 24 * time.Hour // a failed test's database
	keepMost  = 4              // of them, the newest
)

// sweep removes the directories of runs that were killed, and the kept ones that
// are old or too many.
func sweep() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*")) // the pattern is well formed
	age := map[string]time.Duration{}
	for _, dir := range dirs {
		info, err := os.Lstat(dir)
		if err == nil && info.IsDir() && int(info.Sys().(*syscall.Stat_t).Uid) == os.Geteuid() {
			age[dir] = time.Since(info.ModTime())
		}
	}
	kept := 0
	for _, dir := range slices.SortedFunc(maps.Keys(age), func(a, b string) int { return cmp.Compare(age[a], age[b]) }) {
		if age[dir] < time.Minute { // its owner may not have marked it yet
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "kept")); err == nil {
			if kept++; kept <= keepMost && age[dir] < keepFor {
				continue
			}
		}
		if f, err := holdDir(dir); err == nil {
			if socket, err := os.Readlink(filepath.Join(dir, "postgres", "socket")); err == nil {
				os.RemoveAll(socket) // dev keeps it elsewhere when the path is long
			}
			removeAll(dir)
			f.Close()
		}
	}
}

// TempDir is t.TempDir for the data of servers, which may still be ending when it is removed.
func TempDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() { removeAll(dir) })
	return dir
}

// removeAll outlasts a Postgres that is ending: files may still come while it removes
// others.
func removeAll(dir string) {
	for end := time.Now().Add(10 * time.Second); os.RemoveAll(dir) != nil && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
}

// holdDir marks dir as in use by this process, until the file is closed.
func holdDir(dir string) (*os.File, error) {
	f, err := os.Create(filepath.Join(dir, "in-use"))
	if err != nil {
		return nil, fmt.Errorf("testenv: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("testenv: %s: %w", dir, err)
	}
	return f, nil
}
