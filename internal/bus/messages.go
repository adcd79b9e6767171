package bus

import (
	"fmt"
	"math"
	"time"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
)

// The subjects that Tidegate's processes use among themselves.
const (
	SubjectTotals  = "ai.totals"          // consumers to gates
	SubjectHolds   = "ai.holds"           // gates to gates
	SubjectBudgets = "ai.budget.changed"  // whoever stored a budget to gates
	SubjectUsed    = "ai.admin.gate.used" // a verification to every gate, not just one of the queue group
)

// Totals are the absolute totals of what a commit changed, so that a repeated or reordered
// message does no harm. Seq counts the messages of one consumer process without gaps; a
// gate that sees a gap reads Postgres again. One without ports is a heartbeat.
type Totals struct {
	From    string      `json:"from"` // the consumer; "" where somebody else tells of deleted ports
	Seq     uint64      `json:"seq"`
	At      time.Time   `json:"at"`              // every commit of this consumer up to then is told
	Last    bool        `json:"last,omitempty"`  // this consumer has ended, and so all of its commits are told
	Ports   []string    `json:"ports,omitempty"` // Ports[i] has Tokens[i] tokens on Days[i]
	Days    []int32     `json:"days,omitempty"`  // days since 1970-01-01, UTC
	Tokens  []int64     `json:"tokens,omitempty"`
	Limits  []LimitUsed `json:"limits,omitempty"`  // counters of limits
	Deleted []string    `json:"deleted,omitempty"` // ports that are gone with all their totals
}

// LimitUsed is what calls have used in one window of a limit, absolute.
type LimitUsed struct {
	PortID  string `json:"port_id"`
	Counter int64  `json:"counter"`
	Value   string `json:"value,omitempty"` // of the dimension that the limit counts by itself
	Start   int64  `json:"start"`           // of the window, seconds since 1970
	Used    int64  `json:"used"`            // in the limit's unit; of unit weighted in thousandths
}

// Holds are what reservations have left ports' holds at: Ports[i] holds Tokens[i] at At[i],
// microseconds since 1970 by the database's clock. A lost one heals within a second.
type Holds struct {
	Ports  []string `json:"ports"`
	Tokens []int64  `json:"tokens"`
	At     []int64  `json:"at"`
	// Recall names ports of which a reservation would be refused for what gates have
	// leased: they give back what they have not made into holds.
	Recall []string `json:"recall,omitempty"`
}

// Budget says that a port's budget was stored.
type Budget struct {
	PortID string        `json:"port_id"`
	Budget budget.Budget `json:"budget"`
}

// UsedRequest asks what a gate remembers of ports on the days [Start, End).
type UsedRequest struct {
	Ports []string `json:"ports"`
	Start int32    `json:"start"`
	End   int32    `json:"end"`
}

// Used is one gate's answer, Tokens in the order of the request's Ports.
type Used struct {
	Gate   string    `json:"gate"`
	Tokens []int64   `json:"tokens"`
	AsOf   time.Time `json:"as_of"`
}

func (Totals) subject() string { return SubjectTotals }
func (Holds) subject() string  { return SubjectHolds }
func (Budget) subject() string { return SubjectBudgets }

// The bounds.
const (
	MaxPorts     = 10_000            // that one message names
	MaxTokens    = math.MaxInt64 / 2 // of a port on one day, or held; whoever tells of more tells of this
	maxName      = 64                // bytes, of a consumer or a gate
	maxValue     = 512               // bytes, of what a limit counts by itself: 128 characters
	maxAhead     = 5 * time.Minute   // of clocks
	daysAhead    = 2                 // after today, for clocks and for days that are just over
	daysAsked    = 400               // the end of a period, after today
	secondsOfDay = 24 * 60 * 60

	// holdsAhead is how far news of holds may be ahead of the database's clock as this
	// process reckons it. What claimed to be much later would outlast all true news, and
	// every reading.
	holdsAhead = time.Second
)

func (n Totals) check(now time.Time) error {
	latest := now.Unix()/secondsOfDay + daysAhead
	switch {
	case len(n.From) > maxName || n.From == "" && len(n.Ports)+len(n.Limits) > 0:
		return outside("from", n.From)
	case n.At.After(now.Add(maxAhead)):
		return outside("at", n.At)
	case len(n.Days) != len(n.Ports):
		return outside("days", len(n.Days))
	}
	for i, day := range n.Days {
		if day < 0 || int64(day) > latest {
			return outside("days", n.Days[i])
		}
	}
	if len(n.Limits) > MaxPorts {
		return outside("limits", len(n.Limits))
	}
	for _, l := range n.Limits {
		switch {
		case !events.ValidPort(l.PortID):
			return outside("port", l.PortID)
		case l.Counter <= 0 || l.Start < 0 || l.Start > (latest+1)*secondsOfDay || l.Used < 0 || len(l.Value) > maxValue:
			return outside("limits", l)
		}
	}
	if err := checkTokens(n.Ports, n.Tokens); err != nil {
		return err
	}
	return checkPorts(n.Deleted)
}

func (n Holds) check(now time.Time) error {
	if len(n.At) != len(n.Ports) {
		return outside("at", len(n.At))
	}
	latest := now.Add(holdsAhead).UnixMicro()
	for _, at := range n.At {
		if at <= 0 || at > latest {
			return outside("at", at)
		}
	}
	if err := checkTokens(n.Ports, n.Tokens); err != nil {
		return err
	}
	return checkPorts(n.Recall)
}

func (n Budget) check(now time.Time) error {
	switch b := n.Budget; {
	case b.Version < 0 || b.Version > math.MaxInt32:
		return outside("version", b.Version)
	case b.UpdatedAt.After(now.Add(maxAhead)):
		return outside("updated_at", b.UpdatedAt)
	}
	if err := n.Budget.Validate(); err != nil {
		return err
	}
	if n.PortID == budget.DefaultPort {
		return nil
	}
	return checkPorts([]string{n.PortID})
}

func (r UsedRequest) check(now time.Time) error {
	if r.Start < 0 || r.Start > r.End || int64(r.End) > now.Unix()/secondsOfDay+daysAsked {
		return outside("start and end", []int32{r.Start, r.End})
	}
	return checkPorts(r.Ports)
}

func (u Used) check(now time.Time) error {
	switch {
	case u.Gate == "" || len(u.Gate) > maxName:
		return outside("gate", u.Gate)
	case len(u.Tokens) > MaxPorts:
		return outside("tokens", len(u.Tokens))
	case u.AsOf.After(now.Add(maxAhead)):
		return outside("as_of", u.AsOf)
	}
	for _, tokens := range u.Tokens {
		if tokens < 0 {
			return outside("tokens", tokens)
		}
	}
	return nil
}

func checkTokens(ports []string, tokens []int64) error {
	if len(tokens) != len(ports) {
		return outside("tokens", len(tokens))
	}
	for _, n := range tokens {
		if n < 0 || n > MaxTokens {
			return outside("tokens", n)
		}
	}
	return checkPorts(ports)
}

func checkPorts(ports []string) error {
	if len(ports) > MaxPorts {
		return outside("ports", len(ports))
	}
	for _, port := range ports {
		if !events.ValidPort(port) {
			return outside("port", port)
		}
	}
	return nil
}

func outside(field string, value any) error {
	return fmt.Errorf("%s is out of bounds: %.80s", field, fmt.Sprint(value))
}
