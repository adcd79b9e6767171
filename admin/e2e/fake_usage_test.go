package e2e

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
)

// looked is the days that a request asks about, and how much of what the port used this
// period it used in them.
func (f *fake) looked(r *http.Request, p *fakePort) (start, end time.Time, part float64) {
	name := r.FormValue("period")
	if from := r.FormValue("from"); from != "" {
		start, _ = time.Parse(time.DateOnly, from)
		end, _ = time.Parse(time.DateOnly, r.FormValue("to"))
		return start, end, 0.25
	}
	start, end = p.budget.Period.Bounds(f.now)
	switch name {
	case "current":
		return start, end, 1
	case "previous":
		start, end = p.budget.Period.Bounds(start.Add(-1))
		return start, end, 0.5
	}
	start, _ = time.Parse("2006-01", name)
	if name == "2026-11" {
		return start, start.AddDate(0, 1, 0), 1
	}
	return start, start.AddDate(0, 1, 0), 0
}

func (f *fake) usage(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.known(r)
	start, end, part := f.looked(r, p)
	shares := []events.Share{}
	for _, s := range p.shares[events.Dimension(r.FormValue("by"))] {
		if part > 0 {
			shares = append(shares, share(s.Key, int64(float64(s.TotalTokens)*part)))
		}
	}
	reply(w, map[string]any{"port_id": r.PathValue("port"), "period_start": start, "period_end": end, "used_tokens": int64(float64(p.used()) * part),
		"requests": int64(float64(p.requests()) * part), "dimension": r.FormValue("by"), "by": shares, "as_of": f.now})
}

// series has of this month what the days have, and of other days the same for each step.
func (f *fake) series(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.known(r)
	start, end, part := f.looked(r, p)
	step := budget.Period(r.FormValue("step"))
	byDay := map[string]int64{}
	for _, s := range p.shares[events.ByDay] {
		byDay[s.Key] = s.TotalTokens
	}
	starts, tokens, requests := []time.Time{}, []int64{}, []int64{}
	for at, next := step.Bounds(start); at.Before(end); at, next = step.Bounds(next) {
		n := int64(float64(p.used()) * part * float64(next.Sub(at)) / float64(end.Sub(start)))
		if part == 1 && step == budget.Day {
			n = byDay[at.Format(time.DateOnly)]
		}
		if at.After(f.now) {
			n = 0
		}
		starts, tokens, requests = append(starts, at), append(tokens, n), append(requests, (n+1564)/1565)
	}
	series := []map[string]any{}
	for i, s := range p.shares[events.Dimension(r.FormValue("by"))] {
		if i == 6 || part == 0 {
			break
		}
		each := make([]int64, len(tokens))
		for j, n := range tokens {
			each[j] = int64(float64(n) * float64(s.TotalTokens) / float64(max(1, p.used())))
		}
		series = append(series, map[string]any{"key": s.Key, "total_tokens": int64(float64(s.TotalTokens) * part), "tokens": each})
	}
	reply(w, map[string]any{"port_id": r.PathValue("port"), "period_start": start, "period_end": end, "dimension": r.FormValue("by"), "step": step,
		"starts": starts, "tokens": tokens, "requests": requests, "series": series, "as_of": f.now})
}

func (f *fake) listAlerts(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	limit, _ := strconv.Atoi(r.FormValue("limit"))
	list := []map[string]any{}
	for i := range min(f.known(r).alerts, limit) {
		threshold, limit, unit := "soft", "port", "tokens"
		if i == 0 {
			threshold, limit, unit = "80%", "ocr-daily", "requests"
		}
		list = append(list, map[string]any{"port_id": r.PathValue("port"), "limit": limit, "limit_value": "", "threshold": threshold, "reached": 800_000, "unit": unit, "at": f.now.AddDate(0, -i, 0)})
	}
	reply(w, map[string]any{"alerts": list})
}

func (f *fake) quarantine(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	limit, _ := strconv.Atoi(r.FormValue("limit"))
	total, list, next := f.known(r).refused, []map[string]any{}, 0
	for i := 1; i <= min(total, limit); i++ {
		list = append(list, map[string]any{"sequence": 40 + i, "reason": "id_conflict", "error": fmt.Sprintf("the id invoice-%d was booked with 1500 tokens", i),
			"arrived": f.now, "quarantined_at": f.now.Add(-time.Duration(i) * time.Hour), "payload": `{"id":"invoice-17","feature":"ocr"}`, "bytes": 35})
	}
	if total > limit {
		next = 40 + limit
	}
	reply(w, map[string]any{"total": total, "events": list, "next": next})
}

func (f *fake) unsettled(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := []map[string]any{}
	for i := range f.known(r).lost {
		list = append(list, map[string]any{"day": f.now.AddDate(0, 0, -i).Format(time.DateOnly), "service": "expenses", "feature": "ocr", "holds": 3, "tokens": 4100})
	}
	reply(w, map[string]any{"holds": list, "next": ""})
}

// known is the port of a request, which may be one that nobody has heard of.
func (f *fake) known(r *http.Request) *fakePort {
	if p := f.ports[r.PathValue("port")]; p != nil {
		return p
	}
	return &fakePort{budget: events.Budget{Period: events.PeriodMonth}}
}
