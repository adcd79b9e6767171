package browser

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/dom"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// Element is a thing on the page as assistive technology knows it.
type Element struct {
	page *Page
	what string
	role string
	name string
}

// Role finds an element by its ARIA role and its whole accessible name, shadow
// trees included: p.Role("button", "Save"). Nothing is looked up before it is used,
// and what uses it waits until there is exactly one.
func (p *Page) Role(role, name string) Element {
	return Element{page: p, what: fmt.Sprintf("the %s %q", role, name), role: role, name: name}
}

// nodes are the elements that match and are not hidden from assistive technology.
func (e Element) nodes() ([]*accessibility.Node, error) {
	ctx, cancel := e.page.in()
	defer cancel()
	root, err := chromedp.Call(ctx, dom.GetDocument, dom.GetDocumentParams{})
	if err != nil {
		return nil, err
	}
	found, err := chromedp.Call(ctx, accessibility.QueryAXTree, accessibility.QueryAXTreeParams{
		BackendNodeID: root.Root.BackendNodeID, Role: e.role, AccessibleName: e.name,
	})
	if err != nil {
		return nil, err
	}
	var seen []*accessibility.Node
	for _, n := range found.Nodes {
		if !n.Ignored {
			seen = append(seen, n)
		}
	}
	return seen, nil
}

// node waits for the one element.
func (e Element) node() (node *accessibility.Node) {
	e.page.t.Helper()
	e.page.eventually(e.what, func() (bool, string) {
		nodes, err := e.nodes()
		if err != nil {
			return false, err.Error()
		}
		if len(nodes) != 1 {
			return false, fmt.Sprintf("there are %d", len(nodes))
		}
		node = nodes[0]
		return true, ""
	})
	return node
}

// Exists reports whether it is on the page right now.
func (e Element) Exists() bool {
	e.page.t.Helper()
	nodes, err := e.nodes()
	e.page.do("find "+e.what, err)
	return len(nodes) > 0
}

// Wait waits until it is there.
func (e Element) Wait() Element {
	e.page.t.Helper()
	e.node()
	return e
}

// Gone waits until it is not there.
func (e Element) Gone() {
	e.page.t.Helper()
	e.page.eventually(e.what+" to go", func() (bool, string) { return !e.Exists(), "it is still there" })
}

// Click scrolls to it and presses the left mouse button in its middle, once it stays where
// it is: what is shown above it may come late. Where it moved away under the mouse all the
// same, it is looked for again, as a person would.
func (e Element) Click() {
	e.page.t.Helper()
	for range 5 {
		if e.clickOnce() {
			return
		}
	}
	e.page.t.Fatalf("browser: clicks on %s do not reach it", e.what)
}

func (e Element) clickOnce() (reached bool) {
	e.page.t.Helper()
	p, id := e.page, e.node().BackendDOMNodeID
	ctx, cancel := p.in()
	defer cancel()
	_, err := chromedp.Call(ctx, dom.ScrollIntoViewIfNeeded, dom.ScrollIntoViewIfNeededParams{BackendNodeID: id})
	p.do("scroll to "+e.what, err)
	var place, before dom.Quad
	for place = e.place(ctx, id); !slices.Equal(place, before); {
		before = place
		Eval[bool](p, "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")
		place = e.place(ctx, id)
	}
	if len(place) == 0 {
		return false
	}
	object, err := chromedp.Call(ctx, dom.ResolveNode, dom.ResolveNodeParams{BackendNodeID: id})
	p.do("watch "+e.what, err)
	_, err = chromedp.Call(ctx, runtime.CallFunctionOn, runtime.CallFunctionOnParams{ObjectID: object.Object.ObjectID, FunctionDeclaration: `function () {
		window.tidegateReached = false;
		this.addEventListener('click', () => { window.tidegateReached = true; }, {once: true, capture: true});
	}`})
	p.do("watch "+e.what, err)
	p.do("click "+e.what, chromedp.Do(ctx, chromedp.MouseClickXY((place[0]+place[4])/2, (place[1]+place[5])/2)))
	missed, err := chromedp.Call(ctx, runtime.Evaluate, runtime.EvaluateParams{Expression: "window.tidegateReached === false"})
	return err != nil || string(missed.Result.Value) != "true" // on another page by now
}

// place is nil once the page has another element instead.
func (e Element) place(ctx context.Context, id cdp.BackendNodeID) dom.Quad {
	e.page.t.Helper()
	box, err := chromedp.Call(ctx, dom.GetContentQuads, dom.GetContentQuadsParams{BackendNodeID: id})
	e.page.do("find the place of "+e.what, err)
	if len(box.Quads) == 0 {
		return nil
	}
	return box.Quads[0]
}

// Focus puts the keyboard focus on it.
func (e Element) Focus() {
	e.page.t.Helper()
	ctx, cancel := e.page.in()
	defer cancel()
	_, err := chromedp.Call(ctx, dom.Focus, dom.FocusParams{BackendNodeID: e.node().BackendDOMNodeID})
	e.page.do("focus "+e.what, err)
}

// Fill replaces the text of a field, key by key, and leaves the focus in it.
func (e Element) Fill(text string) {
	e.page.t.Helper()
	e.Focus()
	e.page.Chord("a", chromedp.ModifierCtrl)
	e.page.Type(kb.Backspace, text)
}

// Type presses keys, which go to whatever has the focus: text, or the constants
// of chromedp's package kb.
func (p *Page) Type(keys ...string) {
	p.t.Helper()
	ctx, cancel := p.in()
	defer cancel()
	for _, k := range keys {
		p.do("type "+k, chromedp.Do(ctx, chromedp.KeyEvent(k)))
	}
}

// Chord presses one key with modifiers: p.Chord(kb.Tab, chromedp.ModifierShift).
func (p *Page) Chord(key string, modifiers ...chromedp.Modifier) {
	p.t.Helper()
	ctx, cancel := p.in()
	defer cancel()
	p.do("press "+key, chromedp.Do(ctx, chromedp.KeyEvent(key, chromedp.KeyModifiers(modifiers...))))
}

// Paste enters text at once, as an input method would.
func (p *Page) Paste(text string) {
	p.t.Helper()
	ctx, cancel := p.in()
	defer cancel()
	_, err := chromedp.Call(ctx, input.InsertText, input.InsertTextParams{Text: text})
	p.do("paste "+text, err)
}

// Property is a property that assistive technology sees: "value", "checked",
// "invalid", "disabled", "focused", "description". Absent ones are empty.
func (e Element) Property(name string) string {
	e.page.t.Helper()
	node := e.node()
	switch name {
	case "value":
		return text(node.Value)
	case "description":
		return text(node.Description)
	}
	for _, prop := range node.Properties {
		if string(prop.Name) == name {
			return text(prop.Value)
		}
	}
	return ""
}

func text(v *accessibility.Value) string {
	if v == nil {
		return ""
	}
	return strings.Trim(string(v.Value), `"`)
}
