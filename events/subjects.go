package events

import "strings"

// The streams and the names a NATS operator sees.
const (
	UsageStream      = "AI_USAGE"
	QuarantineStream = "AI_QUARANTINE"
	AlertStream      = "AI_ALERTS"
	ConsumerName     = "ai-usage-ledger" // the durable that all consumer replicas share
	GateService      = "ai-budget-gate"  // the NATS micro service

	TimeoutHeader  = "Tidegate-Timeout-Ms" // of a request: how long its caller waits for the answer
	TryAgainHeader = "Tidegate-Try-Again"  // of a fault, "true": nothing was done, the same may be asked again
)

// Subjects without a port token take the port from the payload; they are for
// trusted networks. With the token, NATS permissions bind a service to its port.
const (
	SubjectUsage      = "ai.usage"
	SubjectCheck      = "ai.budget.check"
	SubjectReserve    = "ai.budget.reserve"
	SubjectRelease    = "ai.budget.release"
	SubjectBudgetGet  = "ai.budget.get"
	SubjectBudgetSet  = "ai.budget.set"
	SubjectReport     = "ai.budget.usage"
	SubjectAlert      = "ai.alert"
	SubjectQuarantine = "ai.quarantine"
)

// Subject returns base.port, the form that NATS permissions can bind.
func Subject(base, port string) string { return base + "." + port }

// SubjectPort returns the port that subject names, "" for the bare base.
// ok is false when subject is neither base nor base plus one token.
func SubjectPort(base, subject string) (port string, ok bool) {
	rest, found := strings.CutPrefix(subject, base)
	if !found {
		return "", false
	}
	if rest == "" {
		return "", true
	}
	if rest[0] != '.' || !ValidPort(rest[1:]) {
		return "", false
	}
	return rest[1:], true
}
