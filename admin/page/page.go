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

// Handler serves the page at / and /ports, its files below /static/, and what says that there
// is nothing at any other address, with security headers.
// Browsers keep the files and ask each time whether they are still the same, so that
// a new version is never mixed with an old one. Nothing here needs a session: what
// the page shows comes from the API.
func Handler() http.Handler {
	mux := http.NewServeMux()
	all := assets()
	for pattern, a := range all {
		mux.Handle("GET "+pattern, a)
	}
	mux.Handle("GET /ports", all["/{$}"])
	mux.Handle("/", nothingHere(all["/static/404.html"].body))
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

// nothingHere answers people with a page, and programs with a line.
func nothingHere(page []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !safehttp.PrefersHTML(r) {
			http.Error(w, "there is nothing at this address: the API is below /api/v1", http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", kinds[".html"])
		w.Header().Set("Cache-Control", "no-cache")
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write(page) // the browser is gone: nobody to tell
	})
}
