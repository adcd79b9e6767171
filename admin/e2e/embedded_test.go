package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"

	"github.com/tidegate/tidegate/internal/browser"
)

// cardEmbedded puts the element into a page that is not ours.
func cardEmbedded(t *testing.T, f *fake, p *browser.Page) {
	p.Open(f.URL + "/static/icon.svg") // some other document of the same site
	p.Open(f.URL + "/?port=marina-7")
	p.See("Live")
	p.Do(`document.body.innerHTML = '<main><h1>Settings</h1><ai-budget-card port="southdock" name="The dock" range="previous" by="model" login="/enter">No card here</ai-budget-card></main>'`)
	p.See("The dock southdock", "871,002", "Soft cap reached.", "7 events could not be booked", "Thursday, October 1 to Saturday, October 31", "claude-haiku-4-5", "Show older alerts", "Who changed what")
	p.SeeNot("reply_draft")
	p.Axe()
	p.Do(`for (const name of ['budget-change', 'budget-view']) addEventListener(name, (e) => { document.title = name + ' ' + JSON.stringify(e.detail.by ? e.detail : e.detail.hard_cap_tokens) })`)
	p.Role("textbox", "Hard cap").Fill("2M")
	p.Type(kb.Enter)
	p.Until(`document.title === 'budget-change 2000000'`)
	p.Role("button", "Undo change, version 2").Click()
	p.Role("button", "Yes, undo").Click()
	p.Until(`document.title === 'budget-change 1200000'`)
	p.Role("radio", "User").Click()
	p.Until(`document.title === 'budget-view {"range":"previous","by":"user","step":""}'`)
	if got := browser.Eval[string](p, `document.querySelector('ai-budget-card').getAttribute('by')`); got != "user" {
		t.Errorf("somebody looks at users, and the attribute says %q", got)
	}
	p.Do(`document.querySelector('ai-budget-card').setAttribute('range', 'current')`)
	p.See("Sunday, November 1 to Monday, November 30", "ada")
	f.breakWith(func(*http.Request) (int, string) { return 401, `{"title":"The session has ended","status":401}` })
	p.See("You are signed out.")
	if got := browser.Eval[string](p, `document.querySelector('ai-budget-card').shadowRoot.querySelector('.trouble a').getAttribute('href')`); got != "/enter" {
		t.Errorf("it says to sign in at %s", got)
	}
	f.breakWith(nil)
	p.Do(`document.querySelector('ai-budget-card').removeAttribute('name')`)
	p.Do(`document.querySelector('ai-budget-card').setAttribute('port', 'brightwater')`)
	p.See("brightwater", "1,041,220", "Where they went")
	p.SeeNot("could not be booked")
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
