package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"

	"github.com/tidegate/tidegate/internal/browser"
)

func TestPage(t *testing.T) {
	b := browser.Start(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, *fake, *browser.Page)
	}{
		{"Overview", pageOverview},
		{"Table", pageTable},
		{"Table by keyboard", pageTableKeyboard},
		{"Nothing here", pageNothingHere},
		{"Ports", pagePorts},
		{"No ports", pageNoPorts},
		{"Unsaved", pageUnsaved},
		{"Phone", pagePhone},
		{"Formats", pageFormats},
		{"Polls", pagePolls},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t, newFake(t), b.Page(t))
		})
	}
}

func pagePorts(t *testing.T, f *fake, p *browser.Page) {
	for i := range 120 {
		f.add(fmt.Sprintf("berth-%03d", i), fmt.Sprintf("Berth %d", i), int64(1000*i), monthly(nil, tokens(60_000)))
	}
	f.add("quay", "The Old Quay", 12)
	p.Open(f.URL + "/?port=berth-000")
	p.See("Live", "121", "Berth 49")
	p.SeeNot("Berth 50")
	p.Role("button", "Show more").Click()
	p.See("Berth 99", "Hard cap reached")
	search := p.Role("searchbox", "Search ports")
	search.Fill("old q")
	p.See("The Old Quay", "1 found")
	p.SeeNot("Berth 1")
	search.Fill("nothing like it")
	p.See("No port matches “nothing like it”.")
	search.Fill("BERTH-11")
	p.See("10 found", "Berth 110")
	p.Role("link", "Berth 112 112K · 187% Hard cap reached of 60,000").Click()
	p.See("Berth 112 berth-112", "112,000 tokens this month")
	if got, want := p.URL(), f.URL+"/?port=berth-112"; got != want {
		t.Errorf("the address is %s, want %s", got, want)
	}
	looks(p, "ports")
	p.Do("history.back()")
	p.See("Berth 0 berth-000")
	p.Do("history.forward()")
	p.See("Berth 112 berth-112")
	p.Reload()
	p.See("Berth 112 berth-112") // beyond the first page of the list, and marked there
	p.Role("link", "Berth 112 112K · 187% Hard cap reached of 60,000")
	p.Role("link", "Berth 49 49K · 82% of 60,000").Click() // far down in the list: the card is in sight
	p.See("Berth 49 berth-049")
	if top := browser.Eval[float64](p, "document.querySelector('ai-budget-card').getBoundingClientRect().top"); top < 0 || top > 300 {
		t.Errorf("the card begins %.0f px below the top of the window", top)
	}
}

// pageOverview: what it says leads to where something can be done about it.
func pageOverview(t *testing.T, f *fake, p *browser.Page) {
	f.harbour()
	answer := make(chan struct{})
	f.breakWith(func(r *http.Request) (int, string) {
		if strings.HasSuffix(r.URL.Path, "/session") {
			hold(r, answer)
		}
		return 0, ""
	})
	p.Open(f.URL + "/")
	p.Until(`document.querySelector('.loading i')?.offsetHeight > 50`) // something is there at once
	close(answer)
	p.Until(`!document.querySelector('.loading')`)
	p.See("Tokens in November", "25% more than the", "Ports at their hard cap 1 Calls are refused: see them. 31 refused today", "Brightwater Marina 31 times today by its hard cap last Nov 23, 15:29", "South Dock 1 time on Nov 21 by the limit each-user", "Ports at their soft cap 1", "Tokens never reported, 31 days 4,100 3 reservations, most of South Dock: tidegate holds southdock",
		"Messages waiting to be booked 12 The oldest came 1m 30s ago.", "East Quay 3,120,400", "Users this month grace@eastquay 1,040,133 18% in East Quay", "Brightwater Marina reached its hard cap, 1,000,000 tokens", "Nov 23, 12:30", "All times and days are UTC")
	looks(p, "overview", look{"dark", 1280}, look{"light", 360})
	p.Role("group", "Tokens by day and feature: the arrow keys read it out").Focus()
	p.Type(kb.ArrowLeft)
	p.See("Nov 23: ", "; ocr ")
	p.Type(kb.ArrowLeft, kb.ArrowLeft)
	p.See("Nov 21: ")
	p.Role("DisclosureTriangle", "As a table").Click()
	p.See("Monday, November 23", "others")
	p.Role("link", "Calls are refused: see them").Click()
	p.See("1 found", "Brightwater Marina")
	p.SeeNot("East Quay", "Tokens in November")
	if got, want := p.URL(), f.URL+"/ports?state=hard&sort=share"; got != want {
		t.Errorf("the address is %s, want %s", got, want)
	}
	p.Do("history.back()")
	p.See("Tokens in November")
	p.Role("link", "East Quay").Click()
	p.See("East Quay eastquay", "3,120,400 tokens this month")
	p.Role("link", "Overview").Click()
	p.See("Tokens in November")
	p.Role("link", "grace@eastquay").Click()
	p.See("East Quay eastquay", "User")
	if got, want := p.URL(), f.URL+"/?port=eastquay&by=user&range=2026-11"; got != want {
		t.Errorf("the address is %s, want %s", got, want)
	}
	p.Do("history.back()")
	p.See("Tokens in November")
	f.breakWith(func(r *http.Request) (int, string) {
		if strings.HasPrefix(r.URL.Path, "/api/") {
			return 401, `{"title":"The session has ended","status":401}`
		}
		return 0, ""
	})
	p.See("You are signed out. Sign in")
}

func pageTable(t *testing.T, f *fake, p *browser.Page) {
	f.harbour()
	for i := range 120 {
		f.add(fmt.Sprintf("zberth-%03d", i), fmt.Sprintf("Berth %d", i), int64(1000*i), monthly(nil, tokens(60_000)))
	}
	p.Open(f.URL + "/ports")
	p.See("126 ports", "Brightwater Marina brightwater", "1,041,220 this month 104%", "Hard cap reached", "no hard cap", "today", "never")
	p.SeeNot("Berth 80")
	looks(p, "table", look{"dark", 1280}, look{"light", 360})
	p.Role("button", "Show more").Click()
	p.See("Berth 80")
	p.Role("button", "Of its tightest limit").Click()
	p.Until(`document.querySelector('#table tbody a').textContent === 'Berth 119'`)
	if got := browser.Eval[string](p, `document.querySelector('#table [data-sort=share]').closest('th').ariaSort`); got != "descending" {
		t.Errorf("the column says that it is sorted %s", got)
	}
	p.Do(`const s = document.querySelector('#table-state'); s.value = 'soft'; s.dispatchEvent(new Event('change'))`)
	p.See("1 found", "South Dock")
	p.SeeNot("Berth 119")
	p.Reload() // the address says it all
	p.See("1 found", "South Dock")
	p.Role("searchbox", "Search ports").Fill("nothing like it")
	p.See("No port matches “nothing like it” and is in the state “Soft cap reached”.")
	looks(p, "table-empty")
	p.Role("button", "Show all ports").Click()
	p.See("126 ports")
	p.Role("searchbox", "Search ports").Fill("BERTH 11")
	p.See("11 found", "Berth 119")
	if got, want := p.URL(), f.URL+"/ports?q=BERTH+11&sort=share"; got != want {
		t.Errorf("the address is %s, want %s", got, want)
	}
	p.Role("link", "Berth 112").Click()
	p.See("Berth 112 zberth-112", "112,000 tokens this month")
	p.Do("history.back()")
	p.See("11 found")
}

// pageTableKeyboard finds a port and opens it, without a mouse.
func pageTableKeyboard(t *testing.T, f *fake, p *browser.Page) {
	f.harbour()
	p.Open(f.URL + "/")
	p.See("Tokens in November")
	p.Role("link", "Ports").Focus()
	p.Type(kb.Enter)
	p.See("6 ports")
	p.Role("searchbox", "Search ports").Focus()
	p.Type("south")
	p.See("1 found")
	p.Role("link", "South Dock").Focus()
	p.Type(kb.Enter)
	p.See("871,002 tokens this month")
}

func pageNothingHere(t *testing.T, f *fake, p *browser.Page) {
	f.harbour()
	p.Open(f.URL + "/prots")
	p.See("There is nothing at this address")
	looks(p, "nothing-here")
	p.Role("link", "Ports").Click()
	p.See("6 ports")
}

func pageNoPorts(t *testing.T, f *fake, p *browser.Page) {
	p.Open(f.URL + "/")
	p.See("No port yet", "curl "+f.URL+"/v1/usage", "--port marina-7")
	looks(p, "no-ports")
	p.Role("button", "Copy the command").Click()
	p.See("Copied")
	f.add("marina-7", "", 1500)
	p.See("Overview", "marina-7", "1,500") // by itself
}

func pageUnsaved(t *testing.T, f *fake, p *browser.Page) {
	f.harbour()
	answer := p.Dialogs()
	p.Open(f.URL + "/?port=marina-7")
	hard := p.Role("textbox", "Hard cap")
	hard.Fill("2M")
	answer(false)
	p.Role("link", "South Dock 871K · 73% Soft cap reached of 1,200,000").Click()
	if got := hard.Property("value"); got != "2,000,000" {
		t.Errorf("whoever wants to keep an edit loses it: %q", got)
	}
	answer(true)
	p.Role("link", "South Dock 871K · 73% Soft cap reached of 1,200,000").Click()
	p.See("South Dock southdock")
	if got := hard.Property("value"); got != "1,200,000" {
		t.Errorf("the edit went along to another port: %q", got)
	}
	if b := f.port("marina-7").budget; *b.HardCapTokens != 1_000_000 {
		t.Errorf("stored: %+v", b)
	}
}

func pagePhone(t *testing.T, f *fake, p *browser.Page) {
	f.harbour()
	p.Size(360, 740)
	p.Open(f.URL + "/ports")
	p.See("Brightwater Marina", "Hard cap reached")
	p.SeeNot("tokens this month")
	p.Screenshot("list")
	p.Axe()
	fits(p)
	p.Role("link", "Brightwater Marina").Click()
	p.See("1,041,220 tokens this month")
	p.SeeNot("East Quay")
	p.Role("textbox", "Hard cap").Fill("1.2M")
	p.Type(kb.Enter)
	p.See("Saved", "Hard cap 1,200,000")
	p.Role("link", "All ports").Click()
	p.See("East Quay")
	p.SeeNot("tokens this month")
}

// pageFormats runs the functions that people never see alone.
func pageFormats(t *testing.T, f *fake, p *browser.Page) {
	p.Open(f.URL + "/")
	for expression, want := range map[string]string{
		"duration(6.33 * 86400e3)": "6d 7h", "duration(3661e3)": "1h 1m", "duration(59e3)": "59s", "duration(61e3)": "1m 1s", "duration(-5)": "0s",
		"percent(0)": "0%", "percent(0.0001)": "<1%", "percent(0.614)": "61%", "percent(0.9996)": "99.9%", "percent(1)": "100%", "percent(1.5)": "150%",
		"compact(1234567)": "1.2M", "tokens(1234567)": "1,234,567", "ordinal(1)": "1st", "ordinal(22)": "22nd", "ordinal(13)": "13th", "ordinal(23)": "23rd",
		"utcMoment(new Date('2026-12-01T00:00:00Z'))": "Dec 1, 00:00", "axis(1250000)": "1.25M",
		"ceiling(1)": "2", "ceiling(7)": "8", "ceiling(1000)": "1000", "ceiling(1001)": "1200", "ceiling(131000)": "150000", "ceiling(15001)": "20000", "ceiling(2.1e9)": "2500000000", "ceiling(251)": "300", "ceiling(4.2e6)": "5000000", "ceiling(9e6)": "10000000",
		"bounds('week', Date.UTC(2026, 10, 29))[0] / 864e5 - Date.UTC(2026, 10, 23) / 864e5": "0", "bounds('month', Date.UTC(2026, 11, 31, 23))[1] - Date.UTC(2027, 0)": "0", "bounds('hour', Date.UTC(2026, 0, 1, 5, 59))[1] - Date.UTC(2026, 0, 1, 6)": "0",
	} {
		if got := browser.Eval[string](p, `Promise.all(['format', 'stack', 'period'].map((f) => import('/static/' + f + '.js'))).then((all) => { const m = Object.assign({}, ...all); const v = m.`+expression+`; return typeof v === 'string' ? v : JSON.stringify(v) })`); got != want {
			t.Errorf("%s is %s, want %s", expression, got, want)
		}
	}
}

// pagePolls counts the runs of a poll of 20 ms in 600 ms.
func pagePolls(t *testing.T, f *fake, p *browser.Page) {
	p.Open(f.URL + "/static/icon.svg")
	for _, c := range []struct {
		name, work  string
		least, most int
	}{
		{"when all is well", "", 10, 30},
		{"when it fails", "throw new Error('outage')", 3, 6}, // after 0, 40, 120, 280, 600 ms
		{"when hidden after the third run", "if (runs === 3) { hidden = true; document.dispatchEvent(new Event('visibilitychange')) }", 3, 3},
		{"when stopped by the third run", "if (runs === 3) poll.stop()", 3, 3},
		{"when hurried in the second run", "if (runs === 2) { poll.now(); poll.now() } if (runs > 2) poll.stop()", 3, 3},
	} {
		runs := browser.Eval[int](p, `import('/static/poll.js').then(({Poll}) => new Promise((done) => {
			let runs = 0, hidden = false;
			Object.defineProperty(document, 'hidden', {get: () => hidden, configurable: true});
			const poll = new Poll(async () => { runs++; `+c.work+` }, {every: 20});
			poll.start();
			setTimeout(() => { poll.stop(); done(runs); }, 600);
		}))`)
		if runs < c.least || runs > c.most {
			t.Errorf("%s it ran %d times, want %d to %d", c.name, runs, c.least, c.most)
		}
	}
}
