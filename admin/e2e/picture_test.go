//go:build acceptance

package e2e

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tidegate/tidegate/admin"
	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/identity/safehttp"
	"github.com/tidegate/tidegate/internal/browser"
	"github.com/tidegate/tidegate/internal/demo"
	"github.com/tidegate/tidegate/internal/testenv"
)

// TestPicture looks at what a newcomer sees after `make run`, and makes the README's pictures
// of it: each number was booked from an event. scripts/screenshot runs it and keeps them.
func TestPicture(t *testing.T) {
	s := newSystem(t)
	p := browser.Start(t).Page(t)
	url, link := s.door(operator)
	s.without(p, url, link)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		s.report(demo.Run(ctx, demo.Config{Conn: s.nats, Name: s.ledger.NamePort, Logger: slog.New(slog.DiscardHandler)}))
	})
	t.Cleanup(func() { stop(); running.Wait() })
	testenv.Eventually(t, "the ports have a history", func() bool {
		return testenv.Must(s.ledger.Budget(t.Context(), "demo-winter-basin")).Version > 0
	})
	p.Size(1320, 1000)
	p.Open(url + "/")
	p.See("Brightwater Marina", "agent", "claude-sonnet-4-5", "Brightwater Marina 12 times today by its hard cap")
	s.pictures(p, "overview", "")
	s.with(p, url)

	p.Open(url + "/?port=demo-south-dock")
	p.See("South Dock", "of the hard cap", "ocr", "An event could not be booked", "id_conflict")
	s.pictures(p, "card", "ai-budget-card")
	p.Role("radio", "User").Click()
	p.See("charles")
	choose(p, "Days", "Last")
	p.Role("radio", "Weeks").Click()
	p.See("Tokens per week")
	looks(p, "demo-weeks")
	for _, port := range []string{"roomy", "capped", "cedar-point", "lighthouse"} {
		p.Open(url + "/?port=demo-" + port)
		p.See("Where they went")
		looks(p, "demo-"+port)
	}
}

// without takes the states of a page that has nothing to show yet, or nobody to show it to.
func (s *system) without(p *browser.Page, url, link string) {
	f := newFake(s)
	f.harbour()
	for slow, name := range map[string]string{"/session": "01-loading", "/overview": "01-loading-figures"} {
		done := make(chan struct{})
		f.breakWith(func(r *http.Request) (int, string) {
			if strings.HasSuffix(r.URL.Path, slow) {
				hold(r, done)
			}
			return 0, ""
		})
		p.Open(f.URL + "/")
		p.Until(`!!document.querySelector(".loading, #overview[aria-busy]")`)
		s.state(p, name, "Tidegate")
		close(done)
	}
	p.Open(url + "/")
	s.state(p, "02-signed-out", "Sign in to see your ports")
	p.Open(url + "/login")
	s.state(p, "03-login", "Or with an API token")
	p.Open(url + "/login?code=abc")
	s.state(p, "04-bad-login-link", "not whole")
	starting := httptest.NewServer(new(safehttp.Later))
	s.Cleanup(starting.Close)
	p.Open(starting.URL)
	s.state(p, "05-starting", "The service is starting")
	p.Open(url + "/prots")
	s.state(p, "06-nothing-here", "There is nothing at this address")
	p.Open(link)
	s.state(p, "07-no-port-yet", "No port yet")
}

// with takes the states of a page that is full, and of those who see less of it.
func (s *system) with(p *browser.Page, url string) {
	p.Open(url + "/ports?sort=share")
	s.state(p, "08-table", "Harbour North")
	p.Open(url + "/ports?q=nowhere")
	s.state(p, "09-none-found", "No port matches")
	p.Open(url + "/?port=demo-capped")
	s.state(p, "10-at-the-hard-cap", "Where they went")
	for _, c := range []struct {
		name, address, text string
		caller              identity.Caller
	}{
		{"11-may-not", "/", "You may not see AI budgets", identity.Caller{Subject: "v", Name: "Visitor", Permissions: []string{"expenses.scan"}}},
		{"12-view-only", "/?port=demo-south-dock", "Where they went", identity.Caller{Subject: "w", Name: "Viewer", Permissions: []string{admin.View}}},
		{"13-your-usage", "/", "Your usage", identity.Caller{Subject: "s", Name: "South Dock's own", Permissions: []string{admin.View}, Ports: []string{"demo-south-dock"}}},
	} {
		other, link := s.door(c.caller)
		p.Open(link)
		p.Open(other + c.address)
		s.state(p, c.name, c.text)
	}
	other, link := s.door(operator)
	p.Open(link)
	p.Size(390, 844)
	p.Open(other + "/")
	s.state(p, "14-phone", "Tokens today")
	p.Size(1320, 1000)
	p.Open(url + "/")
	p.See("Brightwater Marina")
}

// state takes the whole page, once a text can be seen.
func (s *system) state(p *browser.Page, name, text string) {
	p.See(text)
	s.pictures(p, "states/"+name, "")
}

// pictures takes an element, light and dark; "" is the whole page.
func (s *system) pictures(p *browser.Page, name, element string) {
	for scheme, file := range map[string]string{"light": name + ".png", "dark": name + "-dark.png"} {
		p.Prefers("prefers-color-scheme", scheme, "prefers-reduced-motion", "reduce")
		p.Capture(filepath.Join(browser.Artifacts(), file), element, 2)
	}
	p.Prefers()
}
