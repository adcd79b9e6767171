package browser

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto"
	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/css"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// Page is one tab. A script error or a breach of the content security policy on
// it fails the test.
type Page struct {
	t   testing.TB
	ctx context.Context
}

// Page opens a tab with its own cookies, 1280 × 800.
func (b *Browser) Page(t testing.TB) *Page {
	t.Helper()
	return open(t, b.ctx, chromedp.WithNewBrowserContext())
}

// Tab opens another tab of the same person: they share their cookies.
func (p *Page) Tab() *Page {
	p.t.Helper()
	id := chromedp.FromContext(p.ctx).BrowserContextID
	return open(p.t, p.ctx, chromedp.WithExistingBrowserContext(id))
}

func open(t testing.TB, parent context.Context, in chromedp.ContextOption) *Page {
	t.Helper()
	ctx, cancel := chromedp.NewContext(parent, in)
	p := &Page{t: t, ctx: ctx}
	complaints, stop := context.WithCancel(ctx)
	console := chromedp.Console(complaints)
	var reading sync.WaitGroup
	reading.Go(func() {
		for m, err := range console {
			if err != nil {
				return
			}
			if m.IsException() || m.Type == chromedp.ConsoleError && m.Source != "network" {
				t.Errorf("the page complains: %s (%s:%d)", m.Text, m.URL, m.Line+1)
			}
		}
	})
	t.Cleanup(func() {
		stop()
		reading.Wait()
		cancel()
	})
	p.hearLess()
	p.keepFocus()
	p.mayCopy()
	p.Size(1280, 800)
	return p
}

// hearLess ends what Chromium tells of each request and style sheet, which nothing here asks for:
// to write it down and to read it again is much of the work of opening a page.
func (p *Page) hearLess() {
	p.t.Helper()
	ctx, cancel := p.in()
	defer cancel()
	for _, domain := range []cdp.Command[cdp.Empty, cdp.Empty]{network.Disable, css.Disable} {
		_, err := chromedp.Call(ctx, domain, cdp.Empty{})
		p.do("hear less", err)
	}
}

// mayCopy lets the page write to the clipboard. Chromium with windows does so without asking.
func (p *Page) mayCopy() {
	p.t.Helper()
	ctx, cancel := p.in()
	defer cancel()
	_, err := chromedp.CallBrowser(ctx, browser.SetPermission, browser.SetPermissionParams{
		Permission: &browser.PermissionDescriptor{Name: "clipboard-write"}, Setting: browser.PermissionSettingGranted, BrowserContextID: chromedp.FromContext(p.ctx).BrowserContextID,
	})
	p.do("let the page copy", err)
}

// keepFocus makes the tab behave as the one in front, whatever else is open.
func (p *Page) keepFocus() {
	p.t.Helper()
	ctx, cancel := p.in()
	defer cancel()
	_, err := chromedp.Call(ctx, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
	p.do("keep the focus", err)
}

// do fails the test when err is not nil.
func (p *Page) do(what string, err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatalf("browser: %s: %v", what, err)
	}
}

// in gives one action the patience of the test.
func (p *Page) in() (context.Context, context.CancelFunc) {
	return context.WithTimeout(p.ctx, patience)
}

// Open goes to the address and waits until it has loaded.
func (p *Page) Open(url string) {
	p.t.Helper()
	ctx, cancel := p.in()
	defer cancel()
	p.do("open "+url, chromedp.Do(ctx, chromedp.Navigate(url)))
}

// Reload loads the page again.
func (p *Page) Reload() {
	p.t.Helper()
	ctx, cancel := p.in()
	defer cancel()
	p.do("reload", chromedp.Do(ctx, chromedp.Reload()))
}

// URL is where the page is.
func (p *Page) URL() string {
	p.t.Helper()
	return Eval[string](p, "location.href")
}

// Size changes the viewport, in CSS pixels.
func (p *Page) Size(width, height int64) {
	p.t.Helper()
	ctx, cancel := p.in()
	defer cancel()
	p.do("resize", chromedp.Do(ctx, chromedp.EmulateViewport(width, height)))
}

// Prefers sets what the person prefers: Prefers("prefers-color-scheme", "dark").
// Features left out have the browser's own values again.
func (p *Page) Prefers(featuresAndValues ...string) {
	p.t.Helper()
	var features []*emulation.MediaFeature
	for i := 0; i+1 < len(featuresAndValues); i += 2 {
		features = append(features, &emulation.MediaFeature{Name: featuresAndValues[i], Value: featuresAndValues[i+1]})
	}
	ctx, cancel := p.in()
	defer cancel()
	_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features})
	p.do("set "+strings.Join(featuresAndValues, " "), err)
}

// Locale makes the page format numbers and dates for another one, like "de-DE".
func (p *Page) Locale(locale string) {
	p.t.Helper()
	ctx, cancel := p.in()
	defer cancel()
	_, err := chromedp.Call(ctx, emulation.SetLocaleOverride, emulation.SetLocaleOverrideParams{Locale: locale})
	p.do("set the locale "+locale, err)
}

// Dialogs says how the person answers the page's questions from now on (confirm,
// beforeunload). At first it is yes.
func (p *Page) Dialogs() (answer func(yes bool)) {
	p.t.Helper()
	var no atomic.Bool
	var answering sync.WaitGroup
	p.t.Cleanup(answering.Wait)
	p.do("answer dialogs", chromedp.Listen(p.ctx, func(ev any) {
		if _, ok := ev.(*page.EventJavascriptDialogOpening); ok {
			answering.Go(func() { // a listener must not wait
				ctx, cancel := p.in()
				defer cancel()
				_, _ = chromedp.Call(ctx, page.HandleJavaScriptDialog, page.HandleJavaScriptDialogParams{Accept: !no.Load()})
			})
		}
	}))
	return func(yes bool) { no.Store(!yes) }
}

// Eval runs a JavaScript expression, awaits it, and returns its value. When the page
// goes elsewhere meanwhile, it asks again there.
func Eval[T any](p *Page, expression string) T {
	p.t.Helper()
	return evalWithin[T](p, patience, expression)
}

func evalWithin[T any](p *Page, patience time.Duration, expression string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	for {
		v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
		if err != nil && navigated(err) && ctx.Err() == nil {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		p.do("evaluate "+firstLine(expression), err)
		return v
	}
}

func navigated(err error) bool {
	var e *cdproto.Error
	return errors.As(err, &e) && (strings.Contains(e.Message, "navigated") || strings.Contains(e.Message, "context"))
}

// Do runs JavaScript for its effect.
func (p *Page) Do(script string) {
	p.t.Helper()
	ctx, cancel := p.in()
	defer cancel()
	_, err := chromedp.Call(ctx, runtime.Evaluate, runtime.EvaluateParams{Expression: script})
	p.do("run "+firstLine(script), err)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

// eventually asks until ok, and fails the test with the last explanation. What is not there soon it
// asks for less often: to look is work, mostly for the browser.
func (p *Page) eventually(what string, ok func() (bool, string)) {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, 160*time.Millisecond) {
		done, seen := ok()
		if done {
			return
		}
		if time.Now().After(deadline) {
			p.evidence("failed")
			p.t.Fatalf("browser: waited %s for %s; %s", patience, what, seen)
		}
		time.Sleep(pause)
	}
}

// Fail fails the test and lets it go on.
func (p *Page) Fail(format string, args ...any) {
	p.t.Helper()
	p.t.Errorf(format, args...)
}
