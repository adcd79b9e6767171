// Package ops is what operators ask of a running Tidegate over NATS: verify,
// ports, users, the quarantine. The command line is its client. NATS permissions
// on ai.admin.> decide who may ask.
package ops

import (
	"github.com/tidegate/tidegate/consumer/quarantine"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

// ServiceName is the NATS micro service that answers.
const ServiceName = "tidegate-admin"

const (
	subjectAdmin = "ai.admin"

	subjectVerify           = subjectAdmin + ".verify"
	subjectPorts            = subjectAdmin + ".ports.list"
	subjectPortName         = subjectAdmin + ".ports.name"
	subjectPortDelete       = subjectAdmin + ".ports.delete"
	subjectHolds            = subjectAdmin + ".holds"
	subjectUnsettled        = subjectAdmin + ".holds.unsettled"
	subjectUserErase        = subjectAdmin + ".users.erase"
	subjectQuarantineList   = subjectAdmin + ".quarantine.list"
	subjectQuarantineShow   = subjectAdmin + ".quarantine.show"
	subjectQuarantineReplay = subjectAdmin + ".quarantine.replay"
)

// Page bounds of the lists, so that a reply fits into one message as a rule. Where it
// does not, the client asks for less.
const (
	maxPorts       = 500
	maxHolds       = 500
	maxTokens      = 200
	maxQuarantined = 200
	maxDifferences = 100 // of a verification, which has no pages
)

type verifyRequest struct {
	Progress string `json:"progress,omitempty"` // the inbox that is told how far it is
}

type portsRequest struct {
	After string `json:"after"`
	Limit int    `json:"limit"`
}

type portNameRequest struct {
	PortID string `json:"port_id"`
	Name   string `json:"name"`
	By     string `json:"by"`
}

type portDeleteRequest struct {
	PortID string `json:"port_id"`
	By     string `json:"by"`
}

type holdsRequest struct {
	PortID string            `json:"port_id"`
	After  *ledger.HoldGroup `json:"after"` // null: from the first
	Limit  int               `json:"limit"`
}

type unsettledRequest struct {
	PortID string                `json:"port_id"`
	After  ledger.UnsettledGroup `json:"after"`
	Limit  int                   `json:"limit"`
}

type userEraseRequest struct {
	UserID string `json:"user_id"`
}

type quarantineListRequest struct {
	From  uint64 `json:"from"`
	Limit int    `json:"limit"`
}

type quarantineRequest struct {
	Sequence uint64 `json:"sequence"`
}

// Verification says whether ledger, totals and gates agree.
type Verification struct {
	ledger.Verification
	Gates int `json:"gates"` // that answered
	// Behind is how many messages the usage stream has acknowledged that the ledger lacks,
	// as far as it knows: consumers book them again.
	Behind uint64 `json:"behind"`
	// What waits in the usage stream is in none of the figures, and no difference.
	events.Backlog
	OK bool `json:"ok"`
}

// Deleted is how many ledger rows a deletion or an erasure touched.
type Deleted struct {
	Rows int64 `json:"rows"`
}

type (
	portsReply      struct{ Ports []ledger.Port }
	holdsReply      struct{ Live []ledger.HoldGroup }
	unsettledReply  struct{ Unsettled []ledger.UnsettledGroup }
	quarantineReply struct{ Events []quarantine.Event }
)
