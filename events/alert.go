package events

import (
	"time"

	"github.com/google/uuid"

	"github.com/tidegate/tidegate/budget"
)

// AlertAt is the Cap of an [Alert] of what a limit has in its alert_at.
const AlertAt = "alert_at"

// Alert is published on ai.alert.<port> when what calls have used of a limit in a window
// reaches one of its thresholds: once for a port, limit, value, threshold and window, and again
// when a cap is raised and the new value is reached too. Should it come twice, its ID is the same.
type Alert struct {
	V          int               `json:"v"`
	ID         uuid.UUID         `json:"id"`
	PortID     string            `json:"port_id"`
	Limit      string            `json:"limit"`                 // [PortLimit]: the port's own caps
	LimitValue string            `json:"limit_value,omitempty"` // of what the limit counts by itself
	Unit       budget.Unit       `json:"unit,omitempty"`        // left out: tokens
	Cap        string            `json:"cap"`                   // "soft", "hard" or [AlertAt]
	Threshold  *budget.Threshold `json:"threshold,omitempty"`   // as alert_at has it, where Cap is [AlertAt]
	CapTokens  int64             `json:"cap_tokens"`            // what was reached, in the unit
	UsedTokens int64             `json:"used_tokens"`           // when it was noticed, At, in the unit

	Period      Period    `json:"period"` // the window of the limit
	PeriodStart time.Time `json:"period_start"`
	ResetsAt    time.Time `json:"resets_at,omitzero"` // left out: never
	At          time.Time `json:"at"`
}
