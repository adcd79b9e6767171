package events

import (
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"
)

// HeartbeatEvery is how often a consumer tells the gates something, if only that it is there.
const HeartbeatEvery = time.Second

// TotalsNotice is what a consumer tells the gates after a commit, on ai.totals:
// the absolute totals of what changed, so that a repeated or reordered notice
// does no harm. Seq counts the notices of one consumer process without gaps; a
// gate that sees a gap reads Postgres again. An empty notice is a heartbeat.
//
// It is internal to a Tidegate installation and may change between versions.
type TotalsNotice struct {
	From    string    `json:"from"`
	Seq     uint64    `json:"seq"`
	At      time.Time `json:"at"`              // every commit of this consumer up to then is told
	Last    bool      `json:"last,omitempty"`  // this consumer has ended, and so all of its commits are told
	Ports   []string  `json:"ports,omitempty"` // Ports[i] has Tokens[i] tokens on Days[i]
	Days    []int32   `json:"days,omitempty"`  // days since 1970-01-01, UTC
	Tokens  []int64   `json:"tokens,omitempty"`
	Deleted []string  `json:"deleted,omitempty"` // ports that are gone with all their totals
}

// Encode returns the notice as JSON.
func (n TotalsNotice) Encode() ([]byte, error) {
	return json.Marshal(n)
}

// DecodeTotalsNotice reads a notice.
func DecodeTotalsNotice(b []byte) (TotalsNotice, error) {
	var n TotalsNotice
	if err := json.Unmarshal(b, &n); err != nil {
		return n, err
	}
	if len(n.Ports) != len(n.Days) || len(n.Ports) != len(n.Tokens) {
		return n, invalid("ports", int64(len(n.Ports)), "must be as many as days and tokens")
	}
	return n, nil
}

// HoldsNotice tells the gates, on ai.holds, what reservations have left ports'
// holds at: Ports[i] holds Tokens[i] at At[i], microseconds since 1970 by the
// database's clock. A lost one heals within a second.
type HoldsNotice struct {
	Ports  []string `json:"ports"`
	Tokens []int64  `json:"tokens"`
	At     []int64  `json:"at"`
	// Recall names ports of which a reservation would be refused for what gates have
	// leased: they give back what they have not made into holds.
	Recall []string `json:"recall,omitempty"`
}

// BudgetNotice tells the gates that a port's budget was stored, on ai.budget.changed.
type BudgetNotice struct {
	PortID string `json:"port_id"`
	Budget Budget `json:"budget"`
}

// AnnounceBudget tells the gates that a port's budget was stored. A lost
// announcement heals by itself, when the gates next read all budgets.
func AnnounceBudget(nc *nats.Conn, port string, b Budget) error {
	body, err := json.Marshal(BudgetNotice{PortID: port, Budget: b})
	if err != nil {
		return err
	}
	return nc.Publish(SubjectBudgets, body)
}

// AnnounceDeleted tells the gates that a port is gone. It heals like [AnnounceBudget].
func AnnounceDeleted(nc *nats.Conn, port string) error {
	body, err := TotalsNotice{Deleted: []string{port}}.Encode()
	if err != nil {
		return err
	}
	return nc.Publish(SubjectTotals, body)
}

// Alert is published on ai.alert.<port> when the used tokens of a period reach a cap:
// once for a port, cap and period, and again when a cap is raised and the new value is
// reached too. Should it come twice, these and cap_tokens are the same.
type Alert struct {
	V           int       `json:"v"`
	PortID      string    `json:"port_id"`
	Cap         string    `json:"cap"` // "soft" or "hard"
	CapTokens   int64     `json:"cap_tokens"`
	UsedTokens  int64     `json:"used_tokens"` // when it was noticed, At
	Period      Period    `json:"period"`
	PeriodStart time.Time `json:"period_start"`
	ResetsAt    time.Time `json:"resets_at"`
	At          time.Time `json:"at"`
}

// SubjectGateUsed asks every gate, not just one of the queue group, what it
// remembers. It is how verification compares gates with the ledger.
const SubjectGateUsed = SubjectAdmin + ".gate.used"

// GateUsedRequest asks for the tokens of ports on the days [Start, End).
type GateUsedRequest struct {
	Ports []string `json:"ports"`
	Start int32    `json:"start"`
	End   int32    `json:"end"`
}

// GateUsed is one gate's answer, Tokens in the order of the request's Ports.
type GateUsed struct {
	Gate   string    `json:"gate"`
	Tokens []int64   `json:"tokens"`
	AsOf   time.Time `json:"as_of"`
}
