package demo

import "github.com/tidegate/tidegate/events"

// The demo's ports, named after what becomes of them. Their calls take about
// 1,200 tokens a second each.
const (
	Roomy  = "demo-roomy"  // stays far below its caps
	Warned = "demo-warned" // reaches its soft cap within a minute, the hard cap never
	Capped = "demo-capped" // reaches its soft cap within a minute and its hard cap within two; starts anew at 00:00 UTC
)

type port struct {
	id     string
	budget events.SetRequest
	users  []string
}

var ports = []port{
	{Roomy, caps(events.PeriodMonth, 8_000_000_000, 10_000_000_000), []string{"ada", "grace", "barbara", "frances"}},
	{Warned, caps(events.PeriodDay, 40_000, 500_000_000), []string{"linus", "ken", "dennis"}},
	{Capped, caps(events.PeriodDay, 50_000, 90_000), []string{"margaret", "katherine"}},
}

func caps(period events.Period, soft, hard int64) events.SetRequest {
	return events.SetRequest{Enabled: true, Period: period, SoftCapTokens: &soft, HardCapTokens: &hard}
}
