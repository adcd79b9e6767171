package events

import (
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

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
	Ports   []string  `json:"ports,omitempty"` // Ports[i] has Tokens[i] tokens on Days[i]
	Days    []int32   `json:"days,omitempty"`  // days since 1970-01-01, UTC
	Tokens  []int64   `json:"tokens,omitempty"`
	Deleted []string  `json:"deleted,omitempty"` // ports that are gone with all their totals
}

// Encode returns the notice as JSON.
func (n TotalsNotice) Encode() ([]byte, error) {
	return json.Marshal(n, jsontext.AllowInvalidUTF8(false))
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

// BudgetNotice tells the gates that a port's budget was stored, on ai.budget.changed.
type BudgetNotice struct {
	PortID string `json:"port_id"`
	Budget Budget `json:"budget"`
}
