package arrival_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/consumer/arrival"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/events/eventstest"
)

func TestSplit(t *testing.T) {
	for payload, want := range map[string][]string{
		`{"a":1}`:                           {`{"a":1}`},
		"":                                  {""},
		"nonsense":                          {"nonsense"},
		` [{"a":1}]`:                        {`{"a":1}`},
		"[{\"a\":1} ,\n {\"a\":1,\"a\":2}]": {`{"a":1}`, `{"a":1,"a":2}`},
		"[{\"a\":\"\xff\"},7,[],null]\n":    {"{\"a\":\"\xff\"}", "7", "[]", "null"},
	} {
		parts, err := arrival.Split([]byte(payload))
		if err != nil {
			t.Errorf("%q: %v", payload, err)
		}
		var got []string
		for _, p := range parts {
			got = append(got, string(p))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", payload, diff)
		}
	}
	for _, c := range []struct {
		payload      string
		reason       events.Reason
		field, value string
		rule         string
	}{
		{"[", events.ReasonMalformed, "payload", `"["`, "ends too early"},
		{`[{"a":1},`, events.ReasonMalformed, "payload", `"[{\"a\":1},"`, "ends too early"},
		{`[{"a":1}] [`, events.ReasonMalformed, "payload", `"[{\"a\":1}] ["`, "something follows"},
		{`[{"a":1} {"b":1}]`, events.ReasonMalformed, "payload", `"[{\"a\":1} {\"b\":1}]"`, "not one JSON array"},
		{"[]", events.ReasonMalformed, "payload", `"[]"`, "at least one"},
		{"[" + strings.Repeat("1,", 256) + "1]", events.ReasonTooLarge, "events", "257", "at most 256"},
		{"[" + strings.Repeat(" ", events.MaxPayloadBytes) + "1]", events.ReasonTooLarge, "payload bytes", "16387", "at most 16384"},
	} {
		_, err := arrival.Split([]byte(c.payload))
		eventstest.WantRefusal(t, err, c.reason, c.field, c.value, c.rule)
	}
}

// An array that the quarantine sent back by itself gives none of its events the place of one
// of its former neighbours, nor of one of an array within another of them.
func TestPlaceIn(t *testing.T) {
	taken := map[int]string{}
	take := func(place int, whose string) {
		if before, ok := taken[place]; ok {
			t.Errorf("%s and %s are both at place %d", before, whose, place)
		}
		taken[place] = whose
	}
	for outer := range events.MaxEventsPerMessage + 1 { // 0: it was the message
		if got := arrival.PlaceIn(outer, 0); got != outer {
			t.Errorf("what is alone at place %d is at %d", outer, got)
		}
		take(outer, fmt.Sprint(outer))
		for place := 1; place <= events.MaxEventsPerMessage && outer > 0; place++ {
			take(arrival.PlaceIn(outer, place), fmt.Sprint(outer, " / ", place))
		}
	}
}

// The parts of an array are its elements, in order, byte for byte.
func FuzzSplit(f *testing.F) {
	for _, s := range []string{"", "{}", "null", "[]", `{"v":2}`, "{\"user_id\":\"\xff\"}", `{"user_id":"\ud800"}`, `{"a":1,"a":2}`, `{"feature":"ocr","provider":"x","model":"y"}`, `{"x":null`} {
		f.Add([]byte(s))
		f.Add([]byte(" [" + s + ", " + s + "]\n"))
		f.Add([]byte("[" + s + "] " + s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		parts, err := arrival.Split(payload)
		if err != nil {
			var field *events.FieldError
			if !errors.As(err, &field) || field.Reason == "" || field.Rule == "" {
				t.Fatalf("refused without a reason and a rule: %#v", err)
			}
			return
		}
		if len(parts) == 1 && bytes.Equal(parts[0], payload) {
			return
		}
		var want []jsontext.Value
		if err := json.Unmarshal(payload, &want, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)); err != nil {
			t.Fatalf("%q was split, but: %v", payload, err)
		}
		if len(parts) != len(want) {
			t.Fatalf("%q: %d parts, want %d", payload, len(parts), len(want))
		}
		for i := range parts {
			if !bytes.Equal(parts[i], want[i]) {
				t.Fatalf("part %d of %q is %q, want %q", i, payload, parts[i], want[i])
			}
		}
	})
}
