package admin

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tidegate/tidegate/identity/safehttp"
)

// param is a query parameter. Left out or empty it is fallback.
type param struct {
	name, about string
	words       []string // one of these; nil: see number
	number      bool     // a whole number from min to max
	min, max    int64
	longest     int // characters; 0: as many as fit into an address
	fallback    string
}

// values are the query parameters of a request that passed parseQuery.
type values map[string]string

// number is a parameter that is a number; ok is false when it was left out and
// has no fallback.
func (v values) number(name string) (n int64, ok bool) {
	n, err := strconv.ParseInt(v[name], 10, 64)
	return n, err == nil
}

// parseQuery checks everything the query says, and refuses what nobody asked for:
// a misspelt cap must not pass for no cap.
func parseQuery(params []param, raw string) (values, error) {
	given, err := url.ParseQuery(raw)
	if err != nil {
		return nil, refusal(400, "malformed-query", "The query cannot be read", err.Error()+": escape it as a URL asks for")
	}
	var wrong []safehttp.FieldError
	v := values{}
	for _, p := range params {
		text := p.fallback
		if got := given[p.name]; len(got) > 1 {
			wrong = append(wrong, safehttp.FieldError{Field: p.name, Value: quoted(strings.Join(got, ", ")), Rule: "must be given once"})
			continue
		} else if len(got) == 1 && got[0] != "" {
			text = got[0]
		}
		if rule := p.rule(text); rule != "" {
			wrong = append(wrong, safehttp.FieldError{Field: p.name, Value: quoted(text), Rule: rule})
			continue
		}
		v[p.name] = text
	}
	for _, name := range unknownNames(given, params) {
		wrong = append(wrong, safehttp.FieldError{Field: name, Value: quoted(strings.Join(given[name], ", ")), Rule: "is no parameter of this address; there are: " + names(params)})
	}
	if wrong != nil {
		return nil, invalidFields(wrong)
	}
	return v, nil
}

// rule is what text breaks, "" if nothing.
func (p param) rule(text string) string {
	switch {
	case text == "":
		return ""
	case strings.ContainsRune(text, 0) || !utf8.ValidString(text): // Postgres takes neither
		return "must be UTF-8, without a zero byte"
	case p.longest > 0 && utf8.RuneCountInString(text) > p.longest:
		return fmt.Sprintf("must have at most %d characters", p.longest)
	case p.words != nil && !slices.Contains(p.words, text):
		return "must be " + oneOf(p.words)
	case p.number:
		if n, err := strconv.ParseInt(text, 10, 64); err != nil || n < p.min || n > p.max {
			return fmt.Sprintf("must be a whole number from %d to %d", p.min, p.max)
		}
	}
	return ""
}

func unknownNames(given url.Values, params []param) (unknown []string) {
	for name := range given {
		if !slices.ContainsFunc(params, func(p param) bool { return p.name == name }) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return unknown
}

func names(params []param) string {
	if len(params) == 0 {
		return "none"
	}
	var list []string
	for _, p := range params {
		list = append(list, p.name)
	}
	return strings.Join(list, ", ")
}

func oneOf(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
