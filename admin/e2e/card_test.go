package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/tidegate/tidegate/internal/browser"
)

// looks checks the page as it is with axe, light and wide, dark and narrow, and takes
// pictures of it for people to look at.
func looks(p *browser.Page, name string) {
	for _, l := range []struct {
		scheme string
		width  int64
		axe    bool
	}{{"light", 1280, true}, {"dark", 1280, false}, {"light", 768, false}, {"light", 360, false}, {"dark", 360, true}} {
		p.Size(l.width, 800)
		p.Prefers("prefers-color-scheme", l.scheme, "prefers-reduced-motion", "reduce")
		p.Screenshot(name + "-" + l.scheme + "-" + itoa(l.width))
		if l.axe {
			p.Axe()
		}
		fits(p, name)
	}
	p.Prefers()
	p.Size(1280, 800)
}

// fits checks that nobody has to scroll sideways.
func fits(p *browser.Page, name string) {
	if over := browser.Eval[int](p, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
		p.Fail("%s: the page is %d px too wide", name, over)
	}
}

func TestCard(t *testing.T) {
	b := browser.Start(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, *fake, *browser.Page)
	}{
		{"Shows", cardShows},
		{"Edits", cardEdits},
		{"Saves", cardSaves},
		{"Refused", cardRefused},
		{"Conflicts", cardConflicts},
		{"Live", cardLive},
		{"Outage", cardOutage},
		{"Signs out", cardSignsOut},
		{"Keyboard", cardKeyboard},
		{"Breakdown", cardBreakdown},
		{"Back-test", cardBackTest},
		{"Prefers", cardPrefers},
		{"Embedded", cardEmbedded},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t)
			f.harbour()
			c.test(t, f, b.Page(t))
		})
	}
}

func cardShows(t *testing.T, f *fake, p *browser.Page) {
	for _, c := range []struct {
		port string
		see  []string
		not  []string
	}{
		{"marina-7", []string{"612,345 tokens this month", "61% of the hard cap", "383,655", "7d 8h", "Dec 1, 00:00 UTC", "811,199", "reaches the soft cap on Nov 30", "Held for running calls 4,000",
			"Soft cap 800,000", "Hard cap 1,000,000", "ocr 312,295"}, []string{"Soft cap reached.", "Hard cap reached."}},
		{"southdock", []string{"Soft cap reached. Calls are still allowed", "96% of the hard cap"}, []string{"Hard cap reached."}},
		{"brightwater", []string{"Hard cap reached. New calls are refused until Dec 1, 00:00 UTC", "if nothing were refused"}, []string{"Soft cap reached."}},
		{"oldtown", []string{"The caps are not enforced"}, []string{"Soft cap reached."}},
		{"archive", []string{"No usage this month yet", "nats pub ai.usage.archive", "Without caps nothing is refused", "Nobody has set a budget"}, []string{"Tokens per day"}},
	} {
		p.Open(f.URL + "/?port=" + c.port)
		p.See("Live")
		p.See(c.see...)
		p.SeeNot(c.not...)
		looks(p, c.port)
	}
	p.Open(f.URL + "/?port=marina-7")
	meter := p.Role("meter", "Tokens used")
	if got, want := browser.Eval[string](p, meterText), "612,345 of 1,000,000 tokens, 61%; soft cap at 800,000; 4,000 held"; got != want || !meter.Exists() {
		t.Errorf("a screen reader hears %q, want %q", got, want)
	}
}

const meterText = `new Promise((done) => { const look = () => {
	const text = document.querySelector('ai-budget-card')?.shadowRoot.querySelector('[role=meter]').getAttribute('aria-valuetext');
	text ? done(text) : setTimeout(look, 20);
}; look(); })`

func cardEdits(t *testing.T, f *fake, p *browser.Page) {
	p.Open(f.URL + "/?port=marina-7")
	hard := p.Role("textbox", "Hard cap")
	for typed, want := range map[string]string{"1.5M": "1,500,000", "900k": "900,000", " 1 234 567 ": "1,234,567", "2_000_000 tokens": "2,000,000", "": ""} {
		hard.Fill(typed)
		p.Type(kb.Tab)
		if got := hard.Property("value"); got != want {
			t.Errorf("%q became %q, want %q", typed, got, want)
		}
	}
	for typed, want := range map[string]string{"many": "Is not a number of tokens", "-5": "Must not be negative", "1.5": "Must be a whole number", "1.23456789k": "Must be a whole number", "1e9": "Is not a number",
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
	put := func(status int, body string) {
		f.breakWith(func(r *http.Request) (int, string) {
			if r.Method == http.MethodPut {
				return status, body
			}
			return 0, ""
		})
		hard.Fill("2M")
		save.Click()
	}
	put(422, `{"title":"The budget is not valid","status":422,"errors":[{"field":"hard_cap_tokens","value":2000000,"rule":"must be at most what the contract says"}]}`)
	p.See("Must be at most what the contract says.", "Not saved")
	if hard.Property("invalid") != "true" || hard.Property("focused") != "true" {
		t.Error("the field at fault is not marked, or has not the focus")
	}
	put(500, `{"title":"Internal error","status":500,"detail":"the ledger does not answer"}`)
	p.See("Not saved. The ledger does not answer.")
	put(-1, "")
	p.See("may or may not be stored")
	looks(p, "not-saved")
	put(401, `{"title":"The session has ended","status":401}`)
	p.See("your session has ended", "What you typed stays here")
	if got := hard.Property("value"); got != "2,000,000" {
		t.Errorf("what was typed is gone: %q", got)
	}
	f.breakWith(nil)
	save.Click()
	p.See("Saved")
	if b := f.port("marina-7").budget; *b.HardCapTokens != 2_000_000 {
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

func cardLive(t *testing.T, f *fake, p *browser.Page) {
	p.Open(f.URL + "/?port=marina-7")
	p.See("612,345")
	f.change("marina-7", func(fp *fakePort) { fp.shares = f.usedBy(930_000) })
	p.See("930,000 tokens this month", "Soft cap reached.", "930K")
	f.change("marina-7", func(fp *fakePort) { fp.shares = f.usedBy(1_000_000) })
	p.See("1,000,000 tokens this month", "Hard cap reached.")

	// Nobody looks: nobody asks.
	p.Do(`Object.defineProperty(document, 'hidden', {value: true, configurable: true}); document.dispatchEvent(new Event('visibilitychange'))`)
	time.Sleep(300 * time.Millisecond) // an answer under way
	before := f.requests()
	time.Sleep(2500 * time.Millisecond)
	if n := f.requests() - before; n > 0 {
		t.Errorf("a hidden page asked %d times", n)
	}
	f.change("marina-7", func(fp *fakePort) { fp.shares = f.usedBy(1_100_000) })
	p.Do(`Object.defineProperty(document, 'hidden', {value: false, configurable: true}); document.dispatchEvent(new Event('visibilitychange'))`)
	p.See("1,100,000 tokens this month")
}

func cardOutage(t *testing.T, f *fake, p *browser.Page) {
	p.Open(f.URL + "/?port=marina-7")
	p.See("612,345", "Live")
	f.breakWith(func(*http.Request) (int, string) { return -1, "" })
	p.See("The server cannot be reached.", "These are the figures of", "612,345", "Offline")
	looks(p, "offline")
	before := f.requests()
	time.Sleep(3 * time.Second)
	if n := f.requests() - before; n > 8 {
		t.Errorf("the page asked %d times in 3s of an outage: it does not back off", n)
	}
	f.breakWith(nil)
	p.Role("button", "Try now").Click()
	p.See("Live")
	p.SeeNot("cannot be reached")
	f.breakWith(func(*http.Request) (int, string) {
		return 503, `{"title":"The ledger does not answer","status":503,"detail":"Postgres is being restarted"}`
	})
	p.See("The ledger does not answer. Postgres is being restarted.")
	f.breakWith(nil)
	p.See("Live") // by itself
	p.SeeNot("Postgres")
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
			return 403, `{"title":"A permission is missing","status":403,"detail":"this needs the permission admin.manage_settings, which the caller does not hold"}`
		}
		return 0, ""
	})
	p.Reload()
	p.See("You may not manage AI budgets", "which the caller does not hold")
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

// cardKeyboard does everything that matters without a mouse.
func cardKeyboard(t *testing.T, f *fake, p *browser.Page) {
	p.Open(f.URL + "/")
	p.See("Live") // the first port, archive
	p.Type(kb.Tab)
	if p.Role("link", "Skip the list of ports").Property("focused") != "true" {
		t.Error("the first stop is not the link that skips the list")
	}
	p.Role("searchbox", "Search ports").Focus()
	p.Type("harb", kb.Tab, kb.Enter)
	p.See("Harbour North marina-7", "612,345")
	tabTo(p, "Model", "Feature")
	p.Type(kb.ArrowRight)
	p.See("claude-sonnet-4-5")
	tabTo(p, "Enforce the caps")
	tabTo(p, "Soft cap")
	p.Chord("a", chromedp.ModifierCtrl)
	p.Type("850k")
	tabTo(p, "Hard cap")
	tabTo(p, "Month")
	p.Type(kb.ArrowLeft)
	p.See("last week")
	tabTo(p, "Discard")
	tabTo(p, "Save")
	p.Type(kb.Enter)
	p.See("Saved")
	b := f.port("marina-7").budget
	if *b.SoftCapTokens != 850_000 || b.Period != "week" {
		t.Errorf("stored: %+v", b)
	}
}

// tabTo presses Tab until the element with one of the names has the focus, and
// checks that a sighted person sees where it is.
func tabTo(p *browser.Page, names ...string) {
	for range 30 {
		p.Type(kb.Tab)
		at := browser.Eval[[]string](p, focusNow)
		for _, name := range names {
			if at[0] == name {
				if at[1] == "" {
					p.Fail("%s has the focus, and nothing shows it", name)
				}
				return
			}
		}
	}
	p.Fail("30 times Tab, and none of %q has the focus", names)
}

// focusNow names what has the focus, and how one sees that.
const focusNow = `(() => {
	let e = document.activeElement;
	while (e.shadowRoot?.activeElement) e = e.shadowRoot.activeElement;
	const name = e.labels?.[0]?.innerText.trim() || e.innerText.trim() || e.getAttribute('aria-label') || e.tagName;
	const shown = [e, e.nextElementSibling].some((x) => x && getComputedStyle(x).outlineStyle !== 'none' && parseFloat(getComputedStyle(x).outlineWidth) >= 2);
	return [name, shown ? 'outline' : ''];
})()`

func cardBreakdown(t *testing.T, f *fake, p *browser.Page) {
	p.Open(f.URL + "/?port=marina-7")
	p.See("ocr 312,295", "51%", "5 calls") // hidden texts are there for screen readers only
	p.Role("radio", "User").Click()
	p.See("ada 195,950", "system or erased", "3 more, 7% together")
	p.Role("button", "3 more, 7% together").Click()
	p.See("radia", "Show fewer")
	p.Role("radio", "Model").Click()
	p.See("claude-haiku-4-5")
	looks(p, "by-model")

	if !p.Role("image", "Tokens per day, Nov 1 to Nov 30").Exists() {
		t.Error("the chart has no name")
	}
	description := p.Role("image", "Tokens per day, Nov 1 to Nov 30").Property("description")
	if !strings.Contains(description, "a day on average; most on") || !strings.Contains(description, "Today so far") {
		t.Errorf("the chart is described as %q", description)
	}
	p.Role("DisclosureTriangle", "As a table").Click()
	p.See("Monday, November 23", "Sunday, November 1")
	looks(p, "table")
	f.change("marina-7", func(fp *fakePort) { fp.budget.Period = "day"; fp.budget.Version++ })
	p.See("tokens today", "Tokens per day, November")
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

func cardPrefers(t *testing.T, f *fake, p *browser.Page) {
	p.Open(f.URL + "/?port=southdock")
	p.See("Live")
	p.Prefers("forced-colors", "active")
	p.Screenshot("forced-colors")
	p.Axe()
	p.Prefers("prefers-reduced-motion", "reduce")
	if moving := browser.Eval[int](p, `document.querySelector('ai-budget-card').shadowRoot.getAnimations({subtree: true}).length`); moving > 0 {
		t.Errorf("%d animations run although reduced motion is preferred", moving)
	}
	p.Prefers()
	p.Locale("de-DE")
	p.Reload()
	p.See("871.002", "1.200.000")
	hard := p.Role("textbox", "Hard cap")
	for typed, want := range map[string]string{"1,5M": "1.500.000", "1.5M": "1.500.000", "1.500.000": "1.500.000", "1.500": "1.500"} {
		hard.Fill(typed)
		p.Type(kb.Tab)
		if got := hard.Property("value"); got != want {
			t.Errorf("in German %q became %q, want %q", typed, got, want)
		}
	}
	p.Size(320, 600)
	fits(p, "320 px, or 1280 px at 400 %")
	p.AnswerDialogs(true) // leaving with edits asks
}

// cardEmbedded puts the element into a page that is not ours.
func cardEmbedded(t *testing.T, f *fake, p *browser.Page) {
	p.Open(f.URL + "/static/icon.svg") // some other document of the same site
	p.Open(f.URL + "/")
	p.See("Live")
	p.Do(`document.body.innerHTML = '<main><h1>Settings</h1><ai-budget-card port="southdock">No card here</ai-budget-card></main>'`)
	p.See("southdock", "871,002", "Soft cap reached.")
	p.Axe()
	p.Do(`addEventListener('budget-change', (e) => { document.title = 'changed to ' + e.detail.hard_cap_tokens })`)
	p.Role("textbox", "Hard cap").Fill("2M")
	p.Type(kb.Enter)
	p.Until(`document.title === 'changed to 2000000'`)
	p.Do(`document.querySelector('ai-budget-card').setAttribute('port', 'brightwater')`)
	p.See("brightwater", "1,041,220")
	if got := p.Role("textbox", "Hard cap").Property("value"); got != "1,000,000" {
		t.Errorf("the fields did not follow the port: %q", got)
	}
	p.Do(`document.querySelector('ai-budget-card').remove()`)
	before := f.requests()
	time.Sleep(2500 * time.Millisecond)
	if n := f.count("brightwater/ai-budget"); f.requests()-before > 0 && n > 0 {
		for _, asked := range f.askedSince(before) {
			if strings.Contains(asked, "brightwater") {
				t.Errorf("a card that was removed goes on asking: %s", asked)
			}
		}
	}
}
