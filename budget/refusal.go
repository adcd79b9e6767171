package budget

import (
	"fmt"
	"strconv"
	"unicode/utf8"
)

// Reason is why something that was sent is refused, a stable word for machines. A budget
// has one; package events has those of usage events.
type Reason string

// ReasonInvalidField: a field breaks its rule.
const ReasonInvalidField Reason = "invalid_field"

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

// Refuse shows the value, shortened, in a [*FieldError].
func Refuse(reason Reason, field string, value any, rule string) *FieldError {
	shown := fmt.Sprint(value)
	if _, isNumber := value.(int64); !isNumber {
		shown = strconv.QuoteToASCII(shown)
	}
	if len(shown) > 80 {
		shown = shown[:80] + "…"
	}
	return &FieldError{Reason: reason, Field: field, Value: shown, Rule: rule}
}

// CheckText allows any printable text: ids of providers and models are theirs to
// choose. Control characters are refused, since neither Postgres (NUL) nor a
// terminal takes them well. Its error is a [*FieldError].
func CheckText(field, value string, maxChars int, required bool) error {
	if value == "" {
		if required {
			return Refuse(ReasonInvalidField, field, value, "is required")
		}
		return nil
	}
	if len(value) > maxChars && utf8.RuneCountInString(value) > maxChars {
		return Refuse(ReasonInvalidField, field, value, "must be at most "+strconv.Itoa(maxChars)+" characters")
	}
	for i := range len(value) {
		if value[i] < ' ' || value[i] == 0x7f {
			return Refuse(ReasonInvalidField, field, value, "must not contain control characters")
		}
	}
	if !utf8.ValidString(value) {
		return Refuse(ReasonInvalidField, field, value, "must be UTF-8")
	}
	return nil
}
