// Package browser lets tests use a page as a person does: through what it shows
// and through roles and names, with real mouse and key events, in Debian's
// Chromium. What a test looks for by role and name, a screen reader finds too.
//
// One Chromium runs at a time on a machine, whichever test binaries want one: it
// is heavy, and tests that fight over two cores time out.
package browser

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
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
	ctx context.Context
}

// Start starts Chromium. It is gone after the test.
func Start(t testing.TB) *Browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("browser: %v\nThe browser tests need Chromium. On Debian: apt-get install -y chromium", err)
	}
	takeTurn(t)
	options := append([]chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path),
		chromedp.Flag("disable-gpu", true),
		chromedp.Flag("disable-quic", true), // these two: no attempts to leave the machine
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("hide-scrollbars", true),
		chromedp.Flag("lang", "en-US"),
		chromedp.UserDataDir(t.TempDir()),
	}, chromedp.DefaultExecAllocatorOptions[:]...)
	alloc, free := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(func() {
		closing, stop := context.WithTimeout(ctx, 10*time.Second)
		defer stop()
		if err := chromedp.Cancel(closing); err != nil {
			t.Errorf("browser: closing Chromium: %v", err)
		}
		cancel()
		free()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("browser: start %s: %v", path, err)
	}
	return &Browser{ctx: ctx}
}

// takeTurn waits until no other test binary runs a browser.
func takeTurn(t testing.TB) {
	t.Helper()
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "tidegate-browser.lock"), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		t.Fatalf("browser: %v", err)
	}
	t.Cleanup(func() { lock.Close() })
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatalf("browser: waiting for the other browser tests: %v", err)
	}
}
