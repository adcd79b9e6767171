package budget_test

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tidegate/tidegate/budget"
)

func n(v int64) *int64 { return &v }

func decide(b budget.Budget, used, held, estimate int64, now time.Time) budget.Decision {
	return budget.Decide(b.Rule(), budget.Count{Used: used, Held: held}, &budget.Call{Estimate: budget.Estimate{Tokens: estimate}}, nil, now)
}

func TestDecide(t *testing.T) {
	t.Parallel()
	enabled := func(soft, hard *int64) budget.Budget {
		return budget.Budget{Enabled: true, SoftCapTokens: soft, HardCapTokens: hard, Period: budget.Month}
	}
	for _, c := range []struct {
		name                 string
		budget               budget.Budget
		used, held, estimate int64
		allowed, warned      bool
		reason               budget.RefusalReason
		remaining            *int64
	}{
		{"no budget", budget.Budget{Period: budget.Month}, 1 << 40, 0, 1 << 40, true, false, "", nil},
		{"disabled", budget.Budget{HardCapTokens: n(1), Period: budget.Month}, 5, 0, 5, true, false, "", n(0)},
		{"below both caps", enabled(n(80), n(100)), 10, 5, 64, true, false, "", n(85)},
		{"reaches the soft cap", enabled(n(80), n(100)), 10, 5, 65, true, true, "", n(85)},
		{"exactly the hard cap", enabled(n(80), n(100)), 10, 5, 85, true, true, "", n(85)},
		{"over the hard cap by one", enabled(n(80), n(100)), 10, 5, 86, false, true, budget.ReasonEstimateExceedsHardCap, n(85)},
		{"both caps passed by use", enabled(n(80), n(100)), 100, 0, 0, false, true, budget.ReasonHardCapReached, n(0)},
		{"both caps passed by holds", enabled(n(80), n(100)), 0, 100, 1, false, true, budget.ReasonHardCapReached, n(0)},
		{"soft cap passed, disabled", budget.Budget{SoftCapTokens: n(80), HardCapTokens: n(100), Period: budget.Month}, 500, 0, 5, true, false, "", n(0)},
		{"hard cap reached by use", enabled(nil, n(100)), 100, 0, 0, false, false, budget.ReasonHardCapReached, n(0)},
		{"hard cap reached by holds", enabled(nil, n(100)), 60, 40, 0, false, false, budget.ReasonHardCapReached, n(0)},
		{"hard cap passed", enabled(nil, n(100)), 500, 0, 1, false, false, budget.ReasonHardCapReached, n(0)},
		{"hard cap of 0 refuses everything", enabled(nil, n(0)), 0, 0, 0, false, false, budget.ReasonHardCapReached, n(0)},
		{"soft cap of 0 warns always", enabled(n(0), nil), 0, 0, 0, true, true, "", nil},
		{"soft cap only", enabled(n(80), nil), 1000, 0, 1000, true, true, "", nil},
		{"no caps", enabled(nil, nil), 1000, 0, 1000, true, false, "", nil},
		{"sums beyond 64 bits", enabled(n(80), n(100)), math.MaxInt64, math.MaxInt64, math.MaxInt64, false, true, budget.ReasonHardCapReached, n(0)},
	} {
		v := budget.Decide(c.budget.Rule(), budget.Count{Used: c.used, Held: c.held}, &budget.Call{Estimate: budget.Estimate{Tokens: c.estimate}}, nil, time.Date(2026, 11, 24, 1, 2, 3, 0, time.UTC))
		if v.Allowed != c.allowed || v.SoftCapWarning != c.warned || v.Reason != c.reason {
			t.Errorf("%s: allowed %v, warned %v, reason %q; want %v, %v, %q", c.name, v.Allowed, v.SoftCapWarning, v.Reason, c.allowed, c.warned, c.reason)
		}
		if (v.RemainingTokens == nil) != (c.remaining == nil) || v.RemainingTokens != nil && *v.RemainingTokens != *c.remaining {
			t.Errorf("%s: remaining %v, want %v", c.name, v.RemainingTokens, c.remaining)
		}
		if v.UsedTokens != c.used || v.HeldTokens != c.held || !v.ResetsAt.Equal(time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)) {
			t.Errorf("%s: %+v", c.name, v)
		}
	}
}

// What the rules mean together: an allowed call fits, a refused one does not, and
// less is never refused where more is allowed.
func TestDecideProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		tokens := rapid.Int64Range(0, 1000)
		b := budget.Budget{Enabled: true, Period: rapid.SampledFrom(budget.Periods[:]).Draw(t, "period")}
		if rapid.Bool().Draw(t, "has hard") {
			b.HardCapTokens = n(tokens.Draw(t, "hard"))
		}
		if rapid.Bool().Draw(t, "has soft") {
			b.SoftCapTokens = n(tokens.Draw(t, "soft"))
		}
		used, held, estimate := tokens.Draw(t, "used"), tokens.Draw(t, "held"), tokens.Draw(t, "estimate")
		now := time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "now"), 0)
		v := decide(b, used, held, estimate, now)
		if b.HardCapTokens == nil && !v.Allowed {
			t.Fatal("refused without a hard cap")
		}
		if b.HardCapTokens != nil {
			fits := used+held < *b.HardCapTokens && used+held+estimate <= *b.HardCapTokens
			if v.Allowed != fits {
				t.Fatalf("allowed %v, fits %v", v.Allowed, fits)
			}
		}
		if v.Allowed != (v.Reason == "") {
			t.Fatalf("%+v contradicts itself", v)
		}
		if passed := b.SoftCapTokens != nil && used+held+estimate >= *b.SoftCapTokens; v.SoftCapWarning != passed {
			t.Fatalf("%+v: the soft cap is passed: %v", v, passed)
		}
		if estimate > 0 && v.Allowed && !decide(b, used, held, estimate-1, now).Allowed {
			t.Fatal("one token less is refused")
		}
		if now.Before(v.PeriodStart) || !now.Before(v.ResetsAt) {
			t.Fatalf("%s is not in [%s, %s)", now, v.PeriodStart, v.ResetsAt)
		}
	})
}
