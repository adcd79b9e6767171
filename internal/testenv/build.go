package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	module     = "github.com/tidegate/tidegate"
	natsCLI    = "github.com/nats-io/natscli/nats"
	natsCLIVer = "v0.5.1"
)

// builds remembers what was built.
type builds struct {
	mu   sync.Mutex
	done map[string]build
}

type build struct {
	path string
	err  error
}

// Binary builds a program of this module, with the race detector, and returns its
// path. Pkg is relative to the module, like "cmd/tidegate". It lies in bin/test of the
// repository, for the test binaries of all packages and for later runs: the go command
// links it again only when something in it has changed.
func Binary(t testing.TB, pkg string) string {
	t.Helper()
	return binary(t, path.Base(pkg), module+"/"+pkg, "-race")
}

// Killable builds cmd/tidegate with the lines in it that kill it, for tests that start and
// kill it again and again. It has no race detector: that makes a start take five times as
// long, and what runs here runs under the detector in the tests of its packages.
func Killable(t testing.TB) string {
	t.Helper()
	return binary(t, "killable", module+"/cmd/tidegate", "-tags=killpoint")
}

// NATSServer builds nats-server, for tests that freeze and kill whole nodes.
func NATSServer(t testing.TB) string {
	t.Helper()
	return binary(t, "nats-server", "github.com/nats-io/nats-server/v2")
}

func binary(t testing.TB, key, pkg string, args ...string) string {
	t.Helper()
	b := &env.build
	b.mu.Lock()
	defer b.mu.Unlock()
	got, ok := b.done[key]
	if !ok {
		got.path, got.err = buildOnce(key, append(args, pkg)...)
		if b.done == nil {
			b.done = map[string]build{}
		}
		b.done[key] = got
	}
	if got.err != nil {
		t.Fatalf("testenv: build %s: %v", pkg, got.err)
	}
	return got.path
}

// buildOnce waits for other test binaries that build the same.
func buildOnce(name string, args ...string) (string, error) {
	root, err := moduleDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, "bin", "test")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	lock, err := lockFile(filepath.Join(dir, name+".lock"))
	if err != nil {
		return "", err
	}
	defer lock.Close()
	out := filepath.Join(dir, name)
	// Without what debuggers need it is linked in half the time.
	args = append([]string{"build", "-ldflags=-s -w", "-o", out}, args...)
	ctx, cancel := context.WithTimeout(context.Background(), buildFor)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.WaitDelay = 10 * time.Second // for compilers that hold on to its output
	if output, err := cmd.CombinedOutput(); ctx.Err() != nil {
		return "", fmt.Errorf("not done within %s: %w\n%s", buildFor, err, output)
	} else if err != nil {
		return "", fmt.Errorf("%w\n%s", err, output)
	}
	return out, nil
}

// moduleDir is the top of the repository.
func moduleDir() (string, error) {
	gomod, err := exec.Command("go", "env", "GOMOD").Output()
	return filepath.Dir(string(gomod)), err
}

// Nothing here waits for ever: a test that says what it waited for is of more use than one that is
// killed. To build everything anew takes minutes on a machine that is busy.
const (
	buildFor = 8 * time.Minute
	lockFor  = buildFor + time.Minute // longer than who has it may build
)

// lockFile waits until nobody else has the file locked: test binaries run side by side.
func lockFile(path string) (*os.File, error) {
	lock, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(lockFor); ; time.Sleep(20 * time.Millisecond) {
		switch err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
		case err == nil:
			return lock, nil
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			lock.Close()
			return nil, err
		case time.Now().After(end):
			lock.Close()
			return nil, fmt.Errorf("somebody has had %s locked for %s", path, lockFor)
		}
	}
}

// NATSCLI returns the path of the `nats` command line client. It is built from
// its Go module on first use and kept in the user's cache directory.
func NATSCLI(t testing.TB) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	dir := filepath.Join(cache, "tidegate-tools", "nats-"+natsCLIVer)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatalf("testenv: %v", err)
	}
	lock, err := lockFile(filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	defer lock.Close()
	nats := filepath.Join(dir, "nats")
	if _, err := os.Stat(nats); err == nil {
		return nats
	}
	ctx, cancel := context.WithTimeout(context.Background(), buildFor)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "install", natsCLI+"@"+natsCLIVer)
	cmd.WaitDelay = 10 * time.Second
	cmd.Dir = os.TempDir() // outside this module: the client has its own requirements
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("testenv: build the nats client: %v\n%s", err, out)
	}
	return nats
}
