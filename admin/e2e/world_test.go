package e2e

import (
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

func tokens(n int64) *int64 { return &n }

func monthly(soft, hard *int64) events.Budget {
	return events.Budget{Enabled: true, SoftCapTokens: soft, HardCapTokens: hard, Period: events.PeriodMonth}
}

// add gives the fake a port that has used so many tokens this month, with weekends
// quieter than working days.
func (f *fake) add(id, name string, used int64, budgets ...events.Budget) *fakePort {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := &fakePort{name: name, created: f.now.AddDate(-1, 0, 0), budget: events.Budget{Period: events.PeriodMonth}}
	f.ports[id] = p
	f.order = append(f.order, id)
	people := []string{"Ada Lovelace (oidc:auth0|5f1)", "Grace Hopper (oidc:auth0|7c2)", "Ada Lovelace (oidc:auth0|5f1)"}
	real := f.now
	for i, b := range budgets {
		f.now = real.AddDate(0, 0, -7*(len(budgets)-i))
		f.storeLocked(p, b, people[i%len(people)])
	}
	f.now = real
	p.shares = map[events.Dimension][]events.Share{}
	if used == 0 {
		return p
	}
	p.shares[events.ByDay] = spread(used, f.now)
	p.shares[events.ByFeature] = split(used, "ocr", 0.51, "summary", 0.22, "reply_draft", 0.14, "embedding", 0.09, "translation", 0.04)
	p.shares[events.ByModel] = split(used, "claude-sonnet-4-5", 0.64, "claude-haiku-4-5", 0.21, "text-embedding-3-large", 0.15)
	p.shares[events.ByUser] = split(used, "ada", 0.32, "grace", 0.24, "", 0.18, "linus", 0.08, "barbara", 0.06, "edsger", 0.05, "margaret", 0.04, "ken", 0.02, "radia", 0.01)
	p.shares[events.ByRun] = split(used, "run-1123-4", 0.3, "run-1120-1", 0.2, "", 0.5)
	return p
}

func spread(used int64, now time.Time) []events.Share {
	weight := func(day int) float64 {
		d := time.Date(now.Year(), now.Month(), day, 0, 0, 0, 0, time.UTC)
		w := 1 + 0.35*math.Sin(float64(day)*1.7) + 0.012*float64(day)
		if d.Weekday() == time.Saturday || d.Weekday() == time.Sunday {
			w *= 0.22
		}
		if day == now.Day() {
			w *= 0.6
		}
		return w
	}
	var sum float64
	for day := 1; day <= now.Day(); day++ {
		sum += weight(day)
	}
	var shares []events.Share
	left := used
	for day := 1; day <= now.Day(); day++ {
		n := int64(float64(used) * weight(day) / sum)
		if day == now.Day() {
			n = left
		}
		left -= n
		shares = append(shares, share(time.Date(now.Year(), now.Month(), day, 0, 0, 0, 0, time.UTC).Format(time.DateOnly), n))
	}
	return shares
}

func split(used int64, keysAndParts ...any) []events.Share {
	var shares []events.Share
	for i := 0; i < len(keysAndParts); i += 2 {
		shares = append(shares, share(keysAndParts[i].(string), int64(float64(used)*keysAndParts[i+1].(float64))))
	}
	return shares
}

func share(key string, n int64) events.Share {
	return events.Share{Key: key, Requests: n/1565 + 1, InputTokens: n * 9 / 10, OutputTokens: n - n*9/10, TotalTokens: n}
}

// harbour is a world with ports in every state.
func (f *fake) harbour() {
	f.add("archive", "", 0)
	f.add("brightwater", "Brightwater Marina", 1_041_220, monthly(tokens(700_000), tokens(900_000)), monthly(tokens(800_000), tokens(1_000_000)))
	f.add("eastquay", "East Quay", 3_120_400, monthly(nil, nil))
	f.add("marina-7", "Harbour North", 612_345, monthly(tokens(600_000), tokens(900_000)), monthly(tokens(800_000), tokens(900_000)), monthly(tokens(800_000), tokens(1_000_000))).held = 4_000
	f.add("oldtown", "Old Town Slips", 41_200, events.Budget{SoftCapTokens: tokens(50_000), HardCapTokens: tokens(200_000), Period: events.PeriodMonth})
	south := f.add("southdock", "South Dock", 871_002, monthly(tokens(800_000), tokens(1_200_000)))
	south.refused, south.lost, south.alerts = 7, 2, 7
}

// usedBy is what the shares of a port are when it has used so many tokens.
func (f *fake) usedBy(used int64) map[events.Dimension][]events.Share {
	return map[events.Dimension][]events.Share{events.ByDay: spread(used, f.now), events.ByFeature: split(used, "ocr", 0.6, "summary", 0.4)}
}

// port is a port as it is now.
func (f *fake) port(id string) fakePort {
	f.mu.Lock()
	defer f.mu.Unlock()
	return *f.ports[id]
}

func (f *fake) requests() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.asked)
}

// askedSince are the requests after the first n.
func (f *fake) askedSince(n int) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.asked[n:])
}

// count is how many requests had this in their address.
func (f *fake) count(part string) (n int) {
	for _, asked := range f.askedSince(0) {
		if strings.Contains(asked, part) {
			n++
		}
	}
	return n
}

// waitFor waits for a request with this in its address.
func (f *fake) waitFor(t testing.TB, part string) {
	t.Helper()
	testenv.Eventually(t, "somebody asks for "+part, func() bool { return f.count(part) > 0 })
}

// hold keeps a request waiting until go is closed, or the client gives up.
func hold(r *http.Request, until <-chan struct{}) {
	select {
	case <-until:
	case <-r.Context().Done():
	}
}
