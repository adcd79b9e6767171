package safehttp

import (
	"mime"
	"net/http"
	"strconv"
	"strings"
)

// PrefersHTML reports whether the client would rather have a page than JSON: a
// browser that navigates does, fetch and curl, which take anything, do not.
func PrefersHTML(r *http.Request) bool {
	html, json := 0.0, 0.0
	htmlRank, jsonRank := 0, 0
	for _, header := range r.Header.Values("Accept") {
		for part := range strings.SplitSeq(header, ",") {
			kind, params, err := mime.ParseMediaType(part)
			if err != nil {
				continue
			}
			q := quality(params["q"])
			html, htmlRank = mostSpecific(kind, "text/html", q, html, htmlRank)
			json, jsonRank = mostSpecific(kind, "application/json", q, json, jsonRank)
		}
	}
	return html > json
}

// Navigates reports whether a person's browser goes where r asks.
func Navigates(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && PrefersHTML(r)
}

// mostSpecific keeps the quality of the range that names want most closely:
// text/html before text/* before */*.
func mostSpecific(kind, want string, q, known float64, rank int) (float64, int) {
	family, _, _ := strings.Cut(want, "/")
	found := 0
	switch kind {
	case want:
		found = 3
	case family + "/*":
		found = 2
	case "*/*":
		found = 1
	}
	if found > rank {
		return q, found
	}
	return known, rank
}

func quality(q string) float64 {
	if q == "" {
		return 1
	}
	value, err := strconv.ParseFloat(q, 64)
	if err != nil || !(value >= 0 && value <= 1) {
		return 0
	}
	return value
}
