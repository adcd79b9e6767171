package e2e

import (
	"cmp"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tidegate/tidegate/events"
)

// standing is a port's state, and its share of the hard cap, -1 without one.
func (f *fake) standing(p *fakePort) (state string, share float64) {
	b, used := p.budget, p.used()
	share = -1
	if b.HardCapTokens != nil {
		share = float64(used) / float64(b.Rule().HardAt(f.now))
	}
	switch {
	case b.HardCapTokens == nil && b.SoftCapTokens == nil:
		return "none", share
	case !b.Enabled:
		return "disabled", share
	case share >= 1:
		return "hard", share
	case b.SoftCapTokens != nil && used >= *b.SoftCapTokens:
		return "soft", share
	}
	return "fine", share
}

func (f *fake) listPorts(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	limit, _ := strconv.Atoi(r.FormValue("limit"))
	q, state := strings.ToLower(r.FormValue("q")), r.FormValue("state")
	var ids []string
	for _, id := range f.order {
		p := f.ports[id]
		of, _ := f.standing(p)
		if (state == "" || of == state) && (strings.Contains(strings.ToLower(id), q) || strings.Contains(strings.ToLower(p.name), q)) {
			ids = append(ids, id)
		}
	}
	total := len(ids)
	slices.SortStableFunc(ids, func(a, b string) int {
		p, q := f.ports[a], f.ports[b]
		switch r.FormValue("sort") {
		case "used":
			return cmp.Compare(q.used(), p.used())
		case "share":
			_, of := f.standing(p)
			_, other := f.standing(q)
			return cmp.Compare(other, of)
		case "name":
			return strings.Compare(cmp.Or(p.name, a), cmp.Or(q.name, b))
		}
		return 0
	})
	ids = ids[slices.Index(ids, r.FormValue("after"))+1:]
	next := ""
	if len(ids) > limit {
		ids = ids[:limit]
		next = ids[limit-1]
	}
	rows := []map[string]any{}
	for _, id := range ids {
		p := f.ports[id]
		start, end := p.budget.Period.Bounds(f.now)
		row := map[string]any{"port_id": id, "name": p.name, "created_at": p.created, "budget": p.budget,
			"used_tokens": p.used(), "total_tokens": p.used(), "requests": p.requests(), "period_start": start, "resets_at": end,
			"share": nil, "tightest": "", "last_call_on": nil, "days": f.days(p, 14)}
		state, share := f.standing(p)
		if row["state"] = state; share >= 0 {
			row["share"], row["tightest"] = share, "port"
		}
		if p.used() > 0 {
			row["last_call_on"] = f.now.Format(time.DateOnly)
		}
		rows = append(rows, row)
	}
	reply(w, map[string]any{"ports": rows, "next": next, "total": total})
}

// days are the tokens of the last n days, as far as this month goes.
func (f *fake) days(p *fakePort, n int) []int64 {
	days := make([]int64, n)
	for i := range days {
		for _, s := range p.shares[events.ByDay] {
			if s.Key == f.now.AddDate(0, 0, i+1-n).Format(time.DateOnly) {
				days[i] = s.TotalTokens
			}
		}
	}
	return days
}

func (f *fake) overview(w http.ResponseWriter, _ *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	states := map[string]int{"none": 0, "fine": 0, "soft": 0, "hard": 0, "disabled": 0}
	total, days := make([]int64, 30), make([]string, 30)
	for i := range days {
		days[i] = f.now.AddDate(0, 0, i-29).Format(time.DateOnly)
	}
	top, users, alerts := []map[string]any{}, []map[string]any{}, []map[string]any{}
	for _, id := range f.order {
		p := f.ports[id]
		state, _ := f.standing(p)
		states[state]++
		for i, n := range f.days(p, 30) {
			total[i] += n
		}
		if p.used() > 0 {
			top = append(top, map[string]any{"port_id": id, "name": p.name, "total_tokens": p.used(), "state": state})
			users = append(users, map[string]any{"port_id": id, "name": p.name, "user": "grace@" + id, "total_tokens": p.used() / 3})
		}
		if state == "hard" {
			alerts = append(alerts, map[string]any{"port_id": id, "name": p.name, "limit": "port", "limit_value": "", "threshold": "hard", "reached": *p.budget.HardCapTokens, "unit": "tokens", "at": f.now.Add(-3 * time.Hour)})
		}
	}
	for _, list := range [][]map[string]any{top, users} {
		slices.SortStableFunc(list, func(a, b map[string]any) int {
			return cmp.Compare(b["total_tokens"].(int64), a["total_tokens"].(int64))
		})
	}
	name := func(id string) string {
		if p := f.ports[id]; p != nil {
			return p.name
		}
		return ""
	}
	features := []map[string]any{}
	for i, key := range []string{"ocr", "summary", "reply_draft", "embedding", "translation", "classify", "search"} {
		part := []float64{0.41, 0.22, 0.14, 0.09, 0.06, 0.05, 0.03}[i]
		each, sum := make([]int64, 30), int64(0)
		for d, n := range total {
			each[d] = int64(float64(n) * part * (1 + 0.2*math.Sin(float64(d+i))))
			sum += each[d]
		}
		if sum > 0 {
			features = append(features, map[string]any{"key": key, "total_tokens": sum, "days": each})
		}
	}
	var month int64
	for _, n := range total {
		month += n
	}
	models := []map[string]any{}
	if month > 0 {
		models = []map[string]any{{"key": "claude-sonnet-4-5", "total_tokens": month * 7 / 10}, {"key": "text-embedding-3-large", "total_tokens": month * 3 / 10}}
	}
	start, _ := events.PeriodMonth.Bounds(f.now)
	reply(w, map[string]any{"ports": len(f.order), "states": states, "days": days, "tokens": total, "features": features, "models": models,
		"today":         map[string]any{"start": f.now.Truncate(24 * time.Hour), "tokens": total[29], "before": total[28]},
		"month":         map[string]any{"start": start, "tokens": month, "before": month * 4 / 5},
		"refused_today": 31, "refusals": []map[string]any{{"port_id": "brightwater", "name": name("brightwater"), "limit": "port", "day": f.now.Format(time.DateOnly), "refused": 31, "last_at": f.now.Add(-time.Minute)},
			{"port_id": "southdock", "name": name("southdock"), "limit": "each-user", "day": f.now.AddDate(0, 0, -2).Format(time.DateOnly), "refused": 1, "last_at": f.now.AddDate(0, 0, -2)}},
		"top_ports": top[:min(8, len(top))], "top_users": users[:min(8, len(users))], "top_users_of_ports": nil, "alerts": alerts, "unsettled": map[string]any{"holds": 3, "tokens": 4100, "port_id": "southdock", "name": name("southdock")},
		"backlog": map[string]any{"messages": 12, "oldest_at": f.now.Add(-90 * time.Second)}, "as_of": f.now})
}
