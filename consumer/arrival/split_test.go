package arrival_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/consumer/arrival"
	"github.com/tidegate/tidegate/events"
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
		wantRefusal(t, err, c.reason, c.field, c.value, c.rule)
	}
}

func wantRefusal(t *testing.T, err error, reason events.Reason, field, value, rule string) {
	t.Helper()
	var e *events.FieldError
	if !errors.As(err, &e) {
		t.Fatalf("want a FieldError, got %v", err)
	}
	if e.Reason != reason || e.Field != field || value != "" && e.Value != value || !strings.Contains(e.Rule, rule) || e.Rule == "" {
		t.Errorf("got  %s | %s | %s | %s\nwant %s | %s | %s | …%s…", e.Reason, e.Field, e.Value, e.Rule, reason, field, value, rule)
	}
	if len(e.Value) > 90 {
		t.Errorf("the value is %d bytes long in the error", len(e.Value))
	}
	if text := e.Error(); !strings.Contains(text, field) || !strings.Contains(text, e.Rule) {
		t.Errorf("the text leaves out field or rule: %s", text)
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
