package admin_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/admin"
	"github.com/tidegate/tidegate/identity"
)

// unchanged fails when a request that was refused changed something all the same.
func (w *world) unchanged(t *testing.T) {
	t.Helper()
	got := get[budget](w, budgetPath)
	usage := get[struct {
		UsedTokens int64 `json:"used_tokens"`
		By         []struct{ Key string }
	}](w, "/api/v1/ports/p1/ai-usage?by=user")
	if got.Version != 1 || usage.UsedTokens != 110 || len(usage.By) != 1 || usage.By[0].Key != "u1" {
		t.Fatalf("a refused request changed something: %+v, %+v", got, usage)
	}
}

// guarded is a world in which p1 has spent something and has a budget.
func guarded(t *testing.T) *world {
	w := newWorld(t)
	w.usage("p1", noon)
	w.put(strings.TrimSuffix(monthly, "}")+`,"limits":[{"name":"each-user","per":"user_id","window":"day","hard":1000}]}`, `"0"`).want(w, http.StatusOK)
	return w
}

// tries reports whether the route only looks at the limit that it is sent.
func tries(r admin.Route) bool {
	return strings.HasSuffix(r.Path, "/simulate-limit") || strings.HasSuffix(r.Path, "/limit-now")
}

// valid is a request of the route that would succeed, were the caller allowed to.
func valid(r admin.Route, port, token string) request {
	req := request{method: r.Method, path: r.At(port), token: token}
	if r.Method == http.MethodPut {
		req.body, req.header = monthly, []string{"If-Match", `"1"`}
	}
	if strings.HasSuffix(r.Path, "/ai-usage/limit") {
		req.path += "?limit_name=each-user"
	}
	if tries(r) {
		req.body = `{"name":"tried","window":"day","hard":1}`
	}
	return req
}

// Every route, without exception, asks who calls, for the permission, and for the
// port.
func TestEveryRouteIsGuarded(t *testing.T) {
	t.Parallel()
	w := guarded(t)
	if len(admin.Routes()) != 25 {
		t.Errorf("the table has %d routes", len(admin.Routes()))
	}
	noPort := w.token("another port", []string{"p2"}, admin.Permission)
	// The only ones whose handler may decide what is the caller's.
	filtered := []string{"GET /api/v1/ports", "GET /api/v1/overview", "GET /api/v1/session", "POST /api/v1/logout"}
	for _, r := range admin.Routes() {
		t.Run(r.Method+" "+r.Path, func(t *testing.T) {
			if strings.Contains(r.Path, "{port}") != r.OnePort || !r.OnePort && !r.EveryPort && !slices.Contains(filtered, r.Method+" "+r.Path) {
				t.Errorf("the route reaches further than it should: %+v", r)
			}
			want := func(who string, req request, status int, kind string) {
				t.Helper()
				a := w.do(req)
				if a.StatusCode != status || !strings.HasSuffix(a.problem.Type, "#"+kind) {
					t.Errorf("%s: got %d %s, want %d %s", who, a.StatusCode, a.text, status, kind)
				}
			}
			want("nobody", valid(r, "p1", ""), 401, "unauthenticated")
			want("a token that is none", valid(r, "p1", "tg_nonsense"), 401, "invalid-token")
			want("a caller without the permission", valid(r, "p1", w.noPermission), 403, "missing-permission")
			if r.OnePort {
				want("a caller of another port", valid(r, "p1", noPort), 403, "port-not-allowed")
				want("a caller of one port, at an odd one", valid(r, "p1%20", w.onlyP1), 403, "port-not-allowed")
				want("an odd port", valid(r, "p.1", w.all), 422, "invalid-field")
			}
			if r.EveryPort {
				want("a caller limited to some ports", valid(r, "p1", w.onlyP1), 403, "port-not-allowed")
			}
			cross := valid(r, "p1", w.all)
			cross.header = append(cross.header, "Sec-Fetch-Site", "cross-site")
			if a := w.do(cross); r.Method != http.MethodGet && a.StatusCode != 403 {
				t.Errorf("from another site: got %d %s", a.StatusCode, a.text)
			}
			origin := valid(r, "p1", w.all)
			origin.header = append(origin.header, "Origin", "https://evil.example")
			if a := w.do(origin); r.Method != http.MethodGet && a.StatusCode != 403 {
				t.Errorf("from another origin: got %d %s", a.StatusCode, a.text)
			}
			large := valid(r, "p1", w.all)
			large.body = strings.Repeat(" ", 20<<10) + monthly
			if r.Method != http.MethodGet {
				want("a large body", large, 413, "body-too-large")
			}
			w.unchanged(t)
		})
	}
}

// A caller limited to a port gets on with it.
func TestACallerOfOnePort(t *testing.T) {
	t.Parallel()
	w := guarded(t)
	for _, r := range admin.Routes() {
		if r.OnePort && r.Method == http.MethodGet {
			w.do(valid(r, "p1", w.onlyP1)).want(w, http.StatusOK)
		}
	}
	w.do(request{method: "PUT", path: budgetPath, token: w.onlyP1, body: monthly, header: []string{"If-Match", `"1"`}}).want(w, http.StatusOK)
	if got := get[budget](w, budgetPath); !strings.HasPrefix(got.UpdatedBy, "one port (token:") {
		t.Errorf("updated by %s", got.UpdatedBy)
	}
}

// Who may only look sees what there is and changes nothing.
func TestAViewer(t *testing.T) {
	t.Parallel()
	w := guarded(t)
	viewer := w.token("viewer", nil, admin.View)
	for _, r := range admin.Routes() {
		want := http.StatusForbidden
		switch {
		case r.Method == http.MethodGet, tries(r):
			want = http.StatusOK
		case strings.HasSuffix(r.Path, "/logout"):
			want = http.StatusNoContent
		}
		w.do(valid(r, "p1", viewer)).want(w, want)
	}
	w.unchanged(t)
	type may struct {
		MayChange bool `json:"may_change"`
	}
	for _, path := range []string{budgetPath, "/api/v1/default-budget"} {
		var seen may
		w.do(request{method: "GET", path: path, token: viewer}).into(w, &seen)
		if seen.MayChange || !get[may](w, path).MayChange {
			t.Errorf("%s: a viewer may change it, or whoever manages it may not", path)
		}
	}
}

// What nobody thought of is refused, not served.
func TestDeniedByDefault(t *testing.T) {
	t.Parallel()
	w := guarded(t)
	for _, path := range []string{"/api/v1/", "/api/v1/nothing", "/api", "/api/v2/ports", "/api/v1/ports/p1/nothing"} {
		if path == "/api" {
			continue // redirected to /api/
		}
		for token, status := range map[string]int{"": 401, w.noPermission: 403, w.all: 404} {
			if a := w.do(request{method: "GET", path: path, token: token}); a.StatusCode != status {
				t.Errorf("%s: got %d %s, want %d", path, a.StatusCode, a.text, status)
			}
		}
	}
	for token, status := range map[string]int{"": 401, w.noPermission: 403, w.all: 405} {
		a := w.do(request{method: "PATCH", path: budgetPath, token: token})
		if a.StatusCode != status || status == 405 && a.Header.Get("Allow") != "DELETE, GET, HEAD, PUT" {
			t.Errorf("PATCH: got %d %s, Allow %q, want %d", a.StatusCode, a.text, a.Header.Get("Allow"), status)
		}
	}

	naked, err := admin.NewWithNakedRoute(admin.Config{Ledger: w.ledger, Conn: w.nats, Auth: &identity.Authenticator{Tokens: w.tokens}})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/api/v1/naked", nil)
	r.Header.Set("Authorization", "Bearer "+w.all)
	rec := httptest.NewRecorder()
	naked.ServeHTTP(rec, r)
	if rec.Code != 403 || strings.Contains(rec.Body.String(), "secret") {
		t.Errorf("a route without a permission: %d %s", rec.Code, rec.Body)
	}
}

// A body whose size is not announced is cut off all the same.
func TestLargeBodyInChunks(t *testing.T) {
	t.Parallel()
	w := guarded(t)
	body := io.MultiReader(strings.NewReader(`{"enabled":true,`), bytes.NewReader(bytes.Repeat([]byte(" "), 64<<10)), strings.NewReader(monthly[1:]))
	req, err := http.NewRequestWithContext(t.Context(), "PUT", w.URL+budgetPath, body) // no Content-Length
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.all)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("If-Match", `"1"`)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	response, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("got %d", response.StatusCode)
	}
	w.unchanged(t)
}

// What is open to everyone holds no data, and every answer has the headers.
func TestOpenPagesAndHeaders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for path, status := range map[string]int{"/": 200, "/static/ai-budget-card.js": 200, "/login": 200, "/api/v1/ports": 401} {
		a := w.do(request{method: "GET", path: path})
		if a.StatusCode != status {
			t.Errorf("%s: %d", path, a.StatusCode)
		}
		for _, header := range []string{"Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy"} {
			if len(a.Header.Values(header)) != 1 {
				t.Errorf("%s: %s is %q", path, header, a.Header.Values(header))
			}
		}
	}
	req := request{method: "GET", path: "/api/v1/ports", header: []string{"Accept", "text/html"}}
	if a := w.do(req); a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != "/login?next=%2Fapi%2Fv1%2Fports" {
		t.Errorf("a browser that is not signed in: %d to %s", a.StatusCode, a.Header.Get("Location"))
	}
}

// A browser signs in by the link, works with its session, and signs out.
func TestSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	link, _ := w.login.NewLink(noon.AddDate(10, 0, 0))
	a := w.do(request{method: "GET", path: link})
	a.want(w, http.StatusSeeOther)
	cookies := a.Cookies()
	if len(cookies) != 1 {
		t.Fatalf("cookies: %v", cookies)
	}
	cookie := []string{"Cookie", cookies[0].Name + "=" + cookies[0].Value}
	me := w.do(request{method: "GET", path: "/api/v1/session", header: cookie})
	me.want(w, http.StatusOK)
	var session struct {
		Name        string
		Permissions []string
		Ports       []string
		ExpiresAt   string `json:"expires_at"`
	}
	me.into(w, &session)
	if session.Name != "operator" || !slices.Equal(session.Permissions, []string{admin.Permission}) || session.Ports != nil || session.ExpiresAt == "" {
		t.Errorf("the session says %s", me.text)
	}
	w.do(request{method: "PUT", path: budgetPath, body: monthly, header: append([]string{"If-Match", `"0"`}, cookie...)}).want(w, http.StatusOK)
	if got := get[budget](w, budgetPath); got.UpdatedBy != "operator (login-link:local)" {
		t.Errorf("updated by %q", got.UpdatedBy)
	}
	w.do(request{method: "POST", path: "/api/v1/logout", header: cookie}).want(w, http.StatusNoContent)
	w.do(request{method: "GET", path: "/api/v1/session", header: cookie}).want(w, http.StatusUnauthorized)

	limited := w.do(request{method: "GET", path: "/api/v1/session", token: w.onlyP1})
	if !strings.Contains(limited.text, `"name":"one port"`) || !strings.Contains(limited.text, `"ports":["p1"]`) || !strings.Contains(limited.text, `"expires_at":null`) {
		t.Errorf("a token's session: %s", limited.text)
	}
	w.do(request{method: "POST", path: "/api/v1/logout", token: w.onlyP1}).want(w, http.StatusNoContent)
}

func TestOddQueries(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for query, want := range map[string][3]string{
		"ports?limit=0":                                                        {"limit", `"0"`, "from 1 to 500"},
		"ports?limit=501":                                                      {"limit", `"501"`, "from 1 to 500"},
		"ports?limit=x":                                                        {"limit", `"x"`, "whole number"},
		"ports?limit=1&limit=2":                                                {"limit", `"1, 2"`, "given once"},
		"ports?page=2":                                                         {"page", `"2"`, "there are: q, sort, state, after, limit"},
		"session?x=1":                                                          {"x", `"1"`, "there are: none"},
		"ports/p1/audit?before=-1":                                             {"before", `"-1"`, "whole number from 1"},
		"ports/p1/ai-usage?by=tenant":                                          {"by", `"tenant"`, "feature, model, user, run or day"},
		"ports/p1/ai-usage?period=2026-13":                                     {"period", `"2026-13"`, "a month like 2026-11"},
		"ports/p1/ai-usage?period=last":                                        {"period", `"last"`, "current, previous"},
		"ports/p1/ai-usage.csv?period=2026-1":                                  {"period", `"2026-1"`, "a month like"},
		"ports/p1/ai-usage?from=2026-11-01":                                    {"to", `""`, "belong together"},
		"ports/p1/ai-usage?from=x&to=2026-11-01":                               {"from", `"x"`, "a day like 2026-11-23"},
		"ports/p1/ai-usage?from=2026-11-01&to=2026-11-01":                      {"to", `"2026-11-01"`, "1 to 366 days after from"},
		"ports/p1/ai-usage.csv?from=2026-11-01&to=2027-11-03":                  {"to", `"2027-11-03"`, "1 to 366 days after from"},
		"ports/p1/ai-usage?from=2026-11-01&to=2026-11-02&period=2026-1":        {"period", `"2026-1"`, "left out beside from and to"},
		"ports/p1/ai-usage/series?by=day":                                      {"by", `"day"`, "feature, model, user or run"},
		"ports/p1/ai-usage/series?step=month":                                  {"step", `"month"`, "hour, day or week"},
		"ports/p1/ai-usage/series?step=hour":                                   {"step", `"hour"`, "day or week for more than 7 days"},
		"ports/p1/ai-usage/series?top=21":                                      {"top", `"21"`, "from 1 to 20"},
		"ports/p1/quarantine?limit=101":                                        {"limit", `"101"`, "from 1 to 100"},
		"ports/p1/quarantine?after=0":                                          {"after", `"0"`, "from 1 to"},
		"ports/p1/unsettled-holds?limit=501":                                   {"limit", `"501"`, "from 1 to 500"},
		"ports/p1/unsettled-holds?after=%5B%22yesterday%22,%22a%22,%22b%22%5D": {"after", `"[\"yesterday\",\"a\",\"b\"]"`, "next of the page before"},
		"ports/p1/unsettled-holds?after=%5B%222026-11-01%22,%22a%22%5D":        {"after", `"[\"2026-11-01\",\"a\"]"`, "next of the page before"},
		"ports/p1/ai-budget/simulate?hard=-1":                                  {"hard", `"-1"`, "whole number from 0 to 9007199254740991"},
		"ports/p1/ai-budget/simulate?hard=1e6":                                 {"hard", `"1e6"`, "whole number"},
		"ports/p1/ai-budget/simulate?soft=2&hard=1":                            {"soft", "2", "at most hard (1)"},
		"ports/p1/ai-budget/simulate?period=year":                              {"period", `"year"`, "day, week or month"},
		"ports/p1/ai-budget/simulate?of=tomorrow":                              {"of", `"tomorrow"`, "current, previous"},
		"ports/p1/ai-budget/simulate?harf=5":                                   {"harf", `"5"`, "there are: hard, soft, period, of"},
	} {
		w.do(request{method: "GET", path: "/api/v1/" + query, token: w.all}).wantField(w, want[0], want[1], want[2])
	}
	for _, query := range []string{"?by=%zz", "?a;b"} {
		a := w.do(request{method: "GET", path: "/api/v1/ports/p1/ai-usage" + query, token: w.all})
		if a.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d %s", query, a.StatusCode, a.text)
		}
	}
	for _, user := range []string{"%00", strings.Repeat("u", 129), "a%0Ab"} {
		a := w.do(request{method: "DELETE", path: "/api/v1/users/" + user, token: w.all})
		if a.StatusCode != 422 || a.problem.Errors[0].Field != "user_id" {
			t.Errorf("user %s: %d %s", user, a.StatusCode, a.text)
		}
	}
}
