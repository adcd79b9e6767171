package events

import "time"

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
