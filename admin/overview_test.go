package admin_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/admin"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

type overview struct {
	Ports        int64
	States       map[string]int64
	Today, Month struct{ Tokens, Before int64 }
	Days         []string
	Tokens       []int64
	Features     []struct {
		Key         string
		TotalTokens int64 `json:"total_tokens"`
		Days        []int64
	}
	Models []struct {
		Key         string
		TotalTokens int64 `json:"total_tokens"`
	}
	TopPorts []struct {
		PortID      string `json:"port_id"`
		TotalTokens int64  `json:"total_tokens"`
		State       string
	} `json:"top_ports"`
	TopUsers []struct {
		PortID      string `json:"port_id"`
		Name, User  string
		TotalTokens int64 `json:"total_tokens"`
	} `json:"top_users"`
	UsersOf *int64 `json:"top_users_of_ports"`
	Alerts  []struct {
		PortID    string `json:"port_id"`
		Name      string
		Limit     string
		Threshold string
	}
	Refused  int64 `json:"refused_today"`
	Refusals []struct {
		PortID  string `json:"port_id"`
		Name    string
		Limit   string
		Day     string
		Refused int64
		LastAt  time.Time `json:"last_at"`
	}
	Unsettled struct {
		Name          string
		Holds, Tokens int64
		PortID        string `json:"port_id"`
	}
	Backlog *struct {
		Messages int64
		OldestAt *time.Time `json:"oldest_at"`
	}
	AsOf time.Time `json:"as_of"`
}

func TestOverview(t *testing.T) {
	t.Parallel()
	w := newWorld(t, databaseAtNoon)
	if empty := get[overview](w, "/api/v1/overview"); empty.Ports != 0 || len(empty.Days) != 30 || empty.TopPorts == nil || empty.Alerts == nil || empty.Features == nil {
		t.Errorf("of nothing: %+v", empty)
	}
	standingPorts(w) // 7 ports with 110 tokens on the 23rd and the 10th
	w.usage("free", noon.AddDate(0, 0, -1), func(u *events.Usage) { u.Feature, u.Model, u.UserID = "summary", "gpt", "dora" })
	w.usage("free", noon.AddDate(0, 0, -1), func(u *events.Usage) { u.Feature, u.Model, u.UserID = "summary", "gpt", "" }) // nobody's
	for _, day := range []int{5, 23, 24} {                                                                                 // the 23rd counts by half, the 24th not at all
		w.usage("fine", time.Date(2026, 10, day, 1, 0, 0, 0, time.UTC))
	}
	for _, port := range []string{"hard", "limited"} {
		if _, err := w.ledger.ClaimAlerts(t.Context(), []ledger.Alert{{PortID: port, Limit: "port", Unit: "tokens", Period: events.PeriodMonth, PeriodStart: noon, Threshold: "hard", NoticedAt: noon}}); err != nil {
			t.Fatal(err)
		}
	}
	w.exec("insert into ai_unsettled_holds values ('fine', '2026-11-20', '', 'ocr', 3, 500), ('soft', '2026-11-21', '', 'ocr', 1, 900), ('soft', '2026-10-01', '', 'ocr', 5, 5)")
	day := noon.Truncate(24 * time.Hour)
	for _, list := range [][]ledger.Refusal{ // as gates write them, one after the other
		{{PortID: "hard", Limit: "port", Day: day, Refused: 3, LastAt: noon}, {PortID: "fine", Limit: "each-user", Day: day.AddDate(0, 0, -1), Refused: 1, LastAt: noon.AddDate(0, 0, -1)}, {PortID: "unknown", Limit: "port", Day: day, Refused: 9, LastAt: noon}},
		{{PortID: "hard", Limit: "port", Day: day, Refused: 4, LastAt: noon.Add(-time.Hour)}, {PortID: "soft", Limit: "port", Day: day.AddDate(0, 0, -7), Refused: 1, LastAt: noon.AddDate(0, 0, -7)}},
	} {
		if err := w.ledger.AddRefusals(t.Context(), list); err != nil {
			t.Fatal(err)
		}
	}
	for port, name := range map[string]string{"hard": "Harbour North", "free": "Free Port", "soft": "Soft Sands"} {
		if err := w.ledger.NamePort(t.Context(), port, name); err != nil {
			t.Fatal(err)
		}
	}
	got := get[overview](w, "/api/v1/overview")
	if u := got.TopUsers; got.UsersOf != nil || len(u) != 8 || u[2].PortID != "free" || u[2].Name != "Free Port" || u[2].TotalTokens != 220 || u[2].User != "u1" || u[0].PortID != "each" || u[0].Name != "" || u[1].TotalTokens != 220 || u[7].User != "dora" || u[7].TotalTokens != 110 {
		t.Errorf("top users %+v of %v ports", u, got.UsersOf)
	}
	if got.Alerts[0].Name != map[string]string{"hard": "Harbour North"}[got.Alerts[0].PortID] || got.Refusals[0].Name != "Harbour North" || got.Refusals[1].Name != "" || got.Unsettled.Name != "Soft Sands" {
		t.Errorf("names: alerts %+v, refusals %+v, unsettled %+v", got.Alerts, got.Refusals, got.Unsettled)
	}
	if r := got.Refusals; got.Refused != 7 || len(r) != 2 || r[0].PortID != "hard" || r[0].Limit != "port" || r[0].Day != "2026-11-23" || r[0].Refused != 7 || !r[0].LastAt.Equal(noon) || r[1].PortID != "fine" || r[1].Refused != 1 {
		t.Errorf("refused: %d, %+v", got.Refused, r)
	}
	if diff := gocmp.Diff(map[string]int64{"none": 2, "fine": 1, "soft": 2, "hard": 2, "disabled": 1}, got.States); diff != "" || got.Ports != 8 {
		t.Errorf("%d ports (-want +got):\n%s", got.Ports, diff)
	}
	if got.Today.Tokens != 770 || got.Today.Before != 110 || got.Month.Tokens != 1760 || got.Month.Before != 165 {
		t.Errorf("today %+v, this month %+v", got.Today, got.Month)
	}
	if got.Days[29] != "2026-11-23" || got.Tokens[29] != 770 || got.Tokens[28] != 220 || got.Tokens[16] != 770 {
		t.Errorf("days %v: %v", got.Days, got.Tokens)
	}
	if f := got.Features; len(f) != 2 || f[0].Key != "ocr" || f[0].TotalTokens != 1540 || f[0].Days[29] != 770 || f[1].Key != "summary" || f[1].Days[28] != 220 {
		t.Errorf("features %+v", f)
	}
	if m := got.Models; len(m) != 2 || m[0].Key != "claude" || m[1].Key != "gpt" || m[1].TotalTokens != 220 {
		t.Errorf("models %+v", m)
	}
	if p := got.TopPorts; len(p) != 7 || p[0].PortID != "free" || p[0].TotalTokens != 440 || p[0].State != "none" || p[1].PortID != "each" {
		t.Errorf("top ports %+v", p)
	}
	if len(got.Alerts) != 2 || got.Alerts[0].Threshold != "hard" || got.Unsettled.Holds != 4 || got.Unsettled.Tokens != 1400 || got.Unsettled.PortID != "soft" {
		t.Errorf("alerts %+v, unsettled %+v", got.Alerts, got.Unsettled)
	}
	if b := got.Backlog; b == nil || b.Messages != 3 || b.OldestAt == nil || !b.OldestAt.Equal(noon) {
		t.Errorf("backlog %+v", b)
	}

	// Who may manage some ports sees nothing of the others.
	some := w.token("some", []string{"fine", "hard", "nobody"}, admin.Permission)
	a := w.do(request{method: "GET", path: "/api/v1/overview", token: some})
	a.want(w, http.StatusOK)
	for _, id := range []string{"soft", "each", "free", "limited", "summary", "gpt", "dora"} {
		if strings.Contains(strings.ReplaceAll(a.text, `"soft":`, ""), `"`+id+`"`) {
			t.Errorf("the overview of fine and hard tells of %s: %s", id, a.text)
		}
	}
	var of overview
	a.into(w, &of)
	if of.Ports != 2 || of.Today.Tokens != 220 || of.Month.Before != 165 || len(of.Alerts) != 1 || of.Unsettled.Tokens != 500 || of.Backlog != nil || len(of.TopPorts) != 2 || of.Refused != 7 || len(of.Refusals) != 2 {
		t.Errorf("of some ports: %+v", of)
	}
	w.do(request{method: "GET", path: "/api/v1/overview", token: w.noPermission}).want(w, http.StatusForbidden)

	// A port's own alerts, and nobody else's.
	type alerts struct {
		Alerts []struct {
			PortID, Limit, Threshold string
			At                       time.Time
		}
	}
	if got := get[alerts](w, "/api/v1/ports/hard/alerts"); len(got.Alerts) != 1 || got.Alerts[0].Threshold != "hard" || !got.Alerts[0].At.Equal(noon) {
		t.Errorf("alerts of a port: %+v", got)
	}
	if got := get[alerts](w, "/api/v1/ports/fine/alerts"); got.Alerts == nil || len(got.Alerts) != 0 {
		t.Errorf("alerts of a port without any: %+v", got)
	}
	w.do(request{method: "GET", path: "/api/v1/ports/soft/alerts", token: some}).want(w, http.StatusForbidden)

	// What a default budget would do to free, with 440 tokens, and to old, with none.
	type effect struct {
		Ports, Refused int64
		RefusedNow     int64 `json:"refused_now"`
	}
	const standard = "/api/v1/default-budget"
	w.do(request{method: "PUT", path: standard, token: w.all, body: `{"enabled":true,"soft_cap_tokens":null,"hard_cap_tokens":440,"period":"month"}`, header: []string{"If-Match", "0"}}).want(w, http.StatusOK)
	for query, refused := range map[string]int64{"hard=440": 1, "hard=441": 0, "hard=0": 2, "": 0, "hard=110&period=day": 1, "hard=111&period=day": 0, "hard=110&period=week": 1} {
		if got, want := get[effect](w, standard+"/effect?"+query), (effect{2, refused, 1}); got != want {
			t.Errorf("a default budget with %q: %+v, want %+v", query, got, want)
		}
	}
	w.do(request{method: "GET", path: standard + "/effect?hard=1", token: some}).want(w, http.StatusForbidden)
}
