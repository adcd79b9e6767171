package e2e

import (
	"encoding/json"
	"errors"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

// tellNobody is for budgets that are stored while no gate is there, or that none hears of.
func tellNobody(events.Budget) error { return nil }

// storeUnheard stores a budget that no gate is told of, as if the notice were lost.
func (s *system) storeUnheard(port string, soft, hard int64) {
	s.t.Helper()
	b := events.Budget{Enabled: true, SoftCapTokens: &soft, HardCapTokens: &hard, Period: events.PeriodWeek, UpdatedBy: "ada"}
	testenv.Must(s.ledger.StoreBudget(s.t.Context(), port, b, nil, tellNobody))
}

// A budget that the gate does not know yet is changed like any other: what the command
// does not name stays as it is stored.
func TestBudgetSetKeepsWhatTheGateDoesNotKnow(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.storeUnheard("p1", 800, 1000)
	if v := s.check("p1", 2000); !v.Allowed {
		t.Fatalf("the gate has heard of the budget, so this tests nothing: %+v", v)
	}
	if b := testenv.Must(s.client.Get(t.Context(), "p1")); b.Version != 1 || b.UpdatedBy != "ada" {
		t.Errorf("get answers what the gate remembers, not what is stored: %+v", b)
	}
	out, err := exec.Command(testenv.Binary(t, "cmd/tidegate"), "budget", "set", "p1", "--soft", "500", "--json", "--nats-url", s.nats.ClientURL()).CombinedOutput()
	var b events.Budget
	if err != nil || json.Unmarshal(out, &b) != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if b.Version != 2 || *b.SoftCapTokens != 500 || b.HardCapTokens == nil || *b.HardCapTokens != 1000 || b.Period != events.PeriodWeek {
		t.Errorf("stored: %s", out)
	}
	if v := s.check("p1", 2000); v.Allowed {
		t.Errorf("the gate does not go by it: %+v", v)
	}
}

// Whoever is overtaken between reading and storing begins again, on version 0 too, and
// gives up with nothing stored when that happens each time.
func TestChangeBeginsAgain(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	for _, overtaken := range []int{0, 1, 3} {
		port := "p" + strconv.Itoa(overtaken)
		tries, seen := 0, int64(-1)
		b, err := s.client.Change(t.Context(), port, func(b *events.Budget) {
			if seen = b.Version; tries < overtaken {
				s.storeUnheard(port, 1, 1000+int64(tries))
			}
			tries++
			b.Enabled, b.SoftCapTokens, b.UpdatedBy = true, new(int64(500)), "me"
		})
		if err != nil || tries != overtaken+1 || seen != int64(overtaken) || b.Version != int64(overtaken)+1 || *b.SoftCapTokens != 500 || b.UpdatedBy != "me" {
			t.Errorf("overtaken %d times: %d tries, the last on version %d: %+v, %v", overtaken, tries, seen, b, err)
		}
		if overtaken > 0 && *b.HardCapTokens != 999+int64(overtaken) {
			t.Errorf("overtaken %d times: the hard cap is %d", overtaken, *b.HardCapTokens)
		}
	}
	tries := 0
	_, err := s.client.Change(t.Context(), "busy", func(b *events.Budget) {
		tries++
		s.storeUnheard("busy", 1, 2)
		b.SoftCapTokens = nil
	})
	if b := testenv.Must(s.ledger.Budget(t.Context(), "busy")); !errors.Is(err, events.ErrConflict) || b.Version != int64(tries) || *b.SoftCapTokens != 1 {
		t.Errorf("overtaken each of %d times: %v, and stored is %+v", tries, err, b)
	}
}

// Whoever changes a budget changes its limits with it, and drops them by dropping them.
func TestChangeStoresLimits(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	for _, c := range []struct {
		edit func(b *events.Budget)
		want []string
	}{
		{func(b *events.Budget) { b.Enabled = true }, nil},
		{func(b *events.Budget) {
			b.Limits = []events.Limit{{Name: "a", Window: budget.Hour, Hard: new(int64(5))}, {Name: "b", Window: budget.Hour, Hard: new(int64(5))}}
		}, []string{"a", "b"}},
		{func(b *events.Budget) { b.HardCapTokens = new(int64(9)) }, []string{"a", "b"}},
		{func(b *events.Budget) { b.Limits = b.Limits[min(1, len(b.Limits)):] }, []string{"b"}},
		{func(b *events.Budget) { b.Limits = nil }, nil},
	} {
		answered := testenv.Must(s.client.Change(t.Context(), "p1", c.edit))
		stored := testenv.Must(s.client.Get(t.Context(), "p1"))
		for _, b := range []events.Budget{answered, stored} {
			var names []string
			for _, l := range b.Limits {
				names = append(names, l.Name)
			}
			if !slices.Equal(names, c.want) {
				t.Errorf("version %d has the limits %v, want %v", b.Version, names, c.want)
			}
		}
	}
}

// Extra tokens stay when an edit leaves them alone, and go when it takes them away, however it says so.
func TestChangeTakesExtraTokensAway(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	give := func(b *events.Budget) {
		b.Enabled, b.HardCapTokens, b.ExtraTokens, b.ExtraUntil = true, new(int64(100)), new(int64(40)), until
	}
	for what, c := range map[string]struct {
		edit func(b *events.Budget)
		want int64
	}{
		"left alone":              {func(b *events.Budget) { b.HardCapTokens = new(int64(90)) }, 40},
		"tokens and end removed":  {func(b *events.Budget) { b.ExtraTokens, b.ExtraUntil = nil, time.Time{} }, 0},
		"tokens removed":          {func(b *events.Budget) { b.ExtraTokens = nil }, 0},
		"0 tokens":                {func(b *events.Budget) { b.ExtraTokens = new(int64) }, 0},
		"0 tokens and no end":     {func(b *events.Budget) { b.ExtraTokens, b.ExtraUntil = new(int64), time.Time{} }, 0},
		"gone with the hard cap":  {func(b *events.Budget) { b.HardCapTokens = nil }, 0},
		"other tokens, same end":  {func(b *events.Budget) { b.ExtraTokens = new(int64(7)) }, 7},
		"same tokens, longer":     {func(b *events.Budget) { b.ExtraUntil = until.Add(time.Hour) }, 40},
		"everything written anew": {func(b *events.Budget) { *b = events.Budget{Enabled: true, HardCapTokens: new(int64(100))} }, 0},
	} {
		testenv.Must(s.client.Change(t.Context(), "p1", give))
		answered := testenv.Must(s.client.Change(t.Context(), "p1", c.edit))
		for _, b := range []events.Budget{answered, testenv.Must(s.client.Get(t.Context(), "p1"))} {
			got := int64(0)
			if b.ExtraTokens != nil {
				got = *b.ExtraTokens
			}
			if got != c.want || b.ExtraUntil.IsZero() != (c.want == 0) {
				t.Errorf("%s: %d extra tokens until %s, want %d", what, got, b.ExtraUntil, c.want)
			}
		}
	}
	_, err := s.client.Change(t.Context(), "p1", func(b *events.Budget) { b.ExtraTokens, b.ExtraUntil = nil, until.Add(2*time.Hour) })
	if invalid := (*events.FieldError)(nil); !errors.As(err, &invalid) || invalid.Field != "extra_until" {
		t.Errorf("an end of no tokens: %v", err)
	}
}
