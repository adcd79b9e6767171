package identity

import (
	_ "embed"
	"html/template"
	"log/slog"
	"net/http"

	"github.com/tidegate/tidegate/identity/web"
)

//go:embed login.html
var loginHTML string

//go:embed login.css
var loginCSS []byte

var loginPage = template.Must(template.New("login").Parse(loginHTML))

// view is what the login page shows.
type view struct {
	Next     string // where to go afterwards
	Problem  *web.Problem
	Links    bool
	Provider string // its name; "": there is none
}

func (l *Login) page(w http.ResponseWriter, r *http.Request, status int, v view) {
	v.Links = l.cfg.LinkCaller != nil
	if l.cfg.Provider != nil {
		v.Provider = l.cfg.Provider.name()
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if err := loginPage.Execute(w, v); err != nil {
		l.cfg.Log.LogAttrs(r.Context(), slog.LevelDebug, "identity: the login page was not sent whole", slog.Any("error", err))
	}
}

func serveStyle(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	w.Header().Set("Cache-Control", "public, max-age=3600")
	_, _ = w.Write(loginCSS) // the client is gone: nobody to tell
}
