package browser

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// visibleText collects what a person can read, in the order of the document, also beyond the fold:
// innerText stops at shadow roots. Its spaces are plain ones, whatever the locale puts between digits.
const visibleText = `(() => {
	const parts = [];
	const read = (root) => {
		for (const child of root.children) {
			if (child.checkVisibility && !child.checkVisibility({visibilityProperty: true})) continue;
			parts.push(child.innerText ?? '');
			for (const host of [child, ...child.querySelectorAll('*')]) {
				if (host.shadowRoot && host.checkVisibility()) read(host.shadowRoot);
			}
		}
	};
	if (document.body) read({children: [document.body]});
	return parts.join('\n').replace(/[\u00a0\u202f]/g, ' ');
})()`

// firstThat is how many of the texts, from the first, can be seen, or cannot, and what can be seen
// where that is not all. The page compares: its text is sent only to be shown to people.
const firstThat = `(texts, seen) => {
	const flat = (text) => text.trim().split(/\s+/).join(' ');
	const all = flat(` + visibleText + `);
	const not = texts.findIndex((text) => all.includes(flat(text)) !== seen);
	return not < 0 ? {count: texts.length, all: ''} : {count: not, all};
}`

// See waits until each text can be seen, one after the other, whatever the line breaks between words.
func (p *Page) See(texts ...string) {
	p.t.Helper()
	p.watch("%q", texts, true)
}

// SeeNot waits until none of the texts can be seen.
func (p *Page) SeeNot(texts ...string) {
	p.t.Helper()
	p.watch("%q to go", texts, false)
}

// watch waits for each text in turn. One look at the page may do for many.
func (p *Page) watch(what string, texts []string, seen bool) {
	p.t.Helper()
	for len(texts) > 0 {
		list, err := json.Marshal(texts)
		p.do("watch", err)
		count := 0
		p.eventually(fmt.Sprintf(what, texts[0]), func() (bool, string) {
			now := Eval[struct {
				Count int
				All   string
			}](p, fmt.Sprintf("(%s)(%s, %t)", firstThat, list, seen))
			count = now.Count
			return count > 0, "the page says: " + now.All
		})
		texts = texts[count:]
	}
}

// Until waits until a JavaScript expression is true.
func (p *Page) Until(expression string) {
	p.t.Helper()
	p.eventually(expression, func() (bool, string) { return Eval[bool](p, expression), "it is not so" })
}

// Artifacts is where screenshots go: $TIDEGATE_ARTIFACTS, or artifacts/ at the top
// of the repository, which git ignores.
func Artifacts() string {
	if dir := os.Getenv("TIDEGATE_ARTIFACTS"); dir != "" {
		return dir
	}
	dir, err := os.Getwd()
	for err == nil && dir != filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, "artifacts")
		}
		dir = filepath.Dir(dir)
	}
	return os.TempDir()
}

// Screenshot writes the whole page, beyond the fold too, to
// $TIDEGATE_ARTIFACTS/screenshots/<test>/<name>.png, if there is that variable: pictures
// are for people to look at, and take their time.
func (p *Page) Screenshot(name string) {
	p.t.Helper()
	if os.Getenv("TIDEGATE_ARTIFACTS") != "" {
		p.evidence(name)
	}
}

// evidence is a screenshot that is always taken, of what went wrong.
func (p *Page) evidence(name string) {
	p.t.Helper()
	p.Capture(filepath.Join(Artifacts(), "screenshots", filepath.FromSlash(p.t.Name()), name+".png"), "", 1)
}

// Capture writes what the selector's element covers, or the whole page when it is
// empty, to a PNG file, scale device pixels to a CSS pixel.
func (p *Page) Capture(file, selector string, scale float64) {
	p.t.Helper()
	box := `(() => {
		const e = ` + fmt.Sprintf("%q", selector) + `;
		const all = document.documentElement;
		if (!e) return [0, 0, all.clientWidth, Math.max(all.scrollHeight, innerHeight)];
		const r = document.querySelector(e).getBoundingClientRect();
		return [r.x + scrollX, r.y + scrollY, r.width, r.height];
	})()`
	r := Eval[[]float64](p, box)
	ctx, cancel := p.in()
	defer cancel()
	beyond := true
	shot, err := chromedp.Call(ctx, page.CaptureScreenshot, page.CaptureScreenshotParams{
		Format:                page.CaptureScreenshotFormatPng,
		CaptureBeyondViewport: &beyond,
		Clip:                  &page.Viewport{X: r[0], Y: r[1], Width: r[2], Height: r[3], Scale: scale},
	})
	p.do("take a screenshot", err)
	p.do("write a screenshot", os.MkdirAll(filepath.Dir(file), 0o755))
	p.do("write a screenshot", os.WriteFile(file, shot.Data, 0o644))
}
