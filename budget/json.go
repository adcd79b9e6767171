package budget

import (
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// FieldAt is what a [FieldError] calls a place in JSON, limits[0].match.model, where root is the whole.
func FieldAt(root string, place jsontext.Pointer) string {
	field := root
	for name := range place.Tokens() {
		if _, err := strconv.Atoi(name); err == nil {
			field += "[" + name + "]"
		} else {
			field += "." + name
		}
	}
	return strings.TrimPrefix(field, ".")
}

// ValueAt is what stands at a place, for the message only; "" if nothing does.
func ValueAt(text []byte, place jsontext.Pointer) string {
	v := jsontext.Value(text)
	for name := range place.Tokens() {
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

// Wanted is what JSON must have for a Go type; nil: for one that is not known.
func Wanted(t reflect.Type) string {
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
