package events

import (
	"fmt"
	"strconv"
	"unicode/utf8"
)

// Reason is why an event was quarantined, a stable word for machines. The error
// that carries it says the rest for people.
type Reason string

// The reasons. Those from "id_conflict" on are found by the ledger.
const (
	ReasonMalformed      Reason = "malformed"       // not a JSON object, or a field of the wrong type
	ReasonTooLarge       Reason = "too_large"       // more than MaxPayloadBytes
	ReasonUnknownVersion Reason = "unknown_version" // v is not 1
	ReasonInvalidField   Reason = "invalid_field"   // a field breaks its rule
	ReasonPortMismatch   Reason = "port_mismatch"   // subject and payload name different ports
	ReasonTimeMismatch   Reason = "time_mismatch"   // occurred_at and the id's time are over an hour apart
	ReasonTimeInFuture   Reason = "time_in_future"  // more than 5 minutes ahead
	ReasonTimeTooOld     Reason = "time_too_old"    // older than the ledger's retention
	ReasonIDConflict     Reason = "id_conflict"     // the id is booked already, with other content
	ReasonUnknownPort    Reason = "unknown_port"    // the port is not registered, and this ledger requires that
	ReasonUnbookable     Reason = "unbookable"      // Postgres refuses the row
)

// FieldError is a refusal that says what, where and how to mend it.
type FieldError struct {
	Reason Reason
	Field  string // JSON name, "details.x" for nested ones; "" for the whole message
	Value  string // as received, shortened
	Rule   string
}

func (e *FieldError) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("%s: %s", e.Reason, e.Rule)
	}
	return fmt.Sprintf("%s: %s = %s: %s", e.Reason, e.Field, e.Value, e.Rule)
}

func invalid(field string, value any, rule string) *FieldError {
	return refuse(ReasonInvalidField, field, value, rule)
}

func refuse(reason Reason, field string, value any, rule string) *FieldError {
	shown := fmt.Sprint(value)
	if _, isNumber := value.(int64); !isNumber {
		shown = strconv.QuoteToASCII(shown)
	}
	if len(shown) > 80 {
		shown = shown[:80] + "…"
	}
	return &FieldError{Reason: reason, Field: field, Value: shown, Rule: rule}
}

func checkPort(port string) error {
	if !ValidPort(port) {
		return invalid("port_id", port, "must be 1 to 64 of A-Z a-z 0-9 _ -")
	}
	return nil
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

// checkText allows any printable text: ids of providers and models are theirs to
// choose. Control characters are refused, since neither Postgres (NUL) nor a
// terminal takes them well.
func checkText(field, value string, maxChars int, required bool) error {
	if value == "" {
		if required {
			return invalid(field, value, "is required")
		}
		return nil
	}
	if len(value) > maxChars && utf8.RuneCountInString(value) > maxChars {
		return invalid(field, value, "must be at most "+strconv.Itoa(maxChars)+" characters")
	}
	for i := range len(value) {
		if value[i] < ' ' || value[i] == 0x7f {
			return invalid(field, value, "must not contain control characters")
		}
	}
	if !utf8.ValidString(value) {
		return invalid(field, value, "must be UTF-8")
	}
	return nil
}

func checkTokens(field string, n int64) error {
	if n < 0 || n > MaxTokens {
		return invalid(field, n, "must be a whole number from 0 to "+strconv.FormatInt(MaxTokens, 10))
	}
	return nil
}
