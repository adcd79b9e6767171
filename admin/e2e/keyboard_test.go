package e2e

import (
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/tidegate/tidegate/internal/browser"
)

// cardKeyboard does everything that matters without a mouse.
func cardKeyboard(t *testing.T, f *fake, p *browser.Page) {
	p.Open(f.URL + "/?port=archive")
	p.See("Live")
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

	tabTo(p, "Add limit")
	p.Type(kb.Enter, "drafts") // the form has the focus
	tabTo(p, "Hard cap of the limit")
	p.Type("5k")
	tabTo(p, "Counted")
	tabTo(p, "Save limit")
	p.Type(kb.Enter)
	p.See("Saved drafts")
	tabTo(p, "Remove drafts")
	p.Type(kb.Enter)
	tabTo(p, "Yes, remove drafts")
	p.Type(kb.Enter)
	p.See("Removed drafts")
	if b := f.port("marina-7").budget; len(b.Limits) != 0 || b.Version != 6 || *b.SoftCapTokens != 850_000 {
		t.Errorf("stored: %+v", b)
	}
}

// tabTo presses Tab until the element with one of the names has the focus, and
// checks that a sighted person sees where it is.
func tabTo(p *browser.Page, names ...string) {
	for range 50 {
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
	p.Fail("50 times Tab, and none of %q has the focus", names)
}

// focusNow names what has the focus, and how one sees that.
const focusNow = `(() => {
	let e = document.activeElement;
	while (e.shadowRoot?.activeElement) e = e.shadowRoot.activeElement;
	const name = e.labels?.[0]?.innerText.trim() || e.innerText.trim() || e.getAttribute('aria-label') || e.tagName;
	const shown = [e, e.nextElementSibling].some((x) => x && getComputedStyle(x).outlineStyle !== 'none' && parseFloat(getComputedStyle(x).outlineWidth) >= 2);
	return [name.replace(/\s+/g, ' '), shown ? 'outline' : ''];
})()`
