package safehttp

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"strings"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

var (
	page = template.Must(template.New("page").Parse(pageHTML))
	// pagePolicy lets a page have this one style and load nothing at all: it stands for
	// itself where nothing else is served, as while a server starts.
	pagePolicy = "default-src 'none'; style-src 'sha256-" + hashOf(pageCSS) + "'; img-src data:; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)

func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Refuse answers with the problem: a browser that navigates gets a page, everybody else the
// document of [WriteProblem]. No cache keeps either.
func Refuse(w http.ResponseWriter, r *http.Request, p Problem) {
	if !Navigates(r) {
		WriteProblem(w, p)
		return
	}
	p.Detail = strings.TrimRight(p.Detail, ".")
	var body bytes.Buffer
	if err := page.Execute(&body, struct {
		Problem
		Style template.CSS
	}{p, template.CSS(pageCSS)}); err != nil { // a test meets this before anyone else
		panic("safehttp: " + err.Error())
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	w.WriteHeader(p.Status)
	_, _ = w.Write(body.Bytes()) // the browser is gone: nobody to tell
}
