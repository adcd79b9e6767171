package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"

	"github.com/tidegate/tidegate/internal/browser"
)

func cardEdits(t *testing.T, f *fake, p *browser.Page) {
	p.Open(f.URL + "/?port=marina-7")
	hard := p.Role("textbox", "Hard cap")
	for typed, want := range map[string]string{"1.5M": "1,500,000", "900k": "900,000", " 1 234 567 ": "1,234,567", "2_000_000 tokens": "2,000,000", "none": "", "": ""} {
		hard.Fill(typed)
		p.Type(kb.Tab)
		if got := hard.Property("value"); got != want {
			t.Errorf("%q became %q, want %q", typed, got, want)
		}
	}
	for typed, want := range map[string]string{"many": "Is not a number of tokens", "-5": "Must not be negative", "1.5": "Must be a whole number", "1.23456789k": "Must be a whole number", "1e9": "Is not a number", "1,5M": "Has a comma",
		"99999T": "Must be at most 9,007,199,254,740,991"} {
		hard.Fill(typed)
		p.Type(kb.Tab)
		p.See(want)
		if hard.Property("invalid") != "true" || !strings.HasPrefix(hard.Property("description"), want) {
			t.Errorf("%q: a screen reader does not hear what is wrong: %q", typed, hard.Property("description"))
		}
	}
	looks(p, "invalid")
	hard.Fill("700k") // below the soft cap
	p.Type(kb.Tab)
	p.See("Must be at most the hard cap, 700,000")
	p.Role("button", "Save").Click()
	p.See("Not saved")
	if p.Role("textbox", "Soft cap").Property("focused") != "true" {
		t.Error("the focus did not go to the field at fault")
	}
	if got := f.port("marina-7").budget.Version; got != 3 {
		t.Errorf("an invalid budget was stored: version %d", got)
	}
	p.Role("button", "Discard").Click()
	p.SeeNot("Must be at most")
	if got := hard.Property("value"); got != "1,000,000" {
		t.Errorf("after Discard the hard cap says %q", got)
	}
}

func cardSaves(t *testing.T, f *fake, p *browser.Page) {
	slow := make(chan struct{})
	f.breakWith(func(r *http.Request) (int, string) {
		if r.Method == http.MethodPut {
			hold(r, slow)
		}
		return 0, ""
	})
	p.Open(f.URL + "/?port=marina-7")
	p.Role("textbox", "Hard cap").Fill("1.5M")
	p.Role("radio", "Week").Click()
	p.Type(kb.Enter)
	p.See("Saving…")
	p.Screenshot("saving")
	close(slow)
	p.See("Saved", "tokens this week", "Hard cap 1,500,000", "Hard cap 1,000,000 became 1,500,000", "Period month became week")
	looks(p, "saved")
	p.SeeNot("Saved")
	b := f.port("marina-7").budget
	if b.Version != 4 || *b.HardCapTokens != 1_500_000 || b.Period != "week" || *b.SoftCapTokens != 800_000 || !b.Enabled {
		t.Errorf("stored: %+v", b)
	}

	// The first cap of a port counts at once: nobody means it otherwise.
	p.Open(f.URL + "/?port=archive")
	p.Role("textbox", "Soft cap").Fill("10k")
	p.Role("button", "Save").Click()
	p.See("Saved", "of the soft cap", "Caps enforced")
	if b := f.port("archive").budget; !b.Enabled || b.HardCapTokens != nil || *b.SoftCapTokens != 10_000 {
		t.Errorf("stored: %+v", b)
	}
}

func cardRefused(t *testing.T, f *fake, p *browser.Page) {
	p.Open(f.URL + "/?port=marina-7")
	hard, save := p.Role("textbox", "Hard cap"), p.Role("button", "Save")
	typed := "2M"
	put := func(status int, body string) {
		f.breakWith(func(r *http.Request) (int, string) {
			if r.Method == http.MethodPut {
				return status, body
			}
			return 0, ""
		})
		hard.Fill(typed)
		save.Click()
	}
	put(422, `{"title":"The budget is not valid","status":422,"errors":[{"field":"hard_cap_tokens","value":2000000,"rule":"must be at most what the contract says"}]}`)
	p.See("Must be at most what the contract says.", "Not saved")
	if hard.Property("invalid") != "true" || hard.Property("focused") != "true" {
		t.Error("the field at fault is not marked, or has not the focus")
	}
	p.Type(kb.Tab)
	p.See("Must be at most what the contract says.") // until something else is typed
	put(500, `{"title":"Internal error","status":500,"detail":"the ledger does not answer"}`)
	p.See("Not saved. The ledger does not answer.")
	put(-1, "")
	p.See("may or may not be stored")
	looks(p, "not-saved")

	// It was stored, the answer got lost, and the browser sent it again.
	f.breakWith(func(r *http.Request) (int, string) {
		if r.Method != http.MethodPut {
			return 0, ""
		}
		f.breakWith(nil)
		f.store("marina-7", monthly(tokens(800_000), tokens(2_000_000)), "Ada Lovelace (login-link:local)")
		return 412, `{"title":"The budget has changed","status":412}`
	})
	save.Click()
	p.See("Saved")
	p.SeeNot("changed this budget")

	typed = "3M"
	put(401, `{"title":"The session has ended","status":401}`)
	p.See("your session has ended", "What you typed stays here")
	if got := hard.Property("value"); got != "3,000,000" {
		t.Errorf("what was typed is gone: %q", got)
	}
	f.breakWith(nil)
	save.Click()
	p.See("Saved")
	if b := f.port("marina-7").budget; *b.HardCapTokens != 3_000_000 {
		t.Errorf("stored: %+v", b)
	}
}

func cardConflicts(t *testing.T, f *fake, p *browser.Page) {
	grace := "Grace Hopper (oidc:auth0|7c2)"
	p.Open(f.URL + "/?port=marina-7")
	p.See("Live")
	hard := p.Role("textbox", "Hard cap")

	// Nothing typed: the fields follow.
	f.store("marina-7", monthly(tokens(800_000), tokens(1_100_000)), grace)
	p.Until(`document.querySelector('ai-budget-card').shadowRoot.querySelector('#hard').value === '1,100,000'`)

	// Typed: the fields stay, and the person is told.
	hard.Fill("1.3M")
	f.store("marina-7", monthly(tokens(700_000), tokens(1_200_000)), grace)
	p.See("Grace Hopper changed this budget", "Hard cap 1,200,000 1,300,000")
	if got := hard.Property("value"); got != "1.3M" || hard.Property("focused") != "true" {
		t.Errorf("the card meddled with what somebody was typing: %q", got)
	}
	looks(p, "conflict")
	p.Role("button", "Use what is stored").Click()
	p.SeeNot("changed this budget")
	if got := hard.Property("value"); got != "1,200,000" {
		t.Errorf("theirs was chosen, and the field says %q", got)
	}

	// Lost at the moment of saving: 412.
	f.breakWith(func(r *http.Request) (int, string) {
		if r.Method == http.MethodPut {
			f.breakWith(nil)
			f.store("marina-7", monthly(nil, tokens(999_000)), grace)
		}
		return 0, ""
	})
	hard.Fill("1.4M")
	p.Type(kb.Enter)
	p.See("Grace Hopper changed this budget", "Hard cap 999,000 1,400,000", "Soft cap none 700,000")
	if p.Role("button", "Save").Exists() {
		t.Error("Save is offered beside the choice")
	}
	p.Role("button", "Overwrite with mine").Click()
	p.See("Saved")
	b := f.port("marina-7").budget
	if *b.HardCapTokens != 1_400_000 || *b.SoftCapTokens != 700_000 {
		t.Errorf("stored: %+v", b)
	}
}

func cardBackTest(t *testing.T, f *fake, p *browser.Page) {
	p.Open(f.URL + "/?port=marina-7")
	hard := p.Role("textbox", "Hard cap")
	p.See("With this cap, last month 31 of 9,041 calls would have been refused") // the stored caps
	// The answer to the first question comes after the answer to the second.
	first := make(chan struct{})
	f.breakWith(func(r *http.Request) (int, string) {
		if r.FormValue("hard") == "500000" {
			hold(r, first)
		}
		return 0, ""
	})
	p.Role("textbox", "Soft cap").Fill("")
	hard.Fill("500k")
	p.Until(`document.querySelector('ai-budget-card').shadowRoot.querySelector('.back-test').getAttribute('aria-busy') === 'true'`)
	f.waitFor(t, "hard=500000")
	hard.Fill("900k")
	p.See("932 of 9,041 calls would have been refused, from the 28th on.")
	close(first)
	time.Sleep(200 * time.Millisecond)
	p.See("932 of 9,041")
	hard.Fill("5M")
	p.See("none of 9,041 calls would have been refused")
	hard.Fill("five")
	p.See("Type caps as 200k")
	before := f.count("simulate")
	hard.Fill("")
	p.Type(strings.Split("123456789", "")...)
	p.See("none of 9,041")
	if n := f.count("simulate") - before; n > 3 {
		t.Errorf("%d back-tests for nine quick keystrokes", n)
	}
}
