package identity

import (
	_ "embed"
	"html/template"
	"net/http"

	"github.com/tidegate/tidegate/identity/safehttp"
)

//go:embed login.html
var loginHTML string

//go:embed login.css
var loginCSS []byte

var loginPage = template.Must(template.New("login").Parse(loginHTML))

// view is what the page shows.
type view struct {
	Next     string // where to go afterwards
	Problem  *safehttp.Problem
	Links    bool
	Tokens   bool
	Provider string // its name; "": there is none
	SignedIn string // who is, and may not do this; "": nobody
}

func (l *Login) page(w http.ResponseWriter, status int, v view) {
	v.Links, v.Tokens = l.cfg.LinkCaller != nil, l.tokens() != nil
	if l.cfg.Provider != nil {
		v.Provider = l.cfg.Provider.name()
	}
	writePage(w, status, v)
}

func writePage(w http.ResponseWriter, status int, v view) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = loginPage.Execute(w, v) // the client is gone: nobody to tell
}

func serveStyle(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	w.Header().Set("Cache-Control", "public, max-age=3600")
	_, _ = w.Write(loginCSS) // the client is gone: nobody to tell
}
