// Package page is the page of the receipt scan: choose a photo, see what was read,
// correct it. Its files are in the binary as they are in static/; nothing builds
// them.
package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"path"
	"time"

	"github.com/tidegate/tidegate/identity/safehttp"
)

//go:embed static
var files embed.FS

// kinds are the content types, not left to the machine's own idea of them.
var kinds = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// Handler serves the page at / and its files below /static/. Browsers keep them and
// ask each time whether they are still the same. Nothing here needs a session: what
// the page shows comes from the API.
func Handler() http.Handler {
	entries, err := files.ReadDir("static")
	if err != nil { // they are in the binary: a test meets this before anyone else
		panic("web: " + err.Error())
	}
	mux := http.NewServeMux()
	for _, entry := range entries {
		body, err := files.ReadFile("static/" + entry.Name())
		if err != nil {
			panic("web: " + err.Error())
		}
		pattern := "GET /static/" + entry.Name()
		if entry.Name() == "index.html" {
			pattern = "GET /{$}"
		}
		mux.Handle(pattern, file(entry.Name(), body))
	}
	mux.HandleFunc("/", nothingHere)
	return mux
}

func nothingHere(w http.ResponseWriter, r *http.Request) {
	safehttp.Refuse(w, r, safehttp.Problem{Type: "about:blank", Title: "There is nothing at this address", Status: http.StatusNotFound, Detail: "it may be cut off or misspelt; receipts are scanned on the first page"})
}

func file(name string, body []byte) http.Handler {
	sum := sha256.Sum256(body)
	etag := `"` + hex.EncodeToString(sum[:12]) + `"`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", kinds[path.Ext(name)])
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", etag)
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(body))
	})
}
