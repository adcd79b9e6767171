// Package browser lets tests use a page as a person does: through what it shows
// and through roles and names, with real mouse and key events, in Debian's
// Chromium. What a test looks for by role and name, a screen reader finds too.
//
// One Chromium runs at a time on a machine, whichever test binaries want one: it
// is heavy, and tests that fight over two cores time out.
package browser

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// patience is how long a page may take to show what a test waits for. The race
// detector and a busy machine are slow; a page that works needs a fraction.
const patience = 15 * time.Second

// Browser is a running Chromium.
type Browser struct {
	ctx  context.Context
	stop func() error
}

// shared is the Chromium of this test binary's tests.
var shared struct {
	mu      sync.Mutex
	allowed bool // somebody will end it
	browser *Browser
}

// Tests are all tests of a package, and the end of the Chromium that they share. A package
// that uses one has
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(browser.Tests{M: m}) }
type Tests struct{ M *testing.M }

// Run runs the tests.
func (r Tests) Run() (code int) {
	shared.mu.Lock()
	shared.allowed = true
	shared.mu.Unlock()
	code = r.M.Run()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.browser != nil {
		if err := shared.browser.stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	return code
}

// Start returns the package's Chromium, which the first test starts. What one page keeps
// no other sees.
func Start(t testing.TB) *Browser {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if !shared.allowed {
		t.Fatal("browser: the package needs a TestMain that runs browser.Tests")
	}
	if shared.browser == nil {
		b, err := start()
		if err != nil {
			t.Fatalf("browser: %v", err)
		}
		shared.browser = b
	}
	return shared.browser
}

// Path is where Chromium is. Its headless shell is the same engine without windows, tabs and
// profiles, and opens a page with a quarter of the work.
func Path() (string, error) {
	for _, name := range []string{"chromium-headless-shell", "chromium"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no Chromium is installed, which the browser tests need. On Debian: apt-get install -y chromium-headless-shell")
}

func start() (*Browser, error) {
	path, err := Path()
	if err != nil {
		return nil, err
	}
	turn, err := takeTurn()
	if err != nil {
		return nil, fmt.Errorf("wait for the other browser tests: %w", err)
	}
	data, err := os.MkdirTemp("", "tidegate-chromium-")
	if err != nil {
		return nil, errors.Join(err, turn.Close())
	}
	options := append([]chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path),
		chromedp.Flag("disable-gpu", true),
		chromedp.Flag("disable-quic", true), // these two: no attempts to leave the machine
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("js-flags", "--single-threaded"),      // its helper threads take processors from what else is tested
		chromedp.Flag("force-prefers-reduced-motion", true), // nor frames that nobody looks at
		chromedp.Flag("hide-scrollbars", true),
		chromedp.Flag("lang", "en-US"),
		chromedp.UserDataDir(data),
	}, chromedp.DefaultExecAllocatorOptions[:]...)
	alloc, free := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(alloc)
	b := &Browser{ctx: ctx, stop: func() error {
		closing, done := context.WithTimeout(ctx, 10*time.Second)
		defer done()
		err := chromedp.Cancel(closing)
		cancel()
		free()
		return errors.Join(err, os.RemoveAll(data), turn.Close())
	}}
	if err := chromedp.Do(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", path, err), b.stop())
	}
	return b, nil
}

// takeTurn waits until no other test binary runs a browser.
func takeTurn() (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "tidegate-browser.lock"), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}
