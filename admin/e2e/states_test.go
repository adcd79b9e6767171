package e2e

import (
	"testing"

	"github.com/tidegate/tidegate/internal/browser"
)

func TestLook(t *testing.T) {
	f := newFake(t)
	f.harbour()
	p := browser.Start(t).Page(t)
	for _, port := range []string{"marina-7", "southdock", "brightwater", "archive"} {
		p.Open(f.URL + "/?port=" + port)
		p.See("Live")
		for _, size := range []struct {
			name string
			w, h int64
		}{{"1280", 1280, 800}, {"768", 768, 1024}, {"360", 360, 740}} {
			p.Size(size.w, size.h)
			for _, scheme := range []string{"light", "dark"} {
				p.Prefers("prefers-color-scheme", scheme, "prefers-reduced-motion", "reduce")
				p.Screenshot(port + "-" + size.name + "-" + scheme)
			}
		}
	}
}
