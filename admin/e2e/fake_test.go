package e2e

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidegate/tidegate/admin/page"
	"github.com/tidegate/tidegate/events"
)

// fake answers the admin API from memory, so that a test can bring about what a real
// server does rarely: a slow answer, an outage, a lost race at the right moment. That
// the real one speaks the same contract is for the tests on the real system.
type fake struct {
	URL string

	mu      sync.Mutex
	now     time.Time
	ports   map[string]*fakePort
	order   []string
	broken  func(*http.Request) (status int, body string) // status 0: answer normally
	asked   []string                                      // "GET /api/v1/…" with query
	session string
}

type fakePort struct {
	name    string
	budget  events.Budget
	held    int64
	created time.Time
	shares  map[events.Dimension][]events.Share
	audit   []map[string]any
	alerts  int // that were sent
	refused int // events that are quarantined
	lost    int // groups of reservations that nobody settled
}

func (p *fakePort) used() (n int64) {
	for _, s := range p.shares[events.ByDay] {
		n += s.TotalTokens
	}
	return n
}

func (p *fakePort) requests() (n int64) {
	for _, s := range p.shares[events.ByDay] {
		n += s.Requests
	}
	return n
}

// fakeNow is when the fake's world stands still: late in a month of 30 days.
var fakeNow = time.Date(2026, 11, 23, 15, 30, 6, 0, time.UTC)

func newFake(t testing.TB) *fake {
	f := &fake{now: fakeNow, ports: map[string]*fakePort{}, session: "Ada Lovelace"}
	mux := http.NewServeMux()
	mux.Handle("/", page.Handler())
	mux.HandleFunc("GET /api/v1/session", f.getSession)
	mux.HandleFunc("GET /api/v1/overview", f.overview)
	mux.HandleFunc("GET /api/v1/ports", f.listPorts)
	mux.HandleFunc("GET /api/v1/ports/{port}/ai-budget", f.getBudget)
	mux.HandleFunc("PUT /api/v1/ports/{port}/ai-budget", f.putBudget)
	mux.HandleFunc("DELETE /api/v1/ports/{port}/ai-budget", f.deleteBudget)
	mux.HandleFunc("GET /api/v1/ports/{port}/ai-budget/simulate", f.simulate)
	mux.HandleFunc("GET /api/v1/ports/{port}/alerts", f.listAlerts)
	mux.HandleFunc("GET /api/v1/ports/{port}/ai-usage", f.usage)
	mux.HandleFunc("GET /api/v1/ports/{port}/ai-usage/series", f.series)
	mux.HandleFunc("GET /api/v1/ports/{port}/quarantine", f.quarantine)
	mux.HandleFunc("GET /api/v1/ports/{port}/unsettled-holds", f.unsettled)
	mux.HandleFunc("GET /api/v1/ports/{port}/audit", f.changes)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		broken := f.broken
		if strings.HasPrefix(r.URL.Path, "/api/") {
			f.asked = append(f.asked, r.Method+" "+r.URL.RequestURI())
			w.Header().Set("Date", f.now.Format(http.TimeFormat))
			w.Header().Set("Cache-Control", "no-store")
		}
		f.mu.Unlock()
		if broken != nil { // outside the lock: it may wait
			if status, body := broken(r); status < 0 {
				panic(http.ErrAbortHandler)
			} else if status > 0 {
				w.Header().Set("Content-Type", "application/problem+json")
				w.WriteHeader(status)
				fmt.Fprint(w, body)
				return
			}
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		server.CloseClientConnections() // also those that a test keeps waiting
		server.Close()
	})
	f.URL = server.URL
	return f
}

// breakWith makes requests go wrong until mended with nil.
func (f *fake) breakWith(broken func(*http.Request) (int, string)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken = broken
}

// change does something to a port while the page looks at it.
func (f *fake) change(port string, do func(*fakePort)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do(f.ports[port])
}

// store changes a budget as somebody else would.
func (f *fake) store(port string, b events.Budget, by string) {
	f.change(port, func(p *fakePort) { f.storeLocked(p, b, by) })
}

func (f *fake) storeLocked(p *fakePort, b events.Budget, by string) {
	b.Version, b.UpdatedAt, b.UpdatedBy = p.budget.Version+1, f.now, by
	var before any
	if p.budget.Version > 0 {
		before = p.budget
	}
	p.audit = append(p.audit, map[string]any{"id": len(p.audit) + 1, "key": "ai.budget", "version": b.Version,
		"old_value": before, "new_value": b, "changed_at": b.UpdatedAt, "changed_by": by})
	p.budget = b
}

func (f *fake) getSession(w http.ResponseWriter, _ *http.Request) {
	reply(w, map[string]any{"name": f.session, "permissions": []string{"admin.manage_settings"}, "ports": nil, "expires_at": f.now.Add(time.Hour)})
}

func (f *fake) getBudget(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.replyBudget(w, r.PathValue("port"))
}

func (f *fake) replyBudget(w http.ResponseWriter, id string) {
	p := f.ports[id]
	if p == nil {
		p = &fakePort{budget: events.Budget{Period: events.PeriodMonth}}
	}
	b, used := p.budget, p.used()
	start, end := b.Period.Bounds(f.now)
	hard := b.Rule().HardAt(f.now)
	answer := map[string]any{"port_id": id, "enabled": b.Enabled, "soft_cap_tokens": b.SoftCapTokens, "hard_cap_tokens": b.HardCapTokens,
		"period": b.Period, "version": b.Version, "updated_at": b.UpdatedAt, "updated_by": b.UpdatedBy, "may_change": true,
		"used_tokens": used, "held_tokens": p.held, "remaining_tokens": nil,
		"projected_tokens": int64(float64(used) * float64(end.Sub(start)) / float64(f.now.Sub(start))),
		"soft_cap_reached": b.Enabled && b.SoftCapTokens != nil && used >= *b.SoftCapTokens,
		"hard_cap_reached": b.Enabled && b.HardCapTokens != nil && used >= hard,
		"period_start":     start, "resets_at": end, "as_of": f.now, "limits": limitsOf(b)}
	if b.HardCapTokens != nil {
		answer["remaining_tokens"] = max(0, hard-used-p.held)
	}
	if b.ExtraTokens != nil {
		answer["extra_tokens"], answer["extra_until"] = b.ExtraTokens, b.ExtraUntil
	}
	w.Header().Set("ETag", fmt.Sprintf(`"%d"`, b.Version))
	reply(w, answer)
}

func (f *fake) putBudget(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.ports[r.PathValue("port")]
	var b events.Budget
	if err := json.NewDecoder(r.Body).Decode(&b); err != nil {
		problem(w, 400, "The body is not JSON", err.Error())
		return
	}
	if match := r.Header.Get("If-Match"); match != fmt.Sprintf(`"%d"`, p.budget.Version) {
		problem(w, 412, "The budget was changed", "the stored version is "+strconv.FormatInt(p.budget.Version, 10))
		return
	}
	if err := b.Validate(); err != nil {
		problem(w, 422, "The budget is not valid", err.Error())
		return
	}
	if b.Limits == nil {
		b.Limits = p.budget.Limits
	}
	if b.ExtraTokens != nil && *b.ExtraTokens == 0 {
		b.ExtraTokens = nil
	}
	f.storeLocked(p, b, f.session+" (login-link:local)")
	f.replyBudget(w, r.PathValue("port"))
}

// deleteBudget gives a port back to a default budget that nobody has set.
func (f *fake) deleteBudget(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.ports[r.PathValue("port")]
	f.storeLocked(p, events.Budget{Period: events.PeriodMonth}, f.session+" (login-link:local)")
	p.audit[len(p.audit)-1]["new_value"] = map[string]any{"default": true}
	f.replyBudget(w, r.PathValue("port"))
}

// simulate refuses whatever comes after the cap in a last month of 9,041 calls of
// 111 tokens each, spread evenly over 30 days.
func (f *fake) simulate(w http.ResponseWriter, r *http.Request) {
	from := time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC)
	const calls, each = 9041, 111
	past := func(name string) (int64, any) {
		limit, err := strconv.ParseInt(r.FormValue(name), 10, 64)
		if err != nil || limit >= calls*each {
			return 0, nil
		}
		before := int64(math.Ceil(float64(limit) / each))
		return calls - before, from.Add(time.Duration(before) * (31 * 24 * time.Hour / calls))
	}
	refused, first := past("hard")
	warned, firstWarned := past("soft")
	reply(w, map[string]any{"port_id": r.PathValue("port"), "of": "previous", "from": from, "to": from.AddDate(0, 1, 0), "calls": calls,
		"refused_calls": refused, "refused_tokens": refused * each, "first_refused_at": first,
		"warned_calls": warned, "first_warned_at": firstWarned, "used_tokens": calls * each})
}

func (f *fake) changes(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var rows []map[string]any
	if p := f.ports[r.PathValue("port")]; p != nil {
		rows = slices.Clone(p.audit)
	}
	slices.Reverse(rows)
	limit, _ := strconv.Atoi(r.FormValue("limit"))
	before, _ := strconv.Atoi(r.FormValue("before"))
	out, next := []map[string]any{}, ""
	for _, c := range rows {
		if before != 0 && c["id"].(int) >= before {
			continue
		}
		if len(out) == limit {
			next = strconv.Itoa(out[limit-1]["id"].(int))
			break
		}
		out = append(out, c)
	}
	reply(w, map[string]any{"changes": out, "next": next})
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the page has gone: nobody to tell
}

func problem(w http.ResponseWriter, status int, title, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"title": title, "status": status, "detail": detail})
}
