package admin_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/admin"
)

type sortedPorts struct {
	Ports []struct {
		PortID     string `json:"port_id"`
		UsedTokens int64  `json:"used_tokens"`
		State      string `json:"state"`
		Share      *float64
		Tightest   string
		Days       []int64
		LastCallOn *string `json:"last_call_on"`
	}
	Next  string
	Total *int64
}

// standingPorts makes a port in each state. Each has used 110 tokens today and as many 13 days ago.
func standingPorts(w *world) {
	for _, p := range []string{"fine", "soft", "hard", "off", "limited", "free", "each"} {
		w.usage(p, noon)
		w.usage(p, noon.AddDate(0, 0, -13))
	}
	w.usage("old", noon.AddDate(-1, 0, 0))
	for port, b := range map[string]string{
		"fine":    `{"enabled":true,"soft_cap_tokens":null,"hard_cap_tokens":880,"period":"month"}`,
		"soft":    `{"enabled":true,"soft_cap_tokens":110,"hard_cap_tokens":220,"period":"day"}`,
		"hard":    `{"enabled":true,"soft_cap_tokens":null,"hard_cap_tokens":110,"period":"month"}`,
		"off":     `{"enabled":false,"soft_cap_tokens":null,"hard_cap_tokens":100,"period":"month"}`,
		"limited": `{"enabled":true,"soft_cap_tokens":null,"hard_cap_tokens":2200,"period":"month","limits":[{"name":"calls","window":"month","unit":"requests","hard":2}]}`,
		"each":    `{"enabled":true,"soft_cap_tokens":null,"hard_cap_tokens":2200,"period":"month","limits":[{"name":"each-user","per":"user_id","window":"month","unit":"weighted","weights":{"output":5},"soft":300,"hard":400}]}`,
	} {
		w.do(request{method: "PUT", path: "/api/v1/ports/" + port + "/ai-budget", token: w.all, body: b, header: []string{"If-Match", `"0"`}}).want(w, 200)
	}
}

func TestPortsSortedAndInAState(t *testing.T) {
	t.Parallel()
	w := newWorld(t, databaseAtNoon)
	standingPorts(w)
	some := w.token("some", []string{"soft", "fine", "nobody", "hard"}, admin.Permission)
	list := func(token, query string) (ids string) {
		t.Helper()
		after, pages := "", 0
		for {
			a := w.do(request{method: "GET", path: "/api/v1/ports?limit=2&" + query + "&after=" + after, token: token})
			a.want(w, http.StatusOK)
			var page sortedPorts
			a.into(w, &page)
			for _, p := range page.Ports {
				ids += p.PortID + " "
			}
			if pages++; (page.Total != nil) != (pages == 1) {
				t.Errorf("%s: page %d has total %v", query, pages, page.Total)
			}
			if after = page.Next; after == "" {
				return strings.TrimSpace(ids)
			}
		}
	}
	for _, c := range []struct{ token, query, want string }{
		{w.all, "sort=share", "off hard limited each soft fine free old"},
		{w.all, "sort=used", "each fine free hard limited off soft old"},
		{w.all, "sort=last_call", "each fine free hard limited off soft old"},
		{w.all, "sort=name", "each fine free hard limited off old soft"},
		{w.all, "state=hard", "hard limited"},
		{w.all, "state=soft", "each soft"},
		{w.all, "state=fine", "fine"},
		{w.all, "state=none", "free old"},
		{w.all, "state=disabled", "off"},
		{w.all, "sort=used&q=F&state=fine", "fine"},
		{w.all, "sort=used&q=nobody", ""},
		{some, "sort=share", "hard soft fine"},
		{some, "state=hard", "hard"},
	} {
		if got := list(c.token, c.query); got != c.want {
			t.Errorf("%s: %s, want %s", c.query, got, c.want)
		}
	}
	page := get[sortedPorts](w, "/api/v1/ports")
	var got []string
	for _, p := range page.Ports {
		share, last := "-", "never"
		if p.Share != nil {
			share = fmt.Sprintf("%.2f", *p.Share)
		}
		if p.LastCallOn != nil {
			last = *p.LastCallOn
		}
		got = append(got, fmt.Sprint(p.PortID, " ", p.UsedTokens, " ", p.State, " ", share, " ", p.Tightest, " ", last, " ", p.Days[0], p.Days[13], len(p.Days)))
	}
	want := strings.Join([]string{
		"each 220 soft 0.75 each-user 2026-11-23 110 110 14",
		"fine 220 fine 0.25 port 2026-11-23 110 110 14",
		"free 220 none -  2026-11-23 110 110 14",
		"hard 220 hard 2.00 port 2026-11-23 110 110 14",
		"limited 220 hard 1.00 calls 2026-11-23 110 110 14",
		"off 220 disabled 2.20 port 2026-11-23 110 110 14",
		"old 0 none -  2025-11-23 0 0 14",
		"soft 110 soft 0.50 port 2026-11-23 110 110 14",
	}, "\n")
	if got := strings.Join(got, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, after := range []string{"x", "x:fine", "fine"} {
		w.do(request{method: "GET", path: "/api/v1/ports?sort=used&after=" + after, token: w.all}).want(w, http.StatusUnprocessableEntity)
	}
	w.do(request{method: "GET", path: "/api/v1/ports?sort=size", token: w.all}).want(w, http.StatusUnprocessableEntity)
	w.do(request{method: "GET", path: "/api/v1/ports?state=full", token: w.all}).want(w, http.StatusUnprocessableEntity)
}
