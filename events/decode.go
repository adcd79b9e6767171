package events

import (
	"cmp"
	"errors"
	"io"
	"reflect"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidegate/tidegate/budget"
)

// wireUsage is the event as JSON carries it: pointers where absent and zero differ.
type wireUsage struct {
	V           *int64 `json:"v"`
	TotalTokens *int64 `json:"total_tokens"`
	plainUsage
}

// plainUsage has no UnmarshalJSON, which would ask DecodeUsage.
type plainUsage Usage

// DecodeUsage reads and validates one event that arrived on subject, with the
// defaults filled in: one JSON object with case-sensitive names, none of them twice, in UTF-8;
// fields that nobody here knows are ignored. Every error is a [*FieldError]: such an event belongs in
// the quarantine.
func DecodeUsage(subject string, payload []byte) (Usage, error) {
	subjectPort, ok := SubjectPort(SubjectUsage, subject)
	if !ok {
		return Usage{}, refuse(ReasonInvalidField, "subject", subject, "must be ai.usage or ai.usage.<port>, the port being 1 to 64 of A-Z a-z 0-9 _ -")
	}
	if len(payload) > MaxPayloadBytes {
		return Usage{}, tooLargePayload(payload)
	}
	var w wireUsage
	if err := json.Unmarshal(payload, &w); err != nil {
		return Usage{}, explained(payload, err)
	}
	if w.V != nil && *w.V != Version {
		return Usage{}, refuse(ReasonUnknownVersion, "v", *w.V, "this Tidegate understands version 1")
	}
	w.PortID = cmp.Or(w.PortID, subjectPort)
	if subjectPort != "" && w.PortID != subjectPort {
		return Usage{}, refuse(ReasonPortMismatch, "port_id", w.PortID, "the subject names port "+subjectPort)
	}
	u := Usage(w.plainUsage)
	if err := u.Validate(); err != nil {
		return Usage{}, err
	}
	if w.TotalTokens != nil && *w.TotalTokens != u.TotalTokens() {
		return Usage{}, invalid("total_tokens", *w.TotalTokens, "must equal input_tokens + output_tokens, or be left out")
	}
	u.MeasuredBy = cmp.Or(u.MeasuredBy, MeasuredByProvider)
	u.Status = cmp.Or(u.Status, StatusOK)
	return u, nil
}

func tooLargePayload(payload []byte) *FieldError {
	return refuse(ReasonTooLarge, "payload bytes", int64(len(payload)), "must be at most 16384")
}

// explained says what the decoder found wrong with a payload.
func explained(payload []byte, err error) *FieldError {
	var sem *json.SemanticError
	if errors.As(err, &sem) && sem.JSONPointer != "" {
		field, value := budget.FieldAt("", sem.JSONPointer), budget.ValueAt(payload, sem.JSONPointer)
		if errors.Is(err, json.ErrUnknownName) && sem.GoType != nil && sem.GoType.Kind() == reflect.Struct { // inside what a request has
			return noField(field, sem.JSONPointer.LastToken(), jsontext.Value(value), fieldsOf(sem.GoType))
		}
		if own := (*FieldError)(nil); errors.As(sem.Err, &own) { // a value that says itself what it must be
			return refuse(own.Reason, field, value, own.Rule)
		}
		return refuse(ReasonMalformed, field, cmp.Or(string(sem.JSONValue), value), "must be "+budget.Wanted(sem.GoType))
	}
	var syn *jsontext.SyntacticError
	if errors.As(err, &syn) {
		rule := "is not one JSON object: " + syn.Err.Error()
		if errors.Is(err, io.ErrUnexpectedEOF) {
			rule = "is not one JSON object: it ends too early"
		}
		return refuse(ReasonMalformed, "payload", preview(payload), rule)
	}
	return refuse(ReasonMalformed, "payload", preview(payload), "must be one JSON object")
}

func preview(payload []byte) string { return string(payload[:min(len(payload), 60)]) }
