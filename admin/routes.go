package admin

import (
	"net/http"
	"time"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

// The ports' page is bounded so that its query stays short, the log's by what
// people read.
const (
	maxPorts   = 500
	maxSearch  = 100 // characters
	maxChanges = 200
)

var (
	by     = param{name: "by", words: []string{"feature", "model", "user", "run", "day"}, fallback: "feature", about: "What to break the usage down by."}
	period = param{name: "period", fallback: budget.Current, about: "current or previous, of the port's budget, or a month like 2026-11."}
	from   = param{name: "from", longest: 10, about: "Instead of period: the first day, in UTC, like 2026-11-01."}
	to     = param{name: "to", longest: 10, about: "The day after the last one, at most 366 after from."}
	atMost = func(most int64, usual string) param {
		return param{name: "limit", number: true, min: 1, max: most, fallback: usual, about: "How many at most."}
	}
	tokens = func(name, about string) param {
		return param{name: name, number: true, max: budget.MaxCapTokens, about: about}
	}
)

var states = stateNames()

func stateNames() (names []string) {
	for _, s := range ledger.States {
		names = append(names, string(s))
	}
	return names
}

// What a handler may take that has millions of rows to read or change.
const slowTimeout = 10 * time.Minute

// What a limit that is tried on millions of calls may take, and the first look at all ports.
const simulateTimeout = time.Minute

// routes is the whole API. Whoever adds one says here who may.
var routes = []route{
	{
		method: http.MethodGet, path: "/ports", permission: View, reach: somePorts, timeout: simulateTimeout,
		id: "listPorts", summary: "List ports", about: "Every port that the caller may manage, with its budget and what it has spent.",
		query: []param{
			{name: "q", longest: maxSearch, about: "Only ports with this in their id or name, in capitals or not."},
			{name: "sort", words: sorts, fallback: sortID, about: "By id; by name, or the id of a port without one; by used, share or the day of the last call, the most or the last first. Other orders than by id, and a state, are of a moment ago where there are many ports; the figures are of now."},
			{name: "state", words: states, about: "Only ports in this state."},
			{name: "after", about: "The next of the page before, in the same order."}, atMost(maxPorts, "100"),
		},
		reply: portsReply{}, handle: (*api).listPorts,
	},
	{
		method: http.MethodGet, path: "/overview", permission: View, reach: somePorts, timeout: simulateTimeout,
		id: "getOverview", summary: "Read how all ports stand", about: "What the caller's ports use together, how many are at their caps, and what may need somebody. Where there are many ports it is of a moment ago.",
		reply: overviewReply{}, handle: (*api).getOverview,
	},
	{
		method: http.MethodGet, path: "/ports/{port}/ai-budget", permission: View, reach: onePort,
		id: "getBudget", summary: "Read a port's budget", about: "The budget with its limits, and what the port has used of them. A port without a budget has version 0.",
		reply: budgetReply{}, handle: (*api).getBudget,
	},
	{
		method: http.MethodPut, path: "/ports/{port}/ai-budget", permission: Permission, reach: onePort, timeout: slowTimeout,
		id: "putBudget", summary: "Store a port's budget", about: "Stores the budget, and an entry in the audit log, if the stored version still is that of If-Match. A port that is not known yet is registered. For a limit that counts something new the ledger is read, which may take minutes.",
		body: settings{}, reply: budgetReply{}, fails: []int{412, 415, 428}, handle: (*api).putBudget,
	},
	{
		method: http.MethodDelete, path: "/ports/{port}/ai-budget", permission: Permission, reach: onePort, timeout: slowTimeout,
		id: "deleteBudget", summary: "Give a port back to the default budget", about: "Removes the port's own budget, and adds an entry to the audit log, if the stored version still is that of If-Match. The default budget binds the port then, as if it had never had another; its version goes on.",
		reply: budgetReply{}, fails: []int{412, 428}, handle: (*api).deleteBudget,
	},
	{
		method: http.MethodGet, path: "/default-budget", permission: View, reach: everyPort,
		id: "getDefaultBudget", summary: "Read the default budget", about: "The budget of every port that has none of its own. For callers that are not limited to some ports.",
		reply: defaultReply{}, handle: (*api).getDefault,
	},
	{
		method: http.MethodPut, path: "/default-budget", permission: Permission, reach: everyPort, timeout: slowTimeout,
		id: "putDefaultBudget", summary: "Store the default budget", about: "Stores it, and an entry in the audit log, if the stored version still is that of If-Match. It binds every port that has no budget of its own, those that nobody has seen yet included. It has no extra tokens. For a limit that counts something new the ledger is read, port by port, which may take minutes.",
		body: settings{}, reply: defaultReply{}, fails: []int{412, 415, 428}, handle: (*api).putDefault,
	},
	{
		method: http.MethodGet, path: "/default-budget/effect", permission: View, reach: everyPort, timeout: simulateTimeout,
		id: "getDefaultEffect", summary: "What a default budget would do now", about: "How many ports it would bind, and how many of these would have all calls refused at once. Nothing is stored.",
		query: []param{tokens("hard", "Its hard cap; left out: none, or it is not enforced."), {name: "period", words: []string{"day", "week", "month"}, fallback: "month", about: "Its period."}},
		reply: defaultEffectReply{}, handle: (*api).getDefaultEffect,
	},
	{
		method: http.MethodGet, path: "/default-budget/audit", permission: View, reach: everyPort,
		id: "listDefaultChanges", summary: "List the default budget's changes",
		query: []param{{name: "before", number: true, min: 1, max: budget.MaxCapTokens, about: "The next of the page before."}, atMost(maxChanges, "50")},
		reply: auditReply{}, handle: (*api).auditDefault,
	},
	{
		method: http.MethodGet, path: "/ports/{port}/ai-budget/simulate", permission: View, reach: onePort,
		id: "simulateBudget", summary: "Try a budget on past calls",
		about: "What a budget would have made of the calls of a period: each is refused when the admitted calls of its period have reached the hard cap, or would exceed it together with the call.",
		query: []param{
			tokens("hard", "The hard cap; left out: none."), tokens("soft", "The soft cap, at most hard; left out: none."),
			{name: "period", words: []string{"day", "week", "month"}, about: "How often the budget starts anew; left out: as stored."},
			{name: "of", fallback: budget.Previous, about: "Whose calls: previous or current, of that period, or a month like 2026-10, widened to whole periods."},
		},
		reply: simulationReply{}, handle: (*api).simulate,
	},
	{
		method: http.MethodPost, path: "/ports/{port}/ai-budget/simulate-limit", permission: View, reach: onePort, timeout: simulateTimeout,
		id: "simulateLimit", summary: "Try a limit on past calls",
		about: "What a limit would have made of the calls of a period, by itself: each call that it matches is refused when what was admitted of its value in its window has reached the hard cap, or would exceed it together with the call. Nothing is stored.",
		query: []param{{name: "of", fallback: budget.Previous, about: "Whose calls: previous or current, of the limit's window (of a day for hours, of a month for total), or a month like 2026-10, widened to whole windows. A total counts from nothing at the beginning."}},
		body:  limit{}, reply: limitSimulationReply{}, fails: []int{415}, handle: (*api).simulateLimit,
	},
	{
		method: http.MethodPost, path: "/ports/{port}/ai-budget/limit-now", permission: View, reach: onePort,
		id: "limitNow", summary: "What a limit would count now", about: "What a limit would begin with if it was stored: what calls in its running window have used, of a total since the ledger began, and what calls under way hold. It is read from the ledger. Nothing is stored.",
		body: limit{}, reply: limitNowReply{}, fails: []int{415}, handle: (*api).limitNow,
	},
	{
		method: http.MethodGet, path: "/ports/{port}/ai-usage", permission: View, reach: onePort,
		id: "getUsage", summary: "Read a port's usage",
		query: []param{by, period, from, to, {name: "after", about: "The next of the page before."}, atMost(events.MaxReportLimit, "500")},
		reply: usageReply{}, handle: (*api).getUsage,
	},
	{
		method: http.MethodGet, path: "/ports/{port}/ai-usage/series", permission: View, reach: onePort, timeout: simulateTimeout,
		id: "getUsageSeries", summary: "Read a port's usage over time", about: "By hour, day or week, and by feature, model, user or run: those that used most, and all together. Hours are read call by call, of 7 days at most.",
		query: []param{
			{name: "by", words: []string{"feature", "model", "user", "run"}, fallback: "feature", about: "What to break the usage down by."},
			{name: "step", words: []string{"hour", "day", "week"}, fallback: "day", about: "How long each step is, in UTC."},
			period, from, to, {name: "top", number: true, min: 1, max: maxTop, fallback: "6", about: "How many to tell apart at most."},
		},
		reply: seriesReply{}, handle: (*api).getSeries,
	},
	{
		method: http.MethodGet, path: "/ports/{port}/ai-usage/limit", permission: View, reach: onePort,
		id: "getLimitUsage", summary: "Read what a limit counts", about: "In its running window: each value that it counts by itself, or the one count of all calls.",
		query: []param{{name: "limit_name", about: "The limit, one of the budget's. Needed."}, {name: "after", about: "The next of the page before."}, atMost(events.MaxReportLimit, "500")},
		reply: limitUsageReply{}, handle: (*api).getLimitUsage,
	},
	{
		method: http.MethodGet, path: "/ports/{port}/ai-usage.csv", permission: View, reach: onePort,
		id: "getUsageCSV", summary: "Download a port's usage", about: "All of it, as CSV with a header line. Keys that a spreadsheet would take for a formula get an apostrophe in front.",
		query: []param{by, period, from, to}, reply: csv{}, handle: (*api).getUsageCSV,
	},
	{
		method: http.MethodGet, path: "/ports/{port}/quarantine", permission: View, reach: onePort,
		id: "listQuarantined", summary: "List a port's quarantined events", about: "Events that could not be booked, with the reason. Those of which nobody knows the port are in no port's list: tidegate quarantine ls has all.",
		query: []param{{name: "after", number: true, min: 1, max: budget.MaxCapTokens, about: "The next of the page before."}, atMost(maxQuarantined, "20")},
		reply: quarantineReply{}, handle: (*api).listQuarantine,
	},
	{
		method: http.MethodGet, path: "/ports/{port}/unsettled-holds", permission: View, reach: onePort,
		id: "listUnsettledHolds", summary: "List a port's reservations that nobody settled", about: "Those whose usage was never reported, summed up by day, service and feature.",
		query: []param{{name: "after", longest: 400, about: "The next of the page before."}, atMost(maxUnsettled, "100")},
		reply: unsettledHoldsReply{}, handle: (*api).listUnsettled,
	},
	{
		method: http.MethodGet, path: "/ports/{port}/alerts", permission: View, reach: onePort,
		id: "listAlerts", summary: "List a port's alerts", about: "Those that were sent, newest first. Alerts of limits go with the counts of their windows.",
		query: []param{atMost(maxAlerts, "20")},
		reply: alertsReply{}, handle: (*api).listAlerts,
	},
	{
		method: http.MethodGet, path: "/ports/{port}/audit", permission: View, reach: onePort,
		id: "listChanges", summary: "List a port's changes", about: "Who changed the budget or the name, when, from what to what. The log outlives the port.",
		query: []param{{name: "before", number: true, min: 1, max: budget.MaxCapTokens, about: "The next of the page before."}, atMost(maxChanges, "50")},
		reply: auditReply{}, handle: (*api).audit,
	},
	{
		method: http.MethodPut, path: "/ports/{port}/name", permission: Permission, reach: onePort,
		id: "namePort", summary: "Name a port", about: "What people see instead of the id, and search for. An empty name takes it away. A port that is not known yet is registered. A name has no version, so the last one stands; the audit log has each.",
		body: portName{}, reply: namedReply{}, fails: []int{415}, handle: (*api).namePort,
	},
	{
		method: http.MethodDelete, path: "/ports/{port}", permission: Permission, reach: onePort, timeout: slowTimeout,
		id: "deletePort", summary: "Delete a port", about: "With its ledger rows, totals and budget; an entry in the audit log remains. Events of the port that arrive later register it again.",
		reply: deletedReply{}, fails: []int{404}, handle: (*api).deletePort,
	},
	{
		method: http.MethodDelete, path: "/users/{user}", permission: Permission, reach: everyPort, timeout: slowTimeout,
		id: "eraseUser", summary: "Erase a user", about: "Takes the user's name off every ledger row, and off every event of theirs that comes later. The tokens stay counted. For callers that are not limited to some ports.",
		reply: erasedReply{}, handle: (*api).eraseUser,
	},
	{
		method: http.MethodGet, path: "/session", permission: View, reach: somePorts,
		id: "getSession", summary: "Who am I?", reply: sessionReply{}, handle: (*api).getSession,
	},
	{
		method: http.MethodPost, path: "/logout", permission: View, reach: somePorts,
		id: "logout", summary: "Sign out", about: "Ends the browser's session, for good.", handle: (*api).logout,
	},
}
