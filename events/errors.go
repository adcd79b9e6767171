package events

import (
	"strconv"

	"github.com/tidegate/tidegate/budget"
)

// Reason is why an event was quarantined, a stable word for machines. The error
// that carries it says the rest for people.
type Reason = budget.Reason

// The reasons. Those from "id_conflict" on are found by the ledger.
const (
	ReasonMalformed      Reason = "malformed"               // not a JSON object, or a field of the wrong type
	ReasonTooLarge       Reason = "too_large"               // more than MaxPayloadBytes
	ReasonUnknownVersion Reason = "unknown_version"         // v is not 1
	ReasonInvalidField          = budget.ReasonInvalidField // a field breaks its rule
	ReasonPortMismatch   Reason = "port_mismatch"           // subject and payload name different ports
	ReasonTimeMismatch   Reason = "time_mismatch"           // occurred_at and the id's time are over an hour apart
	ReasonTimeInFuture   Reason = "time_in_future"          // more than 5 minutes ahead
	ReasonTimeTooOld     Reason = "time_too_old"            // older than the ledger's retention
	ReasonIDConflict     Reason = "id_conflict"             // the id is booked already, with other content
	ReasonUnknownPort    Reason = "unknown_port"            // the port is not registered, and this ledger requires that
	ReasonUnbookable     Reason = "unbookable"              // Postgres refuses the row
)

// FieldError is a refusal that says what, where and how to mend it.
type FieldError = budget.FieldError

func invalid(field string, value any, rule string) *FieldError {
	return refuse(ReasonInvalidField, field, value, rule)
}

func refuse(reason Reason, field string, value any, rule string) *FieldError {
	return budget.Refuse(reason, field, value, rule)
}

func checkPort(port string) error {
	if !ValidPort(port) {
		return invalid("port_id", port, "must be 1 to 64 of A-Z a-z 0-9 _ -")
	}
	return nil
}

// checkPortOrDefault is for what is asked of the default budget, too.
func checkPortOrDefault(port string) error {
	if port == DefaultPort {
		return nil
	}
	return checkPort(port)
}

// ValidPort reports whether port is a legal port id, which makes it one NATS
// subject token.
func ValidPort(port string) bool {
	if port == "" || len(port) > maxPortChars {
		return false
	}
	for i := range len(port) {
		c := port[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}

func checkText(field, value string, maxChars int, required bool) error {
	return budget.CheckText(field, value, maxChars, required)
}

func checkTokens(field string, n int64) error {
	if n < 0 || n > MaxTokens {
		return invalid(field, n, "must be a whole number from 0 to "+strconv.FormatInt(MaxTokens, 10))
	}
	return nil
}
