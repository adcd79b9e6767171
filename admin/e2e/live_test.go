package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"

	"github.com/tidegate/tidegate/internal/browser"
)

func cardLive(t *testing.T, f *fake, p *browser.Page) {
	p.Open(f.URL + "/?port=marina-7")
	p.See("612,345")
	f.change("marina-7", func(fp *fakePort) { fp.shares = f.usedBy(930_000) })
	p.See("930,000 tokens this month", "Soft cap reached.", "930K")
	f.change("marina-7", func(fp *fakePort) { fp.shares = f.usedBy(1_000_000) })
	p.See("1,000,000 tokens this month", "Hard cap reached.")

	// Nobody looks: nobody asks. Whoever looks again sees what is new.
	p.Do(`Object.defineProperty(document, 'hidden', {value: true, configurable: true}); document.dispatchEvent(new Event('visibilitychange'))`)
	f.change("marina-7", func(fp *fakePort) { fp.shares = f.usedBy(1_100_000) })
	time.Sleep(300 * time.Millisecond) // an answer under way
	before := f.requests()
	time.Sleep(2500 * time.Millisecond)
	if n := f.requests() - before; n > 0 {
		t.Errorf("a hidden page asked %d times", n)
	}
	p.Do(`Object.defineProperty(document, 'hidden', {value: false, configurable: true}); document.dispatchEvent(new Event('visibilitychange'))`)
	p.See("1,100,000 tokens this month")
}

func cardOutage(t *testing.T, f *fake, p *browser.Page) {
	p.Open(f.URL + "/?port=marina-7")
	p.See("612,345", "Live")
	f.breakWith(func(*http.Request) (int, string) { return -1, "" })
	p.See("The server cannot be reached.", "These are the figures of", "612,345", "Offline")
	looks(p, "offline")
	p.Role("button", "Try now").Focus()
	f.breakWith(nil)
	p.Type(kb.Enter)
	p.See("Live")
	p.SeeNot("cannot be reached")
	f.breakWith(func(*http.Request) (int, string) {
		return 503, `{"title":"The ledger does not answer","status":503,"detail":"Postgres is being restarted"}`
	})
	p.See("The ledger does not answer. Postgres is being restarted.")
	f.breakWith(nil)
	p.See("Live") // by itself
	p.SeeNot("Postgres")

	// A back-test that failed is made once the server can make it, without a keystroke.
	f.breakWith(func(r *http.Request) (int, string) {
		if strings.HasSuffix(r.URL.Path, "/simulate") {
			return -1, ""
		}
		return 0, ""
	})
	p.Reload()
	p.See("Live", "The back-test needs the server, which cannot be reached.")
	f.breakWith(nil)
	p.See("would have been refused")
	p.SeeNot("cannot be reached")
}

func cardSignsOut(t *testing.T, f *fake, p *browser.Page) {
	p.Open(f.URL + "/?port=marina-7")
	p.See("Live")
	f.breakWith(func(r *http.Request) (int, string) {
		if strings.HasPrefix(r.URL.Path, "/api/") {
			return 401, `{"title":"The session has ended","status":401}`
		}
		return 0, ""
	})
	p.See("You are signed out.", "Signed out")
	p.Reload()
	p.See("Sign in to see your ports", "tidegate login-link", "Other ways to sign in")
	looks(p, "signed-out")
	f.breakWith(func(r *http.Request) (int, string) {
		if strings.HasPrefix(r.URL.Path, "/api/") {
			return 403, `{"title":"A permission is missing","status":403,"detail":"this needs the permission admin.view, which the caller does not hold"}`
		}
		return 0, ""
	})
	p.Reload()
	p.See("You may not see AI budgets", "which the caller does not hold")
	p.Role("button", "Sign out").Wait()
	looks(p, "no-permission")
	f.breakWith(func(r *http.Request) (int, string) {
		if strings.Contains(r.URL.Path, "/marina-7/") {
			return 403, `{"title":"The port is not the caller's","status":403,"detail":"the caller may not manage port \"marina-7\""}`
		}
		return 0, ""
	})
	p.Reload()
	p.See("You may not manage this port.", `The caller may not manage port "marina-7".`, "South Dock")
	looks(p, "another-port")
}
