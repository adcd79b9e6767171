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
		{"Refused", cardRefused},
		{"Conflicts", cardConflicts},
		{"Limits", cardLimits},
		{"Live", cardLive},
		{"Outage", cardOutage},
		{"Signs out", cardSignsOut},
		{"Keyboard", cardKeyboard},
		{"Breakdown", cardBreakdown},
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
		looks(p, c.port, look{"dark", 1280}, look{"light", 768}, look{"light", 360})
	}
	p.Open(f.URL + "/?port=marina-7")
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
	p.See("Live", "69% of the hard cap, 500,000 of it extra until Nov 23, 21:30 UTC.", "Hard cap 1,500,000", "458,780", "Brightwater Marina 1M · 69%",
		"Extra tokens none became 500,000", "Extra tokens until none became Nov 23, 21:30 UTC")
	p.SeeNot("Hard cap reached")
	if got := p.Role("textbox", "Hard cap").Property("value"); got != "1,000,000" {
		t.Errorf("the form changes %s", got)
	}
	looks(p, "extra", look{"light", 1280})
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

// cardEmbedded puts the element into a page that is not ours.
func cardEmbedded(t *testing.T, f *fake, p *browser.Page) {
	p.Open(f.URL + "/static/icon.svg") // some other document of the same site
	p.Open(f.URL + "/?port=marina-7")
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
