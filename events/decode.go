package events

import (
	"cmp"
	"errors"
	"io"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
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
// defaults filled in. Every error is a [*FieldError]: such an event belongs in
// the quarantine.
func DecodeUsage(subject string, payload []byte) (Usage, error) {
	subjectPort, ok := SubjectPort(SubjectUsage, subject)
	if !ok {
		return Usage{}, refuse(ReasonInvalidField, "subject", subject, "must be ai.usage or ai.usage.<port>, the port being 1 to 64 of A-Z a-z 0-9 _ -")
	}
	var w wireUsage
	if err := decode(payload, &w); err != nil {
		return Usage{}, err
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

// decode reads one JSON object: case-sensitive names, no duplicates, UTF-8 only,
// unknown fields ignored.
func decode(payload []byte, into any) error {
	if len(payload) > MaxPayloadBytes {
		return tooLargePayload(payload)
	}
	if err := json.Unmarshal(payload, into); err != nil {
		return explained(payload, err)
	}
	return nil
}

// explained says what the decoder found wrong with a payload.
func explained(payload []byte, err error) *FieldError {
	var sem *json.SemanticError
	if errors.As(err, &sem) && sem.JSONPointer != "" {
		field := fieldAt(sem.JSONPointer)
		if errors.Is(err, json.ErrUnknownName) && sem.GoType != nil && sem.GoType.Kind() == reflect.Struct { // inside what a request has
			return noField(field, sem.JSONPointer.LastToken(), jsontext.Value(valueAt(payload, sem.JSONPointer)), fieldsOf(sem.GoType))
		}
		if own := (*FieldError)(nil); errors.As(sem.Err, &own) { // a value that says itself what it must be
			return refuse(own.Reason, field, valueAt(payload, sem.JSONPointer), own.Rule)
		}
		return refuse(ReasonMalformed, field, cmp.Or(string(sem.JSONValue), valueAt(payload, sem.JSONPointer)), "must be "+wanted(sem))
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

// fieldAt is how errors call a place: limits[0].match.model.
func fieldAt(pointer jsontext.Pointer) (field string) {
	for name := range pointer.Tokens() {
		if _, err := strconv.Atoi(name); err == nil {
			field += "[" + name + "]"
		} else {
			field += "." + name
		}
	}
	return strings.TrimPrefix(field, ".")
}

func preview(payload []byte) string { return string(payload[:min(len(payload), 60)]) }

// valueAt finds what stands at pointer, for the message only.
func valueAt(payload []byte, pointer jsontext.Pointer) string {
	v := jsontext.Value(payload)
	for name := range pointer.Tokens() {
		var object map[string]jsontext.Value
		var list []jsontext.Value
		switch i, err := strconv.Atoi(name); {
		case json.Unmarshal(v, &object) == nil:
			v = object[name]
		case err == nil && json.Unmarshal(v, &list) == nil && i >= 0 && i < len(list):
			v = list[i]
		default:
			return ""
		}
	}
	return string(v)
}

func wanted(e *json.SemanticError) string {
	t := e.GoType
	if t == nil {
		return "of another type"
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch kind := t.Kind(); {
	case t == reflect.TypeFor[time.Time]():
		return "a time like 2026-11-23T15:30:06Z (RFC 3339)"
	case kind == reflect.Struct:
		return "a JSON object"
	case kind == reflect.Slice:
		return "a list"
	case kind == reflect.Bool:
		return "true or false"
	case reflect.Int <= kind && kind <= reflect.Uint64:
		return "a whole number"
	default:
		return "a string"
	}
}
