package admin_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// Whatever stands for a period or a page is answered, or refused with its name.
func TestOddPeriodsAndCursors(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.usage("p1", noon)
	w.put(`{"enabled":true,"soft_cap_tokens":null,"hard_cap_tokens":100000,"period":"month","limits":[{"name":"each-user","per":"user_id","window":"day","hard":25000}]}`, `"0"`).want(w, http.StatusOK)
	periods := []string{"0000-01", "0001-01", "9999-12", "1969-12", "2026-13", "2026-1", "2026-11-01", "now", "-001-01", "٢٠٢٦-١١", strings.Repeat("9", 500)}
	cursors := []string{"x", ":", "1", "1:", "-1:ocr", "+1:ocr", "1:ocr", "99999999999999999999:ocr", "9223372036854775807:ocr", "1:2026-13-99", "0:infinity", "1:\u202e", "p1/../", "1:" + strings.Repeat("x", 5000)}
	for path, names := range map[string]string{
		"/ports/p1/ai-usage": "period", "/ports/p1/ai-usage.csv": "period", "/ports/p1/ai-budget/simulate?hard=1": "of",
		"/ports/p1/ai-usage?by=day&period=current": "after", "/ports/p1/ai-usage?by=user&period=current": "after", "/ports/p1/ai-usage?by=feature&period=current": "after",
		"/ports/p1/ai-usage/limit?limit_name=each-user": "after", "/ports": "after", "/ports/p1/audit": "before", "/default-budget/audit": "before",
	} {
		values := cursors
		if names == "period" || names == "of" {
			values = periods
		}
		for _, value := range values {
			sign := "?"
			if strings.Contains(path, "?") {
				sign = "&"
			}
			a := w.do(request{token: w.all, path: "/api/v1" + path + sign + names + "=" + url.QueryEscape(value)})
			if a.StatusCode != http.StatusOK && (a.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(a.text, `"`+names+`"`)) {
				t.Errorf("%s %s=%.40q: %d %.300s", path, names, value, a.StatusCode, a.text)
			}
		}
	}
	for _, period := range periods {
		a := w.do(request{token: w.all, method: "POST", path: "/api/v1/ports/p1/ai-budget/simulate-limit?of=" + url.QueryEscape(period), body: `{"name":"l","window":"week","hard":1}`})
		if a.StatusCode != http.StatusOK && a.StatusCode != http.StatusUnprocessableEntity {
			t.Errorf("simulate-limit of=%.40q: %d %.300s", period, a.StatusCode, a.text)
		}
	}
	for _, tag := range []string{`"+1"`, `+1`, `"01"`, `"1`, `1"`, `""`, `" 1"`} {
		if a := w.put(`{"enabled":true,"soft_cap_tokens":null,"hard_cap_tokens":1,"period":"month"}`, tag); a.StatusCode == http.StatusOK || a.StatusCode >= 500 {
			t.Errorf("If-Match: %s: %d %s", tag, a.StatusCode, a.text)
		}
	}
}
