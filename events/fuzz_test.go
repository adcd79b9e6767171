package events_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/events"
)

var seeds = []string{
	whole, "", "{}", "null", "[]", `{"v":2}`, `{"v":1e0}`, "{\"user_id\":\"\xff\"}", `{"user_id":"\ud800"}`, `{"a":1,"a":2}`,
	`{"feature":"ocr","provider":"x","model":"y"}`,
	`{"feature":"ocr","provider":"x","model":"y","occurred_at":"9999-12-31T23:59:59.999999999-23:59"}`,
	`{"feature":"ocr","provider":"x","model":"y","occurred_at":"0000-01-01T00:00:00+23:59"}`,
	`{"feature":"ocr","provider":"x","model":"y","details":{"cache_read_input_tokens":9223372036854775807}}`,
	`{"port_id":"p1","estimated_tokens":2000,"feature":"ocr"}`, `{"enabled":true,"hard_cap_tokens":1,"if_version":0}`, `{"by":"day"}`,
	`{"estimated_tokens":2000,"ttl_seconds":60,"idempotency_key":"k","accept_less":true}`, `{"reservation_id":"r"}`,
	`{"estimated_tokns":1}`, `{"x":null,"\n":null,"by":"day"}`, `{"x":null`, `{"version":4}`,
}

// What decodes encodes to something that decodes to the same; what does not is
// refused with a FieldError. Nothing panics.
func FuzzDecodeUsage(f *testing.F) {
	for _, s := range seeds {
		f.Add("ai.usage.p1", []byte(s))
		f.Add("ai.usage", []byte(s))
	}
	f.Fuzz(func(t *testing.T, subject string, payload []byte) {
		u, err := events.DecodeUsage(subject, payload)
		if err != nil {
			var field *events.FieldError
			if !errors.As(err, &field) || field.Reason == "" || field.Rule == "" {
				t.Fatalf("refused without a reason and a rule: %#v", err)
			}
			return
		}
		again, err := events.DecodeUsage(subject, u.AppendJSON(nil))
		if err != nil {
			t.Fatalf("%v\n%s", err, u.AppendJSON(nil))
		}
		u.OccurredAt = u.OccurredAt.Truncate(1e6) // the wire carries milliseconds
		if diff := cmp.Diff(u, again); diff != "" {
			t.Fatalf("%s\n(-first +second):\n%s", payload, diff)
		}
	})
}

func FuzzDecodeRequest(f *testing.F) {
	for _, s := range seeds {
		for _, subject := range []string{"ai.budget.check", "ai.budget.check.p1"} {
			f.Add(subject, []byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, subject string, payload []byte) {
		for _, into := range []any{&events.CheckRequest{}, &events.SetRequest{}, &events.ReportRequest{}, &events.ReserveRequest{}, &events.ReleaseRequest{}} {
			port, err := events.DecodeRequest(events.SubjectCheck, subject, payload, into)
			var field *events.FieldError
			switch {
			case err == nil && !events.ValidPort(port):
				t.Fatalf("accepted for port %q", port)
			case err != nil && (!errors.As(err, &field) || field.Rule == ""):
				t.Fatalf("refused without a rule: %#v", err)
			}
		}
	})
}
