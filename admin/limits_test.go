package admin_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/events"
)

// limited is what GET says of a budget's limits, as JSON values.
func (w *world) limited(a answer) (limits []map[string]any) {
	w.Helper()
	a.want(w, http.StatusOK)
	var got struct{ Limits []map[string]any }
	a.into(w, &got)
	if got.Limits == nil {
		w.Errorf("limits are no list: %s", a.text)
	}
	return got.Limits
}

func (w *world) getBudget() answer {
	w.Helper()
	return w.do(request{method: "GET", path: budgetPath, token: w.all})
}

// withLimits is the monthly budget with limits beside its caps.
func withLimits(limits ...string) string {
	return strings.TrimSuffix(monthly, "}") + `,"limits":[` + strings.Join(limits, ",") + "]}"
}

func stateOf(t testing.TB, text string) (m map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return m
}

func TestLimitsSayWhatTheyCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	now := time.Now().UTC()
	w.clock.set(now)
	today, month := now.Truncate(24*time.Hour), time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	for i := range 7 { // users u0 to u6 with 110, 220, … tokens
		for range i + 1 {
			w.usage("p1", now, func(u *events.Usage) { u.UserID = fmt.Sprint("u", i) })
		}
	}
	w.usage("p1", now, func(u *events.Usage) { u.Feature, u.UserID = "summary", "" })
	w.usage("p1", now.AddDate(0, 0, -40)) // counts in total only, as u1's
	w.usage("p2", now, func(u *events.Usage) { u.UserID = "u9" })
	put := w.put(withLimits(
		`{"name":"ocr-daily","match":{"feature":"ocr"},"window":"day","soft":3000,"hard":4000}`,
		`{"name":"each-user","per":"user_id","window":"total","unit":"tokens","hard":700}`,
		`{"name":"calls","window":"month","unit":"requests","soft":20}`,
		`{"name":"dear","match":{"model":"cla*"},"window":"month","unit":"weighted","weights":{"input":0.001,"output":1.5},"hard":100}`,
		`{"name":"other","match":{"feature":"chat"},"window":"hour","hard":50}`,
		`{"name":"runs","match":{"provider":"nobody"},"per":"run_id","window":"week","hard":50}`,
	), `"0"`)
	tomorrow, next := today.AddDate(0, 0, 1).Format(time.RFC3339), month.AddDate(0, 1, 0).Format(time.RFC3339)
	hour := now.Truncate(time.Hour)
	monday := today.AddDate(0, 0, -(int(today.Weekday())+6)%7)
	want := []map[string]any{
		stateOf(t, `{"name":"ocr-daily","match":{"feature":"ocr"},"window":"day","soft":3000,"hard":4000,
			"used":3080,"held":0,"remaining":920,"values":null,"top":null,"window_start":"`+today.Format(time.RFC3339)+`","resets_at":"`+tomorrow+`"}`),
		stateOf(t, `{"name":"each-user","per":"user_id","window":"total","unit":"tokens","hard":700,"used":null,"held":null,"remaining":null,"values":8,"top":[
			{"value":"u6","used":770,"held":0,"remaining":0},{"value":"u5","used":660,"held":0,"remaining":40},{"value":"u4","used":550,"held":0,"remaining":150},
			{"value":"u3","used":440,"held":0,"remaining":260},{"value":"u1","used":330,"held":0,"remaining":370}],"window_start":"1970-01-01T00:00:00Z","resets_at":null}`),
		stateOf(t, `{"name":"calls","window":"month","unit":"requests","soft":20,
			"used":29,"held":0,"remaining":null,"values":null,"top":null,"window_start":"`+month.Format(time.RFC3339)+`","resets_at":"`+next+`"}`),
		// 29 calls of 100 × 0.001 + 10 × 1.5 are 437.9.
		stateOf(t, `{"name":"dear","match":{"model":"cla*"},"window":"month","unit":"weighted","weights":{"input":0.001,"output":1.5},"hard":100,
			"used":438,"held":0,"remaining":0,"values":null,"top":null,"window_start":"`+month.Format(time.RFC3339)+`","resets_at":"`+next+`"}`),
		stateOf(t, `{"name":"other","match":{"feature":"chat"},"window":"hour","hard":50,
			"used":0,"held":0,"remaining":50,"values":null,"top":null,"window_start":"`+hour.Format(time.RFC3339)+`","resets_at":"`+hour.Add(time.Hour).Format(time.RFC3339)+`"}`),
		stateOf(t, `{"name":"runs","match":{"provider":"nobody"},"per":"run_id","window":"week","hard":50,"used":null,"held":null,"remaining":null,
			"values":0,"top":[],"window_start":"`+monday.Format(time.RFC3339)+`","resets_at":"`+monday.AddDate(0, 0, 7).Format(time.RFC3339)+`"}`),
	}
	// u1's two calls and the one of 40 days ago tie with u2's three.
	want[1]["top"].([]any)[4] = map[string]any{"value": "u1", "used": 330.0, "held": 0.0, "remaining": 370.0}
	if diff := gocmp.Diff(want, w.limited(put)); diff != "" {
		t.Errorf("after PUT (-want +got):\n%s", diff)
	}
	w.usage("p1", now)
	want[0]["used"], want[0]["remaining"] = 3190.0, 810.0
	want[1]["top"].([]any)[3] = map[string]any{"value": "u1", "used": 440.0, "held": 0.0, "remaining": 260.0}
	want[1]["top"].([]any)[4] = map[string]any{"value": "u3", "used": 440.0, "held": 0.0, "remaining": 260.0}
	want[2]["used"], want[3]["used"] = 30.0, 453.0
	if diff := gocmp.Diff(want, w.limited(w.getBudget())); diff != "" {
		t.Errorf("a call later (-want +got):\n%s", diff)
	}
	// What calls under way hold is beside it, and what remains is after it: also of who has used nothing yet.
	w.exec(`insert into ai_budget_holds (port_id, id, tokens, created_at, expires_at, feature, call) select port, gen_random_uuid(), tokens, now(), now() + interval '1 minute', feature, call::jsonb
		from (values ('p1', 250, 'ocr', '{"user_id":"u1","model":"claude"}'), ('p1', 30, 'chat', '{"user_id":"u7"}'), ('p2', 1, 'ocr', '{"user_id":"u1"}')) h (port, tokens, feature, call)`)
	held := []map[string]any{
		{"used": 3190.0, "held": 250.0, "remaining": 560.0}, nil, {"used": 30.0, "held": 2.0}, {"used": 453.0, "held": 250.0, "remaining": 0.0}, {"used": 0.0, "held": 30.0, "remaining": 20.0}, nil}
	got := w.limited(w.getBudget())
	for i, want := range held {
		for name, value := range want {
			if got[i][name] != value {
				t.Errorf("%s of %s with calls under way: %v, want %v", name, got[i]["name"], got[i][name], value)
			}
		}
	}
	top := stateOf(t, `{"values":9,"top":[{"value":"u6","used":770,"held":0,"remaining":0},{"value":"u1","used":440,"held":250,"remaining":10},{"value":"u5","used":660,"held":0,"remaining":40},
		{"value":"u4","used":550,"held":0,"remaining":150},{"value":"u3","used":440,"held":0,"remaining":260}]}`)
	if diff := gocmp.Diff([]any{top["values"], top["top"]}, []any{got[1]["values"], got[1]["top"]}); diff != "" {
		t.Errorf("each user, with calls under way (-want +got):\n%s", diff)
	}
	if of := got[5]["top"].([]any); len(of) != 0 {
		t.Errorf("a limit that matches none of the calls holds for %v", of)
	}
	type page struct {
		Values   int64
		Counters []struct {
			Value      string
			Used, Held int64
			Remaining  *int64
		}
	}
	if p := get[page](w, "/api/v1/ports/p1/ai-usage/limit?limit_name=each-user"); p.Values != 8 || p.Counters[3].Value != "u1" || p.Counters[3].Held != 250 || *p.Counters[3].Remaining != 10 || p.Counters[4].Held != 0 {
		t.Errorf("a page of each user: %+v", p)
	}
	// Who has used too little to be among the first is, by what is held.
	w.exec(`update ai_budget_holds set tokens = 540, call = '{"user_id":"u0"}' where tokens = 250`)
	third := w.limited(w.getBudget())[1]["top"].([]any)[2]
	if diff := gocmp.Diff(map[string]any{"value": "u0", "used": 110.0, "held": 540.0, "remaining": 50.0}, third); diff != "" {
		t.Errorf("who holds most (-want +got):\n%s", diff)
	}
	w.exec("delete from ai_budget_holds")
	w.clock.set(now.AddDate(0, 2, 0))
	got = w.limited(w.getBudget())
	if got[0]["used"] != 0.0 || got[0]["remaining"] != 4000.0 || got[2]["used"] != 0.0 {
		t.Errorf("in windows to come: %v", got)
	}
	if diff := gocmp.Diff(want[1], got[1]); diff != "" {
		t.Errorf("total never starts anew (-want +got):\n%s", diff)
	}
}

// What a limit would count if it was stored is what it counts once it is.
func TestLimitNow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	now := time.Now().UTC()
	w.clock.set(now)
	hour := now.Truncate(time.Hour)
	for i, user := range []string{"anna", "anna", "ben", "", "cy", "dan", "eve", "fay"} {
		w.usage("p1", now, func(u *events.Usage) { u.UserID, u.RunID = user, fmt.Sprint("r", i%2) })
	}
	for _, at := range []time.Time{hour.Add(-time.Minute), now.AddDate(0, -2, 0), now.AddDate(0, -2, 0)} {
		w.usage("p1", at, func(u *events.Usage) { u.UserID, u.Feature = "ben", "summary" })
	}
	w.usage("p2", now)
	w.hold(events.ReserveRequest{PortID: "p1", Feature: "ocr", UserID: "ben", Model: "claude", EstimatedTokens: 115}, events.ReserveRequest{PortID: "p1", Feature: "ocr", UserID: "gus", Model: "claude", EstimatedTokens: 1000})
	const path = budgetPath + "/limit-now"
	for i, c := range []struct {
		limit   string
		reached any
	}{
		{`"window":"hour","hard":900`, nil},
		{`"window":"total","unit":"requests","hard":11`, nil},
		{`"window":"total","match":{"feature":"sum*"},"soft":220`, nil},
		{`"window":"hour","per":"user_id","hard":220`, 3.0},   // anna, ben with what is held, and gus
		{`"window":"total","per":"user_id","hard":1000`, 1.0}, // gus
		{`"window":"total","per":"run_id","soft":5`, 0.0},     // no hard cap
		{`"window":"total","per":"model","hard":2325`, 1.0},   // used and held, to the token
		{`"window":"total","per":"model","hard":2326`, 0.0},   // one less
		{`"window":"day","unit":"weighted","weights":{"input":0.005,"output":0.5},"per":"feature","match":{"feature":"ocr"},"hard":1159`, 1.0},
	} {
		limit := `{"name":"tried",` + c.limit + `}`
		a := w.do(request{method: "POST", path: path, token: w.onlyP1, body: limit})
		a.want(w, http.StatusOK)
		would := stateOf(t, a.text)
		if would["reached"] != c.reached || would["as_of"] == nil {
			t.Errorf("%s: %v have come to the cap, want %v: %s", limit, would["reached"], c.reached, a.text)
		}
		does := w.limited(w.put(withLimits(limit), fmt.Sprintf("%q", fmt.Sprint(i))))[0]
		for _, name := range []string{"used", "held", "remaining", "values", "top", "window_start", "resets_at"} {
			if diff := gocmp.Diff(does[name], would[name]); diff != "" {
				t.Errorf("%s: %s (-stored +would):\n%s", limit, name, diff)
			}
		}
	}
	w.do(request{method: "POST", path: path, token: w.onlyP1, body: `{"name":"a","window":"day"}`}).wantField(w, "limit (a).hard", `"null"`, "limits nothing")
	w.do(request{method: "POST", path: path, token: w.onlyP1, body: `[]`}).want(w, http.StatusBadRequest)
	w.do(request{method: "POST", path: strings.Replace(path, "p1", "p2", 1), token: w.onlyP1, body: `{"name":"a","window":"day","hard":1}`}).want(w, http.StatusForbidden)
}

func TestLimitsStayUnlessGiven(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if got := w.limited(w.getBudget()); len(got) != 0 {
		t.Errorf("a port without a budget has limits: %v", got)
	}
	names := func(a answer) (list []any) {
		for _, l := range w.limited(a) {
			list = append(list, l["name"])
		}
		return list
	}
	const one, two = `{"name":"one","window":"day","hard":5}`, `{"name":"two","window":"hour","soft":6}`
	for i, step := range []struct {
		body string
		want []any
	}{
		{withLimits(two, one), []any{"two", "one"}},
		{monthly, []any{"two", "one"}},
		{withLimits(one), []any{"one"}},
		{withLimits(), nil},
		{monthly, nil},
	} {
		a := w.put(step.body, fmt.Sprintf("%q", fmt.Sprint(i)))
		if diff := gocmp.Diff(step.want, names(a)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.body, diff)
		}
		if diff := gocmp.Diff(step.want, names(w.getBudget())); diff != "" || a.Header.Get("ETag") != fmt.Sprintf("%q", fmt.Sprint(i+1)) {
			t.Errorf("GET after %s, ETag %s (-want +got):\n%s", step.body, a.Header.Get("ETag"), diff)
		}
	}
	w.put(withLimits(two), `"1"`).want(w, http.StatusPreconditionFailed)
	if got := names(w.getBudget()); got != nil {
		t.Errorf("who had not seen the last change stored %v", got)
	}
}

func TestInvalidLimitsNameTheirFields(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for limit, want := range map[string][3]string{
		`{"name":"Ocr","window":"day","hard":5}`:                                             {"limits[0].name", `"Ocr"`, "1 to 64 of a-z"},
		`{"name":"port","window":"day","hard":5}`:                                            {"limits[0].name", `"port"`, "port is the port's own"},
		`{"name":"x","window":"day","hard":5},{"name":"x","window":"day","hard":6}`:          {"limits[1].name", `"x"`, "each needs its own"},
		`{"name":"x","window":"year","hard":5}`:                                              {"limits[0] (x).window", `"year"`, "hour, day, week, month or total"},
		`{"name":"x","window":"day"}`:                                                        {"limits[0] (x).hard", `"null"`, "or soft must be set"},
		`{"name":"x","window":"day","hard":-1}`:                                              {"limits[0] (x).hard", "-1", "from 0 to 9007199254740991"},
		`{"name":"x","window":"day","hard":5,"soft":6}`:                                      {"limits[0] (x).soft", "6", "at most"},
		`{"name":"x","window":"day","hard":5,"per":"day"}`:                                   {"limits[0] (x).per", `"day"`, "feature, provider"},
		`{"name":"x","window":"day","hard":5,"unit":"euros"}`:                                {"limits[0] (x).unit", `"euros"`, "tokens, requests or weighted"},
		`{"name":"x","window":"day","hard":5,"weights":{"input":2}}`:                         {"limits[0] (x).weights", `"\u2026"`, "unit weighted only"},
		`{"name":"x","window":"day","hard":5,"match":{"model":"a*b"}}`:                       {"limits[0] (x).match.model", `"a*b"`, "at its end only"},
		`{"name":"y","window":"day","hard":5},{"name":"x","window":"day","hard":1.5}`:        {"limits[1].hard", "1.5", "must be a whole number"},
		`{"name":"x","window":"day","hard":5,"unit":"weighted","weights":{"output":0.1234}}`: {"limits[0].weights.output", "0.1234", "at most 3 decimals"},
		`{"name":"x","window":"day","soft":5,"hrad":6}`:                                      {"limits[0].hrad", "6", "is no field of a limit; there are: name"},
		`{"name":"x","window":"day","soft":5,"match":{"feture":"ocr"}}`:                      {"limits[0].match.feture", `"ocr"`, "is no field"},
		`{"name":7,"window":"day","soft":5}`:                                                 {"limits[0].name", "7", "must be a string"},
		`7`:                                                                                  {"limits[0]", "7", "must be a JSON object"},
		strings.TrimSuffix(strings.Repeat(`{"name":"x","window":"day","hard":5},`, 51), ","): {"limits", "51", "must be at most 50"},
	} {
		w.put(withLimits(limit), `"0"`).wantField(w, want[0], want[1], want[2])
	}
	for value, rule := range map[string]string{"null": "must be a list; without it", `"x"`: "must be a list", "{}": "must be a list"} {
		w.put(strings.TrimSuffix(monthly, "}")+`,"limits":`+value+"}", `"0"`).wantField(w, "limits", value, rule)
	}
	if got := get[budget](w, budgetPath); got.Version != 0 {
		t.Errorf("something was stored: %+v", got)
	}
}

func TestLimitUsage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	now := time.Now().UTC().Truncate(time.Millisecond)
	w.clock.set(now)
	today := now.Truncate(24 * time.Hour)
	w.put(`{"enabled":true,"soft_cap_tokens":null,"hard_cap_tokens":null,"period":"month","limits":[
		{"name":"each-user","per":"user_id","window":"day","soft":200,"hard":300},{"name":"calls","window":"total","unit":"requests","hard":2}]}`, `"0"`).want(w, http.StatusOK)
	for _, user := range []string{"anna", "", "anna", "ben", "anna"} {
		w.usage("p1", now, func(u *events.Usage) { u.UserID = user })
	}
	w.usage("p1", now.AddDate(0, 0, -1))
	const path = "/api/v1/ports/p1/ai-usage/limit?limit_name="
	same := func(query, want string) {
		t.Helper()
		got, expected := get[any](w, path+query), any(nil)
		answer{text: want}.into(w, &expected)
		if diff := gocmp.Diff(expected, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", query, diff)
		}
	}
	same("each-user", `{"port_id":"p1","limit_name":"each-user","per":"user_id","unit":"tokens","window":"day","window_start":"`+today.Format(time.RFC3339)+`","resets_at":"`+today.AddDate(0, 0, 1).Format(time.RFC3339)+`",
		"soft":200,"hard":300,"values":3,"counters":[{"value":"anna","used":330,"held":0,"remaining":0},{"value":"","used":110,"held":0,"remaining":190},{"value":"ben","used":110,"held":0,"remaining":190}],"next":"","as_of":"`+now.Format(time.RFC3339Nano)+`"}`)
	same("each-user&limit=1&after=330:anna", `{"port_id":"p1","limit_name":"each-user","per":"user_id","unit":"tokens","window":"day","window_start":"`+today.Format(time.RFC3339)+`","resets_at":"`+today.AddDate(0, 0, 1).Format(time.RFC3339)+`",
		"soft":200,"hard":300,"values":3,"counters":[{"value":"","used":110,"held":0,"remaining":190}],"next":"110:","as_of":"`+now.Format(time.RFC3339Nano)+`"}`)
	same("calls", `{"port_id":"p1","limit_name":"calls","unit":"requests","window":"total","window_start":"1970-01-01T00:00:00Z","resets_at":null,
		"soft":null,"hard":2,"values":1,"counters":[{"value":"","used":6,"held":0,"remaining":0}],"next":"","as_of":"`+now.Format(time.RFC3339Nano)+`"}`)
	ask := func(query string) answer { return w.do(request{method: "GET", path: path + query, token: w.all}) }
	ask("each").wantField(w, "limit_name", `"each"`, "there are: each-user, calls")
	ask("").wantField(w, "limit_name", `""`, "there are: each-user, calls")
	ask("calls&after=x").wantField(w, "after", `"x"`, "must be the next of the page before")
	ask("calls&limit=0").wantField(w, "limit", `"0"`, "from 1 to 1000")
}
