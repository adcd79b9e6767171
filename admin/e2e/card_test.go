package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"

	"github.com/tidegate/tidegate/internal/browser"
)

// look is a way to see the page.
type look struct {
	scheme string
	width  int64
}

// looks checks the page as it is with axe, light and wide, dark and narrow, and takes
// pictures of it for people to look at.
func looks(p *browser.Page, name string, more ...look) {
	for i, l := range append([]look{{"light", 1280}, {"dark", 360}}, more...) {
		p.Size(l.width, 800)
		p.Prefers("prefers-color-scheme", l.scheme, "prefers-reduced-motion", "reduce")
		p.Screenshot(fmt.Sprintf("%s-%s-%d", name, l.scheme, l.width))
		if i < 2 {
			p.Axe()
		}
		fits(p)
	}
	p.Prefers()
	p.Size(1280, 800)
}

// fits checks that nobody has to scroll sideways, once what is drawn has its new size.
func fits(p *browser.Page) {
	p.Until("document.documentElement.scrollWidth <= innerWidth")
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
		{"Warns", cardWarns},
		{"History", cardHistory},
		{"Refused", cardRefused},
		{"Conflicts", cardConflicts},
		{"Limits", cardLimits},
		{"Live", cardLive},
		{"Outage", cardOutage},
		{"Signs out", cardSignsOut},
		{"Keyboard", cardKeyboard},
		{"Breakdown", cardBreakdown},
		{"Range", cardRange},
		{"Attention", cardAttention},
		{"Back-test", cardBackTest},
		{"Prefers", cardPrefers},
		{"Embedded", cardEmbedded},
		{"Extra tokens", cardExtra},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // mostly they wait
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
		{"marina-7", []string{"612,345 tokens this month", "61% of the hard cap", "383,655", "7d 8h", "Dec 1, 00:00", "811,199", "reaches the soft cap on Nov 30", "Held for running calls 4,000",
			"Soft cap 800,000", "Hard cap 1,000,000", "Used Held for running calls Projected by the reset", "ocr 312,295", "All times and days are UTC."}, []string{"Soft cap reached.", "Hard cap reached."}},
		{"southdock", []string{"Soft cap reached. Calls are still allowed", "96% of the hard cap", "7 events could not be booked", "Nov 23, 14:30 id_conflict The id invoice-1 was booked with 1500 tokens.",
			"tidegate quarantine replay 41", "Show all 7", "Reserved and never reported: 8,200 tokens in 31 days", "Nov 22 expenses ocr 3 4,100",
			"ocr-daily, 80% reached: 800,000 calls Nov 23, 15:30", "Soft cap reached: 800,000 tokens", "Show older alerts"}, []string{"Hard cap reached."}},
		{"brightwater", []string{"Hard cap reached. New calls are refused until Dec 1, 00:00", "if nothing were refused"}, []string{"Soft cap reached."}},
		{"oldtown", []string{"The caps are not enforced"}, []string{"Soft cap reached."}},
		{"archive", []string{"No usage this month yet", "curl http://127.0.0.1", "/v1/usage", "--port archive", "Without caps nothing is refused", "Nobody has set a budget"}, []string{"Tokens per day"}},
	} {
		p.Open(f.URL + "/?port=" + c.port)
		p.See("Live")
		p.See(c.see...)
		p.SeeNot(c.not...)
		if c.port == "southdock" { // which has everything
			looks(p, c.port, look{"dark", 1280}, look{"light", 768}, look{"light", 360})
		} else {
			looks(p, c.port)
		}
	}
	p.Open(f.URL + "/?port=marina-7")
	p.See("ocr 312,295")
	for expression, want := range map[string]string{ // what is to come is hatched; a bar of half is half a bar
		"getComputedStyle(card.querySelector('.heading')).backgroundImage.slice(0, 30)": "repeating-linear-gradient(135d",
		"card.querySelector('.share-list .length').style.getPropertyValue('--to')":      "0.5100",
	} {
		if got := browser.Eval[string](p, "(() => { const card = document.querySelector('ai-budget-card').shadowRoot; return "+expression+" })()"); got != want {
			t.Errorf("%s is %q, want %q", expression, got, want)
		}
	}
	meter := p.Role("meter", "Tokens used")
	if got, want := browser.Eval[string](p, meterText), "612,345 of 1,000,000 tokens, 61%; soft cap at 800,000; 4,000 held"; got != want || !meter.Exists() {
		t.Errorf("a screen reader hears %q, want %q", got, want)
	}
}

// cardExtra: extra tokens are part of the hard cap in all figures, and not of what the form
// changes; once they have ended, they are nowhere but in the list of changes.
func cardExtra(t *testing.T, f *fake, p *browser.Page) {
	give := func(until time.Time) {
		f.mu.Lock()
		b := f.ports["brightwater"].budget
		f.mu.Unlock()
		b.ExtraTokens, b.ExtraUntil = new(int64(500_000)), until
		f.store("brightwater", b, "Ada")
	}
	give(f.now.Add(6 * time.Hour))
	p.Open(f.URL + "/?port=brightwater")
	p.See("Live", "69% of the hard cap, 500,000 of it extra until Nov 23, 21:30.", "Hard cap 1,500,000", "458,780", "Brightwater Marina 1M · 69%",
		"Extra tokens none became 500,000", "Extra tokens until none became Nov 23, 21:30")
	p.SeeNot("Hard cap reached")
	if got := p.Role("textbox", "Hard cap").Property("value"); got != "1,000,000" {
		t.Errorf("the form changes %s", got)
	}
	looks(p, "extra")
	give(f.now)
	p.Open(f.URL + "/?port=brightwater")
	p.See("Live", "104% of the hard cap.", "Hard cap 1,000,000", "Hard cap reached", "Brightwater Marina 1M · 104%")
	p.SeeNot("of it extra")
}

const meterText = `new Promise((done) => { const look = () => {
	const text = document.querySelector('ai-budget-card')?.shadowRoot.querySelector('[role=meter]').getAttribute('aria-valuetext');
	text ? done(text) : setTimeout(look, 20);
}; look(); })`

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

	chart := p.Role("image", "Tokens per day by model, Nov 1 to Nov 30")
	if description := chart.Property("description"); !strings.Contains(description, "a day on average; most on Monday, November 16") {
		t.Errorf("the chart is described as %q", description)
	}
	p.Role("DisclosureTriangle", "As a table").Click()
	p.See("Monday, November 23", "Sunday, November 1", "Calls")
	p.SeeNot("November 24") // it is to come
	looks(p, "table")
	f.change("marina-7", func(fp *fakePort) { fp.budget.Period = "day"; fp.budget.Version++ })
	p.See("tokens today", "Tokens per hour", "Monday, November 23")
}

// cardRange looks at other days, in other steps, by pointer and by keyboard.
func cardRange(t *testing.T, f *fake, p *browser.Page) {
	p.Open(f.URL + "/?port=marina-7")
	p.See("Live", "Tokens per day", "Sunday, November 1 to Monday, November 30", "even pace, 33,333 a day")
	p.Role("group", "Tokens per day by feature: the arrow keys read it out").Focus()
	p.Type(kb.ArrowLeft)
	p.See("Nov 23: ", " calls; ocr ")
	p.Type(kb.ArrowLeft, kb.ArrowLeft)
	p.See("Nov 21: ")
	p.Type(kb.ArrowRight, kb.ArrowRight, kb.ArrowRight) // not beyond today
	p.See("Nov 23: ")
	p.Type(kb.Escape)
	p.SeeNot("Nov 23: ")

	choose(p, "Days", "Last")
	p.See("Thursday, October 1 to Saturday, October 31", "ocr 156,147")
	p.SeeNot("even pace")
	p.Role("radio", "Weeks").Click()
	p.See("Tokens per week")
	p.Role("group", "Tokens per week by feature: the arrow keys read it out").Focus()
	p.Type(kb.Home)
	p.See("Week of Sep 28: ")
	choose(p, "Days", "Sept")
	p.See("No usage in these days")
	p.SeeNot("Where they went", "curl")
	p.Type(kb.End)
	p.See("Tuesday, November 10 to Monday, November 23", "ocr 78,073")
	day := func(name, value string) {
		p.Do(fmt.Sprintf(`{ const i = document.querySelector('ai-budget-card').shadowRoot.querySelector('[name=%s]'); i.value = '%s'; i.dispatchEvent(new Event('change')) }`, name, value))
	}
	day("first", "2026-11-24")
	p.See("The last day is before the first.", "Tuesday, November 10 to Monday, November 23")
	day("first", "2026-11-22")
	p.See("Tokens per hour", "Sunday, November 22 to Monday, November 23")
	p.SeeNot("The last day is before the first.")
	p.Role("radio", "Run").Click()
	p.See("run-1123-4", "no run")
	looks(p, "range")
	// What one looks at is in the address, and other days are a step back, which takes no edit away.
	at := func(query string) {
		t.Helper()
		p.Until(fmt.Sprintf("location.search === '?port=marina-7%s'", query))
	}
	at("&range=2026-11-22..2026-11-23&by=run&step=week")
	p.Reload()
	p.See("Tokens per hour", "Sunday, November 22 to Monday, November 23", "run-1123-4")
	p.Role("textbox", "Hard cap").Fill("2M")
	p.Do("history.back()")
	p.See("Tuesday, November 10 to Monday, November 23", "Tokens per week", "ocr 78,073")
	at("&range=2026-11-10..2026-11-23&step=week")
	p.Do("history.back()")
	p.See("No usage in these days")
	at("&range=2026-09&step=week")
	if got := p.Role("textbox", "Hard cap").Property("value"); got != "2M" && got != "2,000,000" {
		t.Errorf("what was typed is gone: %q", got)
	}
	p.Role("button", "Discard").Click()
	p.Do("history.go(2)")
	p.See("run-1123-4")
	if got := browser.Eval[string](p, `document.querySelector('ai-budget-card').shadowRoot.querySelector('.csv').getAttribute('href')`); got != "/api/v1/ports/marina-7/ai-usage.csv?by=run&from=2026-11-22&to=2026-11-24" {
		t.Errorf("what is downloaded is not what is seen: %s", got)
	}
	p.Open(f.URL + "/?port=marina-7&range=2024-03&by=nobody")
	p.See("No usage in these days")
	if got := p.Role("combobox", "Days").Property("value"); got != "March 2024" {
		t.Errorf("an address asks for March 2024, and the list says %q", got)
	}
	p.Open(f.URL + "/?port=marina-7&range=yesteryear&step=century")
	p.See("Tokens per day", "Sunday, November 1 to Monday, November 30")
}

// cardAttention: what could not be booked is told of, with what to do about it.
func cardAttention(t *testing.T, f *fake, p *browser.Page) {
	p.Open(f.URL + "/?port=southdock")
	p.See("7 events could not be booked", "quarantine replay 45")
	p.SeeNot("quarantine replay 46")
	p.Role("button", "Show all 7").Click()
	p.See("quarantine replay 47")
	p.SeeNot("Show all")
	p.SeeNot("May 23, 15:30")
	p.Role("button", "Show older alerts").Click()
	p.See("May 23, 15:30")
	p.SeeNot("Show older alerts")
	p.Role("link", "Harbour North 612.3K · 61% of 1,000,000").Click()
	p.See("612,345 tokens this month")
	p.SeeNot("could not be booked", "never reported")
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
	if got := hard.Property("value"); got != "1,200,000" {
		t.Errorf("in German the field says %q", got)
	}
	hard.Fill("1.5M") // what is typed means the same in every locale
	p.Type(kb.Tab)
	if got := hard.Property("value"); got != "1,500,000" {
		t.Errorf("in German 1.5M became %q", got)
	}
	hard.Fill("1,5M")
	p.Type(kb.Tab)
	p.See("Has a comma or a space that groups no three digits: write 1.5M or 1,500,000")
	p.Size(320, 600)
	fits(p)
}
