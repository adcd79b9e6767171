package gate

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/bus"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

// watched is a gate of which a test sees the alerts that it would claim.
type watched struct {
	*Gate
	t        *testing.T
	registry *prometheus.Registry
	now      time.Time
	version  int64
}

func newWatched(t *testing.T) *watched {
	registry := prometheus.NewRegistry()
	g := bare(Config{Now: func() time.Time { return noon }}, registry)
	g.alerts = make(chan ledger.Alert, 10)
	return &watched{Gate: g, t: t, registry: registry, now: noon}
}

const noCap = budget.NoCap

// budget sets the port's caps, noCap for none, and looks at its use as the gate does.
func (g *watched) budget(soft, hard int64) {
	g.version++
	b := events.Budget{Enabled: true, Period: events.PeriodDay, Version: g.version}
	if soft != noCap {
		b.SoftCapTokens = &soft
	}
	if hard != noCap {
		b.HardCapTokens = &hard
	}
	g.memory.applyBudget("p", b)
	g.considerAlert("p", g.now)
}

// extra sets a hard cap and tokens on top of it.
func (g *watched) extra(hard, tokens int64, until time.Time) {
	g.version++
	g.memory.applyBudget("p", events.Budget{Enabled: true, Period: events.PeriodDay, Version: g.version, HardCapTokens: &hard, ExtraTokens: &tokens, ExtraUntil: until})
	g.considerAlert("p", g.now)
}

// used is what the port has used of the day.
func (g *watched) used(tokens int64) {
	day := ledger.DayOf(g.now)
	g.memory.applyTotals(notice("p", day, tokens), day, time.Time{})
	g.considerAlert("p", g.now)
}

func (g *watched) want(alerts ...string) {
	g.t.Helper()
	var got []string
	for len(g.alerts) > 0 {
		a := <-g.alerts
		got = append(got, fmt.Sprintf("%s %d: %d", a.Threshold, a.Reached, a.Used))
	}
	if !slices.Equal(got, alerts) {
		g.t.Errorf("alerts %q, want %q", got, alerts)
	}
}

func (g *watched) wantOvershoot(tokens float64) {
	g.t.Helper()
	if got := gauge(g.t, g.registry, "tidegate_overshoot_tokens_max"); got != tokens {
		g.t.Errorf("overshoot %v, want %v", got, tokens)
	}
}

// Postgres is asked about an alert when a cap may have been reached anew, and only then.
func TestAlertsAreConsideredOnceForEachValueOfACap(t *testing.T) {
	t.Parallel()
	g := newWatched(t)
	g.budget(80, 100)
	g.used(79)
	g.want()
	g.used(90)
	g.want("soft 80: 90")
	g.used(100)
	g.want("hard 100: 100")
	g.used(110)
	g.want()
	g.budget(80, 200) // raised: not reached yet
	g.want()
	g.used(200)
	g.want("hard 200: 200")
	g.budget(80, 200) // stored again as it was
	g.want()
	g.budget(90, 200)
	g.want("soft 90: 200")
	g.budget(90, 150) // the ledger knows that 200 was told
	g.want("hard 150: 200")
	g.now = g.now.AddDate(0, 0, 1)
	g.used(0)
	g.want()
	g.used(150)
	g.want("soft 90: 150", "hard 150: 150")
}

// Extra tokens are a cap of their own, for alerts; when they end, the ledger knows whether the cap
// without them was told. What they allowed is no overshoot.
func TestAlertsOfExtraTokens(t *testing.T) {
	t.Parallel()
	g := newWatched(t)
	g.budget(noCap, 100)
	g.used(100)
	g.want("hard 100: 100")
	g.extra(100, 50, g.now.Add(time.Hour))
	g.want()
	g.used(149)
	g.want()
	g.used(152)
	g.want("hard 150: 152")
	g.wantOvershoot(2)
	g.extra(100, 50, g.now.Add(time.Hour)) // stored again as it was
	g.want()

	g.extra(100, 80, g.now.Add(time.Hour))
	g.used(160)
	g.want()
	g.now = g.now.Add(time.Hour)
	g.used(161)
	g.want("hard 100: 161")
	g.wantOvershoot(2)
	g.now = g.now.AddDate(0, 0, 1)
	g.used(101)
	g.want("hard 100: 101")
}

// Only tokens that were booked above a cap in force are an overshoot.
func TestALoweredCapIsNoOvershoot(t *testing.T) {
	t.Parallel()
	g := newWatched(t)
	g.used(500) // before it had a budget
	g.budget(noCap, 400)
	g.wantOvershoot(0)
	g.used(507)
	g.wantOvershoot(7)
	g.budget(noCap, 1000)
	g.used(900)
	g.budget(noCap, 300)
	g.wantOvershoot(7)
	g.used(905)
	g.wantOvershoot(7) // that is 5
	g.budget(10, 300)  // the same hard cap
	g.used(908)
	g.wantOvershoot(8)
	g.budget(noCap, 1000)
	g.used(1020)
	g.wantOvershoot(20)
	g.now = g.now.AddDate(0, 0, 1) // what was used the day before lowers nothing
	g.used(1000)
	g.wantOvershoot(20)
	g.used(1030)
	g.wantOvershoot(30)
	g.budget(noCap, noCap)
	g.used(5000)
	g.wantOvershoot(30)
}

// What a gate finds when it starts may be of a cap that was lowered while nobody looked.
func TestWhatAGateFindsAtItsStartIsNoOvershoot(t *testing.T) {
	t.Parallel()
	g := newWatched(t)
	hard, day := int64(100), ledger.DayOf(noon)
	read := func(tokens int64) {
		g.memory.beginReading(true, day)
		g.memory.readBudget("p", events.Budget{Enabled: true, Period: events.PeriodDay, HardCapTokens: &hard, Version: 3})
		g.memory.readBudget("idle", events.Budget{Enabled: true, Period: events.PeriodDay, HardCapTokens: &hard, Version: 1})
		g.memory.readDays([]ledger.PortDay{{PortID: "p", Day: day, TotalTokens: tokens}})
		g.memory.endReading(noon)
		g.considerAllAlerts(noon)
	}
	read(150)
	g.wantOvershoot(0)
	read(160) // the notice of a booking was lost
	g.wantOvershoot(10)
	// A port that nothing was booked for had its cap all the time.
	g.memory.applyTotals(notice("idle", day, 125), day, time.Time{})
	g.considerAlert("idle", noon)
	g.wantOvershoot(25)
	// One that is gone and comes back begins anew.
	g.memory.applyTotals(bus.Totals{Deleted: []string{"p"}}, day, time.Time{})
	if len(g.memory.over) > 0 {
		t.Errorf("a port that is gone is remembered: %v", g.memory.over)
	}
}

// A gate that claimed several alerts and is slow with the first leaves the others alone:
// their claim may run out, and somebody else may be at them.
func TestASlowGateLeavesAlertsToOthers(t *testing.T) {
	t.Parallel()
	conn := testenv.Connect(t, testenv.NATS(t))
	l, err := ledger.Open(t.Context(), ledger.Config{URL: testenv.Database(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	heard, err := conn.SubscribeSync(events.SubjectAlert + ".*")
	if err != nil {
		t.Fatal(err)
	}
	// Each reading of its clock takes 5 s.
	var read atomic.Int64
	g, err := New(Config{Conn: conn, Ledger: l, Now: func() time.Time {
		return time.Now().Add(time.Duration(read.Add(1)) * 5 * time.Second)
	}})
	if err != nil {
		t.Fatal(err)
	}
	var alerts []ledger.Alert
	for i := range 5 {
		port := fmt.Sprintf("p%d", i)
		if _, err := l.StoreBudget(t.Context(), port, budget.None(), nil, func(budget.Budget) error { return nil }); err != nil {
			t.Fatal(err)
		}
		start, _ := budget.Month.Bounds(time.Now())
		alerts = append(alerts, ledger.Alert{PortID: port, Limit: "port", Unit: "tokens", Period: budget.Month, PeriodStart: start, Threshold: "hard", Reached: 10, Used: 10, NoticedAt: time.Now()})
	}
	if err := g.publishMine(t.Context(), alerts); err != nil {
		t.Fatal(err)
	}
	if n, _, _ := heard.Pending(); n != 1 {
		t.Errorf("%d alerts went out, want the first alone", n)
	}
}

// Ports without a budget of their own alert at what the default budget has: once, and again
// where that changes. A port with its own does not.
func TestAlertsOfTheDefaultBudget(t *testing.T) {
	g := newWatched(t)
	standard := func(hard int64, limits ...budget.Limit) {
		g.version++
		g.memory.applyBudget(budget.DefaultPort, budget.Budget{Enabled: true, Period: budget.Day, Version: g.version, HardCapTokens: &hard, Limits: limits})
		g.considerAllAlerts(g.now)
	}
	standard(1000)
	g.used(1200)
	g.want("hard 1000: 1200")
	standard(1000)
	g.used(1201)
	g.want()
	standard(1100)
	g.want("hard 1100: 1201")
	g.budget(noCap, 1190)
	g.want("hard 1190: 1201")
	standard(1195)
	g.want()

	// A limit that the default budget gets binds who is counted in it already.
	day, _ := budget.Day.Bounds(g.now)
	g.memory.raiseCounter(ledger.Counter{PortID: "q", Counter: 7, Value: "ada", Start: day, Used: 90})
	due := func() (alerts []ledger.Alert, read bool) {
		_, p, _ := g.memory.due.next()
		return p.alerts, p.read
	}
	g.memory.applyTotals(notice("q", ledger.DayOf(g.now), 90), ledger.DayOf(g.now), time.Time{})
	if alerts, read := due(); alerts != nil || read {
		t.Errorf("without a limit %v are due, read %t", alerts, read)
	}
	standard(5000, budget.Limit{Name: "each", Per: budget.PerUser, Window: budget.Day, Hard: new(int64(80)), Counter: 7})
	if _, read := due(); !read {
		t.Fatal("nobody looks at what the counters of a limit that is new in the default budget have")
	}
	g.memory.due.readTo("q", 0, nil, true)
	due()
	g.memory.raiseCounter(ledger.Counter{PortID: "q", Counter: 7, Value: "bob", Start: day, Used: 81})
	if alerts, _ := due(); len(alerts) != 1 || alerts[0].Value != "bob" || alerts[0].Reached != 80 {
		t.Errorf("%+v are due, want one of bob at 80", alerts)
	}
}
