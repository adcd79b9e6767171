package demo

import (
	"math"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
)

// The demo's ports that are called while it runs, named after what becomes of them.
const (
	Roomy  = "demo-roomy"  // stays far below its caps
	Warned = "demo-warned" // reaches its soft cap within a minute, the hard cap never
	Capped = "demo-capped" // reaches its soft cap within a minute and its hard cap within two; starts anew at 00:00 UTC
)

// cappedAt is what Capped may use a day, in its history too.
const cappedAt = 90_000

// port is one of the demo's ports. All but users and calls may be left out.
type port struct {
	id, name string
	live     bool // it is called while the demo runs, so its history ends yesterday
	users    []string
	calls    int   // of a working day of its history, about
	daily    int64 // tokens at which a day of its history ends
	silent   int   // days since its last call
	budget   func(used) events.SetRequest
}

// used is what a port's history has used.
type used struct {
	month int64 // this month until now
	day   int64 // an average day of all of them
}

// part is that much of what the port has used this month, with two digits. If that is
// nothing yet, it is of what the port uses in a day.
func (u used) part(share float64) int64 {
	n := share * float64(u.month)
	if u.month == 0 {
		n = share * float64(u.day)
	}
	digits := math.Pow10(max(0, int(math.Log10(max(n, 1)))-1))
	return int64(math.Round(n/digits) * digits)
}

// ports show every state in which a port may be.
var ports = []port{
	{id: Roomy, name: "Harbour North", live: true, users: []string{"ada", "grace", "barbara", "frances"}, calls: 70,
		budget: fixed(events.PeriodMonth, 60_000_000, 80_000_000)},
	{id: Warned, name: "East Quay", live: true, users: []string{"linus", "ken", "dennis"}, calls: 25,
		budget: fixed(events.PeriodDay, 40_000, 5_000_000)},
	{id: Capped, name: "Old Town Slips", live: true, users: []string{"margaret", "katherine"}, calls: 60, daily: cappedAt,
		budget: fixed(events.PeriodDay, 50_000, cappedAt)},
	{id: overPort, name: "Brightwater Marina", users: []string{"edsger", "niklaus", "tony", "barbara"}, calls: 55,
		budget: shares(0.77, 0.96)}, // over its hard cap, which was lowered
	{id: "demo-cedar-point", name: "Cedar Point", users: []string{"radia", "vint", "jon", "elizabeth", "paul"}, calls: 50,
		budget: withLimits},
	{id: "demo-gull-rock", name: "Gull Rock", users: []string{"alan", "joan"}, calls: 20,
		budget: notEnforced},
	{id: "demo-kingfisher", name: "Kingfisher Wharf", users: []string{"hedy", "annie", "mary"}, calls: 35,
		budget: shares(2.4, 3)},
	{id: unsettledPort, name: "Lighthouse Bay", users: []string{"donald", "leslie"}, calls: 30},
	{id: "demo-saltmarsh", name: "Saltmarsh Pier", users: []string{"sophie", "karen"}, calls: 25,
		budget: shares(1.6, 2.2)},
	{id: quarantinedPort, name: "South Dock", users: []string{"ada", "charles", "mary", "ivan"}, calls: 60,
		budget: shares(0.86, 1.06)}, // near its hard cap
	{id: "demo-west-haven", name: "West Haven", users: []string{"lynn", "carver"}, calls: 40,
		budget: shares(0.95, 1.4)}, // at its soft cap
	{id: "demo-winter-basin", name: "Winter Basin", users: []string{"peter"}, calls: 25, silent: 19,
		budget: shares(8, 10)},
}

const (
	overPort        = "demo-brightwater"
	unsettledPort   = "demo-lighthouse" // a reservation of it is never settled
	quarantinedPort = "demo-south-dock" // an event of it is quarantined
)

func fixed(period events.Period, soft, hard int64) func(used) events.SetRequest {
	return func(used) events.SetRequest {
		return events.SetRequest{Enabled: true, Period: period, SoftCapTokens: &soft, HardCapTokens: &hard}
	}
}

func shares(soft, hard float64) func(used) events.SetRequest {
	return func(u used) events.SetRequest {
		return fixed(events.PeriodMonth, u.part(soft), u.part(hard))(u)
	}
}

func notEnforced(u used) events.SetRequest {
	r := shares(0.5, 0.7)(u)
	r.Enabled = false
	return r
}

// withLimits has a limit of each kind: on a feature, for each user, for each run, and on calls.
func withLimits(u used) events.SetRequest {
	r := shares(1.5, 2)(u)
	hard := func(days float64) *int64 { return new(max(1, used{day: u.day}.part(days))) } // of average days
	r.Limits = []events.Limit{
		{Name: "ocr-daily", Match: budget.Match{Feature: "ocr"}, Window: events.PeriodDay, Soft: hard(0.8), Hard: hard(1)},
		{Name: "each-user", Per: budget.PerUser, Window: events.PeriodWeek, Soft: hard(2), Hard: hard(4)},
		{Name: "each-run", Match: budget.Match{Feature: agent.feature}, Per: budget.PerRun, Window: budget.Total, Hard: hard(1)},
		{Name: "calls", Window: budget.Hour, Unit: budget.Requests, Hard: new(int64(100))},
	}
	return r
}
