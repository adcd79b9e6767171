package testenv

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

const (
	module     = "github.com/tidegate/tidegate"
	natsCLI    = "github.com/nats-io/natscli/nats"
	natsCLIVer = "v0.5.1"
)

// builds remembers what was built, by package and tags.
type builds struct {
	mu   sync.Mutex
	done map[string]build
}

type build struct {
	path   string
	output string
	err    error
}

// Binary builds a program of this module, with the race detector, and returns its
// path. Pkg is relative to the module, like "cmd/tidegate". It is built once for
// each test binary and set of tags.
func Binary(t testing.TB, pkg string, tags ...string) string {
	t.Helper()
	key := strings.Join(append([]string{path.Base(pkg)}, tags...), "-")
	out := filepath.Join(sharedDir(t, "bin"), key)
	b := &env.build
	b.mu.Lock()
	defer b.mu.Unlock()
	got, ok := b.done[pkg+" "+key]
	if !ok {
		cmd := exec.Command("go", "build", "-race", "-tags", strings.Join(tags, ","), "-o", out, module+"/"+pkg)
		output, err := cmd.CombinedOutput()
		got = build{path: out, output: string(output), err: err}
		if b.done == nil {
			b.done = map[string]build{}
		}
		b.done[pkg+" "+key] = got
	}
	if got.err != nil {
		t.Fatalf("testenv: build %s: %v\n%s", pkg, got.err, got.output)
	}
	return got.path
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
	lock, err := os.Create(filepath.Join(dir, "lock")) // test binaries run side by side
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatalf("testenv: %v", err)
	}
	nats := filepath.Join(dir, "nats")
	if _, err := os.Stat(nats); err == nil {
		return nats
	}
	cmd := exec.Command("go", "install", natsCLI+"@"+natsCLIVer)
	cmd.Dir = os.TempDir() // outside this module: the client has its own requirements
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("testenv: build the nats client: %v\n%s", err, out)
	}
	return nats
}
