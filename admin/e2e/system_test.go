package e2e

import (
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"

	"github.com/tidegate/tidegate/admin"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/internal/browser"
	"github.com/tidegate/tidegate/internal/testenv"
)

// TestSystem is a day of an operator, on the real thing: every number on the page was
// booked from an event that went through NATS.
func TestSystem(t *testing.T) {
	s := newSystem(t)
	now := time.Now().UTC()
	lastMonth := time.Date(now.Year(), now.Month(), 1, 12, 0, 0, 0, time.UTC).AddDate(0, -1, 0)
	for day := range 10 {
		s.call("marina-7", lastMonth.AddDate(0, 0, day), 1000)
	}
	s.call("marina-7", now, 4_000)
	s.call("marina-7", now, 2_000, func(u *events.Usage) { u.Feature, u.UserID, u.Model = "summary", "", "claude-haiku-4-5" })
	s.call("southdock", now, 300)
	s.booked("marina-7", 16_000)
	url, link := s.door(operator)
	p := browser.Start(t).Page(t)

	// Logging in.
	p.Open(url + "/?port=marina-7")
	p.See("Sign in to see your ports", "tidegate login-link")
	p.Open(link)
	p.See("Ada Lovelace", "marina-7", "southdock")
	p.Open(url + "/?port=marina-7")

	// Real usage, also while one looks.
	p.See("6,000 tokens this month", "No cap. Usage is recorded, nothing is refused.", "ocr 4,000", "summary 2,000", "67%")
	p.Role("radio", "User").Click()
	p.See("grace 4,000", "system or erased")
	s.call("marina-7", time.Now(), 500)
	p.See("6,500 tokens this month")

	// Caps, tried on last month before they are stored.
	p.Role("textbox", "Soft cap").Fill("7k")
	p.Role("textbox", "Hard cap").Fill("8.5k")
	p.See("With this cap, last month 2 of 10 calls would have been refused, from the 9th on. The soft cap would have warned from the 7th on.")
	p.Type(kb.Enter)
	p.See("Saved", "76% of the hard cap", "Caps enforced Soft cap 7,000 Hard cap 8,500 Period month Ada Lovelace")
	if v := s.check("marina-7", 100); !v.Allowed || v.SoftCapWarning || *v.RemainingTokens != 2_000 {
		t.Errorf("below the caps: %+v", v)
	}
	looks(p, "real")

	// The soft cap, then the hard one: on the page and through NATS.
	s.call("marina-7", time.Now(), 500)
	p.See("7,000 tokens this month", "Soft cap reached.")
	testenv.Eventually(s, "the gate warns", func() bool { v := s.check("marina-7", 100); return v.Allowed && v.SoftCapWarning })
	s.call("marina-7", time.Now(), 1_500)
	p.See("8,500 tokens this month", "Hard cap reached. New calls are refused")
	testenv.Eventually(s, "the gate refuses", func() bool { v := s.check("marina-7", 1); return !v.Allowed && v.Reason == events.ReasonHardCapReached })
	looks(p, "real-hard-cap")
	p.Role("textbox", "Hard cap").Fill("9k")
	p.Role("button", "Save").Click()
	p.See("Saved", "Soft cap reached.")
	testenv.Eventually(s, "the gate allows again", func() bool { return s.check("marina-7", 1).Allowed })
	if v := s.check("marina-7", 501); v.Allowed || v.Reason != events.ReasonEstimateExceedsHardCap {
		t.Errorf("an estimate above what is left: %+v", v)
	}
	twoTabs(s, p, url)
	named(s, p)
	byKeyboard(s, p, url)
	p.Open(url + "/")
	p.See("refused today", "times today by its hard cap", "southdock", "by the limit drafts")

	// Out, and the figures are gone with the session.
	p.Role("button", "Sign out").Click()
	p.See("Sign in")
	p.Open(url + "/?port=marina-7")
	p.See("Sign in to see your ports")
	p.SeeNot("tokens this month")
}

// byKeyboard finds a port, gives it a limit, and sees that refuse: without a mouse.
func byKeyboard(s *system, p *browser.Page, url string) {
	p.Open(url + "/")
	p.See("Overview", "marina-7", "southdock 300")
	tabTo(p, "Ports")
	p.Type(kb.Enter)
	p.See("2 ports")
	tabTo(p, "Search ports")
	p.Type("south")
	p.See("1 found")
	tabTo(p, "southdock")
	p.Type(kb.Enter)
	p.See("300 tokens this month")
	tabTo(p, "Add limit")
	p.Type(kb.Enter, "drafts") // its form has the focus
	tabTo(p, "Hard cap of the limit")
	p.Type("350")
	tabTo(p, "Window")
	p.Type("I") // In total
	tabTo(p, "Save limit")
	p.Type(kb.Enter)
	p.See("Saved drafts", "300 of 350 tokens")
	if v := s.check("southdock", 50); !v.Allowed {
		s.Errorf("below the limit: %+v", v)
	}
	s.call("southdock", time.Now(), 100)
	p.See("400 of 350 tokens")
	testenv.Eventually(s, "the limit refuses", func() bool { v := s.check("southdock", 1); return !v.Allowed && v.Limit == "drafts" })
}

// named sees somebody else name the port, and takes the name away again.
func named(s *system, p *browser.Page) {
	s.must(s.ledger.RenamePort(s.Context(), "marina-7", "Harbour North", "grace"))
	p.See("Harbour North marina-7", "Name none became Harbour North grace")
	looks(p, "named")
	undo := p.Role("button", "Undo change of the name to Harbour North")
	undo.Focus()
	p.Type(kb.Enter)
	p.See("Undo this change?", "The port has no name from now on, only its id.")
	tabTo(p, "Yes, undo")
	p.Type(kb.Enter)
	p.See("Undone.", "Name Harbour North became none Ada Lovelace")
	p.SeeNot("Harbour North marina-7")
	if name := testenv.Must(s.ledger.PortNames(s.Context(), []string{"marina-7"}))["marina-7"]; name != "" {
		s.Errorf("the port is called %q", name)
	}
	p.Role("button", "Back to before this change, version 3").Wait() // budgets are as they were
}

// twoTabs changes one budget from two tabs.
func twoTabs(s *system, p *browser.Page, url string) {
	other := p.Tab()
	other.Open(url + "/?port=marina-7")
	other.See("Live")
	p.Role("textbox", "Hard cap").Fill("10k")
	other.Role("textbox", "Hard cap").Fill("20k")
	other.Type(kb.Enter)
	other.See("Saved")
	p.Role("textbox", "Hard cap").Focus()
	p.Type(kb.Enter) // 412, unless the tab has seen it coming
	p.See("Ada Lovelace changed this budget", "Hard cap 20,000 10,000")
	p.Screenshot("real-conflict")
	p.Role("button", "Overwrite with mine").Click()
	p.See("Saved", "Hard cap 20,000 became 10,000")
	other.See("Hard cap 10,000") // it follows
	b, err := s.ledger.Budget(s.Context(), "marina-7")
	s.must(err)
	if *b.HardCapTokens != 10_000 || b.Version != 4 || b.UpdatedBy != "Ada Lovelace (login-link:local)" {
		s.Errorf("stored: %+v", b)
	}
}

// Who may not, cannot; who may manage some ports sees those.
func TestSystem_Permissions(t *testing.T) {
	s := newSystem(t)
	s.call("marina-7", time.Now(), 4_000)
	s.call("southdock", time.Now(), 300)
	s.booked("marina-7", 4_000)
	s.booked("southdock", 300)
	b := browser.Start(t)

	visitor := b.Page(t)
	url, link := s.door(identity.Caller{Subject: "v", Name: "Visitor", Permissions: []string{"expenses.scan"}})
	visitor.Open(link)
	visitor.See("You may not see AI budgets", "admin.view")
	visitor.SeeNot("marina-7")
	visitor.Open(url + "/?port=marina-7")
	visitor.See("You may not see AI budgets")
	visitor.SeeNot("4,000")

	// Who has nothing but an API token signs in with it, sees what it may, and not for longer.
	local := b.Page(t)
	shown, token, err := s.tokens.Create(t.Context(), identity.TokenRequest{Name: "southdock's own", Permissions: []string{admin.View}, Ports: []string{"southdock"}, CreatedBy: "test"})
	s.must(err)
	url, _ = s.door(operator)
	local.Open(url + "/")
	local.See("Sign in to see your ports")
	local.Role("link", "Other ways to sign in").Click()
	local.See("Open the login link", "Or with an API token")
	looks(local, "login")
	local.Role("textbox", "Or with an API token").Fill(shown[:60])
	local.Role("button", "Sign in").Click()
	local.See("The token is not accepted", "not a whole API token")
	local.Role("textbox", "Or with an API token").Fill(shown)
	local.Type(kb.Enter)
	local.See("Your usage", "southdock's own", "southdock 300")
	local.SeeNot("marina-7", "4,000", "Messages waiting")
	local.Open(url + "/ports")
	local.See("1 port", "southdock")
	local.SeeNot("marina-7", "Default budget")
	local.Open(url + "/?port=marina-7")
	local.See("You may not manage this port.")
	local.SeeNot("4,000")
	local.Open(url + "/?port=southdock")
	local.See("300 tokens this month", "Budget", "Soft cap", "Limits")
	local.SeeNot("Save", "Add limit")
	local.Screenshot("view-only")
	local.Open(url + "/api/v1/nothing") // which a person is told in the same clothes
	local.See("There is nothing here", "To the first page")
	local.Until(`getComputedStyle(document.querySelector('main')).borderRadius === '14px'`)
	local.Axe()
	local.Open(url + "/api/v1/ports/marina-7/ai-usage.csv")
	local.See("The port is not the caller's", "southdock's own")
	s.must(s.tokens.Revoke(t.Context(), token.ID, "test"))
	local.Open(url + "/ports")
	local.See("Sign in to see your ports")
	local.SeeNot("southdock")
}
