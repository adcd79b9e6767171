package admin_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/admin"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/bus"
)

type portList struct {
	Ports []struct {
		PortID string `json:"port_id"`
		Budget struct {
			Version       int64
			HardCapTokens *int64 `json:"hard_cap_tokens"`
			Period        string
		}
		UsedTokens  int64     `json:"used_tokens"`
		TotalTokens int64     `json:"total_tokens"`
		Requests    int64     `json:"requests"`
		PeriodStart time.Time `json:"period_start"`
		ResetsAt    time.Time `json:"resets_at"`
	}
	Next  string
	Total *int64
}

// A port's name is what people see and search for.
func TestPortsAreNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.usage("p1", noon)
	name := func(port, body, token string) answer {
		return w.do(request{method: "PUT", path: "/api/v1/ports/" + port + "/name", token: token, body: body})
	}
	type named struct {
		Ports []struct {
			PortID string `json:"port_id"`
			Name   string
		}
	}
	for _, is := range []string{"Harbour North", "Häfen 北", ""} {
		name("p1", fmt.Sprintf(`{"name":%q}`, is), w.onlyP1).want(w, http.StatusOK)
		if got := get[named](w, "/api/v1/ports"); len(got.Ports) != 1 || got.Ports[0].Name != is {
			t.Errorf("%q: %+v", is, got)
		}
		if got := get[named](w, "/api/v1/ports?q=NORTH"); len(got.Ports) != strings.Count(is, "North") {
			t.Errorf("searched while it is %q: %+v", is, got)
		}
	}
	name("fresh", `{"name":"Not called yet"}`, w.all).want(w, http.StatusOK)
	if got := get[named](w, "/api/v1/ports?q=CALLED+yet"); len(got.Ports) != 1 || got.Ports[0].PortID != "fresh" {
		t.Errorf("searched: %+v", got)
	}
	for body, rule := range map[string]string{
		`{"name":" x"}`: "no space around", `{"name":"a\u0000b"}`: "printable", `{"name":"` + strings.Repeat("x", 101) + `"}`: "at most 100", `{"name":null}`: "must be a text", `{}`: "is required", `{"name":"x","nmae":"y"}`: "there is: name",
	} {
		if a := name("p1", body, w.all); a.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(a.problem.Errors[0].Rule, rule) {
			t.Errorf("%s: %d %s, want %q", body, a.StatusCode, a.text, rule)
		}
	}
	name("p1", `["x"]`, w.all).want(w, http.StatusBadRequest)
	name("p2", `{"name":"x"}`, w.onlyP1).want(w, http.StatusForbidden)
	if log := w.log.String(); !strings.Contains(log, "one port (token:") || !strings.Contains(log, "Harbour North") {
		t.Errorf("nobody knows who named the port: %s", log)
	}
	name("p1", `{"name":""}`, w.all).want(w, http.StatusOK) // as it is
	w.put(monthly, `"0"`).want(w, http.StatusOK)            // versions are of the budget
	name("p1", `{"name":"Quay"}`, w.all).want(w, http.StatusOK)
	type change struct {
		Key       string
		Version   int64
		Old       struct{ Name string } `json:"old_value"`
		New       struct{ Name string } `json:"new_value"`
		ChangedBy string                `json:"changed_by"`
	}
	log := get[struct{ Changes []change }](w, "/api/v1/ports/p1/audit").Changes
	for i := range log {
		log[i].ChangedBy, _, _ = strings.Cut(log[i].ChangedBy, " (")
	}
	is := func(s string) struct{ Name string } { return struct{ Name string }{s} }
	if diff := gocmp.Diff([]change{{"port.named", 1, is(""), is("Quay"), "all"}, {"ai.budget", 1, is(""), is(""), "all"}, {"port.named", 0, is("Häfen 北"), is(""), "one port"},
		{"port.named", 0, is("Harbour North"), is("Häfen 北"), "one port"}, {"port.named", 0, is(""), is("Harbour North"), "one port"}}, log); diff != "" {
		t.Errorf("the audit log (-want +got):\n%s", diff)
	}
}

func TestPortsInPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 5 {
		w.usage(fmt.Sprintf("p%d", i), noon)
	}
	w.usage("p1", noon.AddDate(0, -2, 0))
	w.put(`{"enabled":true,"soft_cap_tokens":null,"hard_cap_tokens":300,"period":"week"}`, `"0"`).want(w, 200)
	some := w.token("some", []string{"p3", "p1", "p9", "p2"}, admin.Permission)
	none := w.token("none of these", []string{"q"}, admin.Permission)
	for token, want := range map[string][]string{w.all: {"p0", "p1", "p2", "p3", "p4"}, some: {"p1", "p2", "p3"}, w.onlyP1: {"p1"}, none: nil} {
		for _, limit := range []int{1, 2, 3, 5, 100} {
			var got []string
			after, pages := "", 0
			for {
				a := w.do(request{method: "GET", path: fmt.Sprintf("/api/v1/ports?limit=%d&after=%s", limit, after), token: token})
				a.want(w, http.StatusOK)
				var list portList
				a.into(w, &list)
				for _, p := range list.Ports {
					got = append(got, p.PortID)
					if p.PortID == "p1" && (p.UsedTokens != 110 || p.TotalTokens != 220 || p.Requests != 2 || *p.Budget.HardCapTokens != 300 ||
						!p.PeriodStart.Equal(time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)) || p.ResetsAt.Sub(p.PeriodStart) != 7*24*time.Hour) {
						t.Errorf("p1: %+v", p)
					}
					if p.PortID == "p2" && (p.UsedTokens != 110 || p.Budget.Version != 0 || p.Budget.Period != "month" || p.Budget.HardCapTokens != nil) {
						t.Errorf("p2: %+v", p)
					}
				}
				if pages++; (list.Total != nil) != (pages == 1) || list.Total != nil && *list.Total != int64(len(want)) {
					t.Errorf("page %d: total %v, want %d on the first", pages, list.Total, len(want))
				}
				if after = list.Next; after == "" {
					break
				}
			}
			if diff := gocmp.Diff(want, got); diff != "" || pages != max(1, (len(want)+limit-1)/limit) {
				t.Errorf("%d at a time: %d pages, (-want +got):\n%s", limit, pages, diff)
			}
		}
	}
	for _, c := range []struct{ token, q, want string }{{w.all, "P1", "p1"}, {w.all, "p", "p0 p1 p2 p3 p4"}, {some, "p", "p1 p2 p3"}, {some, "p4", ""}, {w.all, "%25", ""}} {
		a := w.do(request{method: "GET", path: "/api/v1/ports?q=" + c.q, token: c.token})
		a.want(w, http.StatusOK)
		var list portList
		a.into(w, &list)
		var got []string
		for _, p := range list.Ports {
			got = append(got, p.PortID)
		}
		if strings.Join(got, " ") != c.want || *list.Total != int64(len(got)) {
			t.Errorf("%s: %v of %d, want %s", c.q, got, *list.Total, c.want)
		}
	}
	w.do(request{method: "GET", path: "/api/v1/ports?q=" + strings.Repeat("x", 101), token: w.all}).want(w, http.StatusUnprocessableEntity)
}

func TestAuditInPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 5 {
		w.put(fmt.Sprintf(`{"enabled":true,"soft_cap_tokens":null,"hard_cap_tokens":%d,"period":"month"}`, i), fmt.Sprint(i)).want(w, 200)
	}
	var got []int64
	next := ""
	for {
		page := get[struct {
			Changes []struct{ Version int64 }
			Next    string
		}](w, "/api/v1/ports/p1/audit?limit=2&before="+next)
		for _, c := range page.Changes {
			got = append(got, c.Version)
		}
		if next = page.Next; next == "" {
			break
		}
	}
	if diff := gocmp.Diff([]int64{5, 4, 3, 2, 1}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDeleteAPort(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	heard, err := w.nats.SubscribeSync(bus.SubjectTotals)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.nats.Flush(); err != nil {
		t.Fatal(err)
	}
	w.usage("p1", noon)
	w.usage("p1", noon)
	w.usage("p2", noon)
	w.put(monthly, "0").want(w, 200)
	a := w.do(request{method: "DELETE", path: "/api/v1/ports/p1", token: w.onlyP1})
	a.want(w, http.StatusOK)
	if strings.TrimSpace(a.text) != `{"port_id":"p1","deleted_rows":2}` {
		t.Errorf("the answer is %s", a.text)
	}
	msg, err := heard.NextMsg(5 * time.Second)
	if err != nil {
		t.Fatalf("the gates were not told: %v", err)
	}
	if notice, err := bus.Decode[bus.Totals](msg.Data, time.Now()); err != nil || len(notice.Deleted) != 1 || notice.Deleted[0] != "p1" {
		t.Errorf("the gates heard %s", msg.Data)
	}
	if list := get[portList](w, "/api/v1/ports"); len(list.Ports) != 1 || list.Ports[0].PortID != "p2" {
		t.Errorf("what is left: %+v", list)
	}
	log := get[struct {
		Changes []struct {
			Key       string
			ChangedBy string `json:"changed_by"`
		}
	}](w, "/api/v1/ports/p1/audit")
	if len(log.Changes) != 2 || log.Changes[0].Key != "port.deleted" || !strings.HasPrefix(log.Changes[0].ChangedBy, "one port (token:") {
		t.Errorf("the audit log: %+v", log)
	}
	again := w.do(request{method: "DELETE", path: "/api/v1/ports/p1", token: w.all})
	if again.StatusCode != http.StatusNotFound || !strings.HasSuffix(again.problem.Type, "#unknown-port") {
		t.Errorf("deleting it again: %d %s", again.StatusCode, again.text)
	}
}

func TestEraseAUser(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	name := "ada/lovelace?#&é"
	w.usage("p1", noon, func(u *events.Usage) { u.UserID = name })
	w.usage("p2", noon, func(u *events.Usage) { u.UserID = name })
	w.usage("p1", noon)
	a := w.do(request{method: "DELETE", path: "/api/v1/users/" + url.PathEscape(name), token: w.all})
	a.want(w, http.StatusOK)
	if strings.TrimSpace(a.text) != `{"erased_rows":2}` {
		t.Errorf("the answer is %s", a.text)
	}
	if got := get[usage](w, "/api/v1/ports/p1/ai-usage?by=user"); got.UsedTokens != 220 || strings.Join(keys(got), "|") != "|u1" {
		t.Errorf("usage by user: %+v", got)
	}
	if log := w.log.String(); strings.Contains(log, "lovelace") || !strings.Contains(log, "user erased") {
		t.Errorf("the log should say that, not whom: %s", log)
	}
}
