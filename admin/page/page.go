// Package page is the front end: our page, and the element <ai-budget-card> that any
// page of the same site can embed. Its files are in the binary as they are in
// static/; nothing builds them.
package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"time"

	"github.com/tidegate/tidegate/identity/safehttp"
)

//go:embed static
var files embed.FS

// kinds are the content types of what is in static/, not left to the machine's
// own idea of them.
var kinds = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

type asset struct {
	name, kind, etag string
	body             []byte
}

// Handler serves the page at / and its files below /static/, with security headers.
// Browsers keep the files and ask each time whether they are still the same, so that
// a new version is never mixed with an old one. Nothing here needs a session: what
// the page shows comes from the API.
func Handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, a := range assets() {
		mux.Handle("GET "+pattern, a)
	}
	return safehttp.SecureHeaders(mux)
}

// assets are the files by the pattern they are served at.
func assets() map[string]asset {
	found := map[string]asset{}
	err := fs.WalkDir(files, "static", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		body, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		kind, ok := kinds[path.Ext(name)]
		if !ok {
			return fmt.Errorf("%s has no known content type", name)
		}
		sum := sha256.Sum256(body)
		pattern := "/" + name
		if name == "static/index.html" {
			pattern = "/{$}"
		}
		found[pattern] = asset{name: name, kind: kind, etag: `"` + hex.EncodeToString(sum[:12]) + `"`, body: body}
		return nil
	})
	if err != nil { // the files are in the binary: a test meets this before anyone else
		panic("web: " + err.Error())
	}
	return found
}

func (a asset) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", a.kind)
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", a.etag)
	http.ServeContent(w, r, a.name, time.Time{}, bytes.NewReader(a.body))
}
