package budget_test

import (
	"errors"
	"testing"
	"time"

	"github.com/tidegate/tidegate/budget"
)

// Extra tokens raise the hard cap before their end, and at it they are gone by themselves.
func TestExtraTokens(t *testing.T) {
	t.Parallel()
	until := time.Date(2026, 11, 24, 18, 0, 0, 0, time.UTC)
	b := budget.Budget{Enabled: true, SoftCapTokens: n(80), HardCapTokens: n(100), Period: budget.Month, ExtraTokens: n(50), ExtraUntil: until}
	for _, c := range []struct {
		name                 string
		at                   time.Time
		used, held, estimate int64
		allowed              bool
		hard, remaining, fit int64
	}{
		{"above the cap", until.Add(-1), 90, 10, 50, true, 150, 50, 50},
		{"above both", until.Add(-1), 90, 10, 51, false, 150, 50, 50},
		{"all used", until.Add(-1), 150, 0, 1, false, 150, 0, 0},
		{"at the end", until, 90, 5, 6, false, 100, 5, 5},
		{"at the end, below the cap", until, 90, 5, 5, true, 100, 5, 5},
		{"after the end", until.Add(time.Hour), 140, 0, 1, false, 100, 0, 0},
	} {
		d := decide(b, c.used, c.held, c.estimate, c.at)
		if d.Allowed != c.allowed || *d.HardCapTokens != c.hard || *d.RemainingTokens != c.remaining || !d.SoftCapWarning {
			t.Errorf("%s: allowed %v, hard cap %d, remaining %d, warned %v", c.name, d.Allowed, *d.HardCapTokens, *d.RemainingTokens, d.SoftCapWarning)
		}
		fit, ok := budget.Fit(b.Rule(), budget.Count{Used: c.used, Held: c.held}, &budget.Call{Estimate: budget.Estimate{Tokens: c.estimate}}, nil, c.at)
		if ok != (c.fit > 0) || ok && fit.Tokens != c.fit {
			t.Errorf("%s: %d fit, %v; want %d", c.name, fit.Tokens, ok, c.fit)
		}
	}
	b.HardCapTokens, b.ExtraTokens = n(budget.MaxCapTokens), n(budget.MaxCapTokens)
	if d := decide(b, 0, 0, 1, until.Add(-1)); *d.HardCapTokens != budget.MaxCapTokens {
		t.Errorf("the largest cap and extra tokens are %d", *d.HardCapTokens)
	}
	b.Enabled, b.HardCapTokens = false, n(0)
	if d := decide(b, 500, 0, 500, until); !d.Allowed {
		t.Errorf("a budget that is not enabled refuses: %+v", d)
	}
}

func TestExtraTokensThatAreWrong(t *testing.T) {
	t.Parallel()
	until := time.Date(2026, 11, 24, 18, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		hard, extra *int64
		until       time.Time
		field       string // "": it is right
	}{
		{n(0), n(5), until, ""},
		{n(100), n(0), time.Time{}, ""}, // none
		{n(100), nil, time.Time{}, ""},
		{n(100), n(-1), until, "extra_tokens"},
		{n(100), n(budget.MaxCapTokens + 1), until, "extra_tokens"},
		{nil, n(5), until, "extra_tokens"}, // on top of what?
		{n(100), n(5), time.Time{}, "extra_until"},
		{n(100), n(5), time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC), "extra_until"},
		{n(100), nil, until, "extra_until"},
		{n(100), n(0), until, "extra_until"},
	} {
		err := budget.Budget{Enabled: true, HardCapTokens: c.hard, Period: budget.Day, ExtraTokens: c.extra, ExtraUntil: c.until}.Validate()
		var wrong *budget.FieldError
		if errors.As(err, &wrong) != (c.field != "") || wrong != nil && wrong.Field != c.field {
			t.Errorf("%v: %v, want %q", c, err, c.field)
		}
	}
}
