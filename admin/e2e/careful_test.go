package e2e

import (
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/browser"
)

// cardWarns: what a change does at once is said before it is stored, a drastic one is asked for
// once, and any can be undone.
func cardWarns(t *testing.T, f *fake, p *browser.Page) {
	stored := func(version int64) events.Budget {
		t.Helper()
		b := f.port("marina-7").budget
		if b.Version != version {
			t.Errorf("version %d is stored, want %d: %+v", b.Version, version, b)
		}
		return b
	}
	p.Open(f.URL + "/?port=marina-7")
	soft, hard, save := p.Role("textbox", "Soft cap"), p.Role("textbox", "Hard cap"), p.Role("button", "Save")
	p.SeeNot("from now on")
	soft.Fill("none")
	p.See("Now The hard cap refuses no call now: 616,345 tokens are used or held this month, 383,655 are left.")
	hard.Fill("20")
	p.See("Now 616,345 tokens are used or held this month: all calls are refused from now on, until Dec 1, 00:00.")
	save.Click()
	p.See("Save this?", "all calls are refused from now on")
	looks(p, "confirm")
	p.Type(kb.Escape)
	p.SeeNot("Save this?")
	if save.Property("focused") != "true" {
		t.Error("after Escape the focus is not back at Save")
	}
	p.Type(kb.Enter)
	p.See("Save this?")
	hard.Fill("30") // which is another question
	p.SeeNot("Save this?")
	stored(3)
	save.Click()
	tabTo(p, "No, leave it")
	tabTo(p, "Yes, save")
	p.Type(kb.Enter)
	p.See("Saved", "Hard cap reached.")
	if b := stored(4); *b.HardCapTokens != 30 || b.SoftCapTokens != nil {
		t.Errorf("stored: %+v", b)
	}
	p.Role("button", "Undo this save").Click() // nothing drastic: nobody is asked
	p.See("Undone", "61% of the hard cap")
	if b := stored(5); *b.HardCapTokens != 1_000_000 || *b.SoftCapTokens != 800_000 {
		t.Errorf("after Undo: %+v", b)
	}

	// A switch that lets everything through, a cap that goes, and another period.
	p.Role("switch", "Enforce the caps").Click()
	p.See("From now on no call is refused and nobody is warned")
	save.Click()
	p.Role("button", "No, leave it").Click()
	p.Role("switch", "Enforce the caps").Click()
	hard.Fill("")
	p.See("Without a hard cap no call is refused from now on, however much is used.")
	soft.Fill("")
	hard.Fill("150k")
	p.Role("radio", "Day").Click()
	p.See("157,086 tokens are used or held today: all calls are refused from now on, until Nov 24, 00:00.")
	hard.Fill("200k")
	p.See("The hard cap refuses no call now: 157,086 tokens are used or held today, 42,914 are left.")
	p.Role("button", "Discard").Click()
	p.SeeNot("refuses no call now")
	stored(5)
}

// cardHistory: every change in the list can be undone, as a change of its own.
func cardHistory(t *testing.T, f *fake, p *browser.Page) {
	p.Open(f.URL + "/?port=marina-7")
	p.See("Who changed what", "Hard cap 900,000 became 1,000,000", "Soft cap 600,000 became 800,000")
	back := p.Role("button", "Back to before this change, version 2")
	back.Click()
	p.See("Go back to before this change?", "calls are allowed with a warning from now on", "Soft cap 800,000 600,000", "Hard cap 1,000,000 900,000")
	looks(p, "undo")
	p.Role("button", "No, leave it").Click()
	if back.Property("focused") != "true" {
		t.Error("after a no the focus is not back where it was")
	}
	grace := "Grace Hopper (oidc:auth0|7c2)"
	f.breakWith(func(r *http.Request) (int, string) { // lost at the moment of saving: 412
		if r.Method == http.MethodPut {
			f.breakWith(nil)
			f.store("marina-7", monthly(nil, tokens(2_000_000)), grace)
		}
		return 0, ""
	})
	back.Click()
	p.Role("button", "Yes, go back").Click()
	p.See("Not saved: somebody else changed this budget in the meantime.", "Hard cap 1,000,000 became 2,000,000")
	p.Role("button", "Undo change, version 4").Click()
	p.Role("button", "Yes, undo").Click()
	p.See("Undone.", "Hard cap 2,000,000 became 1,000,000")
	if b := f.port("marina-7").budget; b.Version != 5 || *b.HardCapTokens != 1_000_000 || *b.SoftCapTokens != 800_000 {
		t.Errorf("stored: %+v", b)
	}
	if p.Role("button", "Back to before this change, version 4").Exists() {
		t.Error("what is stored can be gone back to")
	}

	// Before the first change there was none: the port goes back to the default budget.
	f.breakWith(func(r *http.Request) (int, string) {
		if strings.HasSuffix(r.URL.Path, "/default-budget") {
			return 403, `{"title":"Not yours","status":403}`
		}
		return 0, ""
	})
	p.Open(f.URL + "/?port=southdock")
	p.Role("button", "Undo change, version 1").Click()
	p.See("Undo this change?", "The default budget binds from now on. You may not see it.")
	p.Role("button", "Yes, undo").Click()
	p.See("Undone.", "The port was given back to the default budget")
	if p.Role("button", "Back to before this change, version 1").Exists() {
		t.Error("what is stored can be gone back to")
	}
	p.Role("button", "Undo change, version 2").Click()
	p.See("calls are allowed with a warning from now on")
	p.Role("button", "Yes, undo").Click()
	p.See("73% of the hard cap")
}
