package gate

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

// limited is a gate of which a test sees what is due of its ports' limits.
type limited struct {
	*Gate
	t       *testing.T
	version int64
}

func newLimited(t *testing.T) *limited {
	return &limited{Gate: bare(Config{Now: func() time.Time { return noon }}, prometheus.NewRegistry()), t: t}
}

func (g *limited) budget(port string, enabled bool, limits ...budget.Limit) {
	g.version++
	g.memory.applyBudget(port, budget.Budget{Enabled: enabled, Period: budget.Month, Version: g.version, Limits: limits})
}

func (g *limited) used(port, value string, used int64) {
	hour, _ := budget.Hour.Bounds(noon)
	g.memory.raiseCounter(ledger.Counter{PortID: port, Counter: 1, Value: value, Start: hour, Used: used})
}

// want compares what is due of the port whose turn it is: thresholds and values, and "read"
// where the ledger is to be read. With done, that is taken for read.
func (g *limited) want(list ...string) {
	g.t.Helper()
	port, now, _ := g.memory.due.next()
	var got []string
	for _, a := range now.alerts {
		got = append(got, fmt.Sprintf("%s %s %d: %s %d", a.Limit, a.Threshold, a.Reached, a.Value, a.Used))
	}
	if now.read {
		got = append(got, "read")
		g.memory.due.readTo(port, 0, nil, true)
		g.memory.due.next()
	}
	if !slices.Equal(got, list) {
		g.t.Errorf("%s: %q, want %q", port, got, list)
	}
}

// A counter that grows past a threshold is due then, and never again while the budget stays.
// Where a threshold is new, what is above it already is found in the ledger.
func TestAlertsOfLimitsAreDueOnce(t *testing.T) {
	t.Parallel()
	g := newLimited(t)
	each := budget.Limit{Name: "each", Per: budget.PerUser, Window: budget.Hour, Counter: 1, Soft: n(80), Hard: n(100), AlertAt: []budget.Threshold{{Percent: 50}, {Value: 120}}}
	g.budget("p", true, each)
	g.used("p", "u1", 49)
	g.want()
	g.used("p", "u1", 85)
	g.used("p", "u2", 51)
	g.want("each 50% 50: u1 85", "each soft 80: u1 85", "each 50% 50: u2 51")
	g.used("p", "u1", 85)
	g.used("p", "u1", 70) // of before
	g.used("p", "u1", 99)
	g.want()
	g.used("p", "u1", 130)
	g.want("each hard 100: u1 130", "each 120 120: u1 130")
	g.budget("p", true, each) // stored again as it was
	g.want()
	raised := each
	raised.Hard = n(200)
	g.budget("p", true, raised)
	g.want("read") // 50% is 100 now, which u1 has
	g.used("p", "u2", 100)
	g.want("each soft 80: u2 100", "each 50% 100: u2 100")
	raised.Soft, raised.AlertAt, raised.Hard = nil, nil, n(300)
	g.budget("p", true, raised)
	g.want()
	g.used("p", "u1", 299)
	g.want()
	g.budget("p", false, each)
	g.used("p", "u3", 500)
	g.want()
	g.budget("p", true, each)
	g.want("read")

	// Two limits that count the same; of a hard cap of 0 the first call is told, and of no use nothing.
	g.budget("q", true, budget.Limit{Name: "a", Window: budget.Hour, Counter: 1, Soft: n(5)}, budget.Limit{Name: "b", Window: budget.Hour, Counter: 1, Hard: n(0)})
	g.used("q", "", 0)
	g.want()
	g.used("q", "", 7)
	g.want("b hard 0:  7", "a soft 5:  7")
}

// However many values reach a threshold at once, few alerts are kept, and each port has its turn.
func TestAFloodOfAlertsDelaysNoOtherPort(t *testing.T) {
	t.Parallel()
	g := newLimited(t)
	each := budget.Limit{Name: "each", Per: budget.PerUser, Window: budget.Hour, Counter: 1, Hard: n(100)}
	g.budget("flood", true, each)
	g.budget("calm", true, each)
	for i := range 5_000 {
		g.used("flood", fmt.Sprint("u", i), 100)
	}
	g.used("calm", "u1", 100)
	port, now, _ := g.memory.due.next()
	if port != "flood" || len(now.alerts) != alertsAtOnce || !now.read {
		t.Fatalf("%s: %d alerts, read: %v", port, len(now.alerts), now.read)
	}
	// While its counters are read, more come: the reading goes on, and there is another after it.
	value := "u3"
	g.memory.due.readTo("flood", 0, &value, false)
	for i := range 500 {
		g.used("flood", fmt.Sprint("v", i), 100)
	}
	if port, now, _ = g.memory.due.next(); port != "calm" || len(now.alerts) != 1 || now.read {
		t.Fatalf("the next is %s: %d alerts, read: %v", port, len(now.alerts), now.read)
	}
	if port, now, _ = g.memory.due.next(); port != "flood" || now.after == nil || *now.after != value || len(now.alerts) != alertsAtOnce {
		t.Fatalf("%s, after %v: %d alerts", port, now.after, len(now.alerts))
	}
	g.memory.due.readTo("flood", 0, nil, true)
	if port, now, _ = g.memory.due.next(); port != "flood" || !now.read || now.after != nil {
		t.Fatalf("%s is not read again: %+v", port, now)
	}
	g.memory.due.readTo("flood", 0, nil, true)
	_, now, _ = g.memory.due.next()
	if _, _, more := g.memory.due.next(); now.read || more {
		t.Error("it is read again and again")
	}

	// Many ports together are bounded too.
	for i := range 300 {
		port := fmt.Sprint("p", i)
		g.budget(port, true, each)
		for j := range alertsAtOnce {
			g.used(port, fmt.Sprint("u", j), 100)
		}
	}
	kept, reads := 0, 0
	for range 300 {
		port, now, _ := g.memory.due.next()
		kept += len(now.alerts)
		if now.read {
			reads++
			g.memory.due.readTo(port, 0, nil, true)
		}
	}
	if kept != maxDue || reads != 200 {
		t.Errorf("%d alerts are kept and %d ports are read, want %d and 200", kept, reads, maxDue)
	}
}

// Refusals are counted by the kind of limit that refuses, counters by how many there are: in no
// metric is a limit's name or a value.
func TestMetricsOfLimits(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	g := &limited{Gate: bare(Config{Now: func() time.Time { return noon }}, registry), t: t}
	g.version = 1
	g.memory.applyBudget("p", budget.Budget{Enabled: true, Period: budget.Day, Version: 1, HardCapTokens: n(1000),
		Limits: []budget.Limit{{Name: "each", Per: budget.PerUser, Window: budget.Hour, Counter: 1, Unit: budget.Requests, Hard: n(1)}}})
	for i := range 3 {
		g.used("p", fmt.Sprint("u", i), 1)
		v := g.verdict(&events.CheckRequest{PortID: "p", UserID: fmt.Sprint("u", i)})
		g.metrics.count(&v)
	}
	v := g.verdict(&events.CheckRequest{PortID: "p", UserID: "another", EstimatedTokens: 1001})
	g.metrics.countReserve(&v, 1001)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		if f.GetName() != "tidegate_refusals_total" && f.GetName() != "tidegate_gate_counters" {
			continue
		}
		for _, m := range f.GetMetric() {
			line := f.GetName()
			for _, l := range m.GetLabel() {
				line += " " + l.GetValue()
			}
			got = append(got, fmt.Sprint(line, " ", m.GetCounter().GetValue()+m.GetGauge().GetValue()))
		}
	}
	want := []string{"tidegate_gate_counters 3", "tidegate_refusals_total limit check requests hour 3", "tidegate_refusals_total port reserve tokens day 1"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// A counter that was too high comes to its marks all the same. What was told of, the ledger knows.
func TestAHealedCounterMissesNoAlert(t *testing.T) {
	t.Parallel()
	g := newLimited(t)
	limit := budget.Limit{Name: "each", Per: budget.PerUser, Window: budget.Hour, Hard: new(int64(100)), Counter: 1}
	g.budget("p", false, limit)
	g.used("p", "ada", 1_000) // wrong, and no alert is due while the budget is off
	g.budget("p", true, limit)
	g.want("read") // which finds nothing
	g.used("p", "ada", 100)
	g.want()
	hour, _ := budget.Hour.Bounds(noon)
	read := func(used int64) {
		g.memory.beginReading(true, oldestDay(noon))
		g.memory.readBudget("p", budget.Budget{Enabled: true, Period: budget.Month, Version: g.version, Limits: []budget.Limit{limit}})
		g.memory.readCounter(ledger.Counter{PortID: "p", Counter: 1, Value: "ada", Start: hour, Used: used})
		g.memory.endReading(noon)
	}
	read(100)
	g.want("each hard 100: ada 100")
	read(100)
	g.want()
	read(99) // it was too high by one
	g.want()
	g.used("p", "ada", 101)
	g.want("each hard 100: ada 101")
}
