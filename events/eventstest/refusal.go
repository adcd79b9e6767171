// Package eventstest helps tests of the wire contract.
package eventstest

import (
	"errors"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/events"
)

// WantRefusal fails the test unless err is a [*events.FieldError] that says so: rule is a
// part of its rule, and an empty value stands for any.
func WantRefusal(t testing.TB, err error, reason events.Reason, field, value, rule string) {
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
