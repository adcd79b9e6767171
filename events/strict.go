package events

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// DecodeStrict reads a request: one JSON object into a struct. An event may have
// fields that nobody here knows, a request may not: a misspelt estimated_tokens would
// ask for nothing, and be allowed. One that is null asks for nothing and passes, since
// null means absent. An empty payload is an empty request. Every error is a [*FieldError].
func DecodeStrict(payload []byte, into any) error {
	switch {
	case len(payload) == 0:
		return nil
	case len(payload) > MaxPayloadBytes:
		return tooLargePayload(payload)
	}
	err := json.Unmarshal(payload, into, json.RejectUnknownMembers(true))
	if errors.Is(err, json.ErrUnknownName) {
		var known []byte
		var unknown *FieldError
		if known, unknown, err = onlyKnown(payload, fieldsOf(reflect.TypeOf(into).Elem())); unknown != nil {
			return unknown
		}
		if err == nil {
			err = json.Unmarshal(known, into, json.RejectUnknownMembers(true))
		}
	}
	if err != nil {
		return explained(payload, err)
	}
	return nil
}

// onlyKnown is an object without those members that are none of fields and null. unknown is
// the first one that is none of them and not null.
func onlyKnown(object []byte, fields []string) (known []byte, unknown *FieldError, err error) {
	in := jsontext.NewDecoder(bytes.NewReader(object))
	if _, err := in.ReadToken(); err != nil {
		return nil, nil, err
	}
	members := map[string]jsontext.Value{}
	for in.PeekKind() == '"' {
		token, err := in.ReadToken()
		if err != nil {
			return nil, nil, err
		}
		name := token.String()
		value, err := in.ReadValue()
		if err != nil {
			return nil, nil, err
		}
		switch {
		case slices.Contains(fields, name):
			members[name] = value.Clone()
		case value.Kind() != 'n':
			return nil, noField(name, name, value, fields), nil
		}
	}
	if _, err := in.ReadToken(); err != nil { // its end
		return nil, nil, err
	}
	known, err = json.Marshal(members)
	return known, nil, err
}

// noField refuses the member of that name of a struct with fields.
func noField(at, name string, value jsontext.Value, fields []string) *FieldError {
	return refuse(ReasonInvalidField, printable(at), string(value), "is no field of this request"+hint(name, fields))
}

// fieldsOf are the JSON names of a struct's fields.
func fieldsOf(t reflect.Type) (names []string) {
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

// printable fits into the header that carries a fault, whoever chose the name.
func printable(name string) string {
	if quoted := strconv.QuoteToASCII(name); len(quoted) > 66 {
		return quoted[:60] + `…"`
	} else if quoted != `"`+name+`"` || name == "" {
		return quoted
	}
	return name
}

// hint says which of fields was meant, or what there is.
func hint(name string, fields []string) string {
	meant, least := "", 4
	for _, field := range fields {
		if d := distance(plain(name), plain(field)); d < least && d <= len(field)/4 {
			meant, least = field, d
		}
	}
	switch {
	case meant != "":
		return "; did you mean " + meant + "?"
	case len(fields) == 0:
		return ", which has none"
	default:
		return "; there are: " + strings.Join(fields, ", ")
	}
}

// plain is a name as far as people tell names apart, cut to what is worth comparing.
func plain(name string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(name[:min(len(name), 64)]))
}

// distance is 0 for what is the same, 1 where one contains the other, and otherwise the
// letters to insert, delete or change.
func distance(a, b string) int {
	if long := min(len(a), len(b)) > 3; a != b && long && (strings.Contains(a, b) || strings.Contains(b, a)) {
		return 1
	}
	return levenshtein.ComputeDistance(a, b)
}
