package ledger_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/reservation"
	"github.com/tidegate/tidegate/internal/reservation/hold"
	"github.com/tidegate/tidegate/ledger"
)

func tokens(n int64) *int64 { return &n }

// set stores a budget and checks that the answer and the stored one agree.
func (s store) set(t testing.TB, port string, b events.Budget, ifVersion *int64) events.Budget {
	t.Helper()
	set, err := s.SetBudget(t.Context(), port, b, ifVersion)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Budget(t.Context(), port)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(set, got); diff != "" {
		t.Errorf("the budget as set and as read differ (-set +read):\n%s", diff)
	}
	return got
}

func TestBudgetsAreStoredWithTheirHistory(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	got, err := s.Budget(t.Context(), "p1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(events.Budget{Period: events.PeriodMonth}, got); diff != "" {
		t.Errorf("a port without a budget has (-want +got)\n%s", diff)
	}
	steps := []events.Budget{
		{Enabled: true, SoftCapTokens: tokens(800), HardCapTokens: tokens(1000), Period: events.PeriodMonth, UpdatedBy: "anna"},
		{Enabled: true, HardCapTokens: tokens(0), Period: events.PeriodDay, UpdatedBy: "büro"},
		{Enabled: false, SoftCapTokens: tokens(events.MaxCapTokens), HardCapTokens: tokens(events.MaxCapTokens), Period: events.PeriodWeek},
		{Period: events.PeriodWeek},
		{Period: events.PeriodWeek}, // a change that changes nothing counts all the same
	}
	for i, b := range steps {
		got := s.set(t, "p1", b, nil)
		if got.UpdatedAt.Location() != time.UTC || time.Since(got.UpdatedAt).Abs() > time.Minute {
			t.Errorf("step %d: updated at %s", i, got.UpdatedAt)
		}
		b.Version = int64(i + 1)
		if diff := cmp.Diff(b, got, cmpopts.IgnoreFields(events.Budget{}, "UpdatedAt")); diff != "" {
			t.Errorf("step %d (-want +got):\n%s", i, diff)
		}
	}
	if n := one[int](t, s.db, "select count(*)::int from ports"); n != 1 {
		t.Errorf("%d ports are registered by a budget, want 1", n)
	}
	var got5 []ledger.Change
	for before := int64(0); ; { // by twos
		page, err := s.Audit(t.Context(), "p1", before, 2)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		got5 = append(got5, page...)
		before = page[len(page)-1].ID
	}
	if len(got5) != len(steps) {
		t.Fatalf("the audit log has %d rows, want %d", len(got5), len(steps))
	}
	for i, c := range got5 { // newest first
		step := len(steps) - 1 - i
		if c.PortID != "p1" || c.Key != ledger.BudgetKey || c.Version != int64(step+1) || c.ChangedBy != steps[step].UpdatedBy ||
			time.Since(c.ChangedAt).Abs() > time.Minute {
			t.Errorf("change %d: %+v", step, c)
		}
		if !sameBudget(t, c.NewValue, &steps[step]) {
			t.Errorf("change %d: the new value is %s", step, c.NewValue)
		}
		var before *events.Budget
		if step > 0 {
			before = &steps[step-1]
		}
		if !sameBudget(t, c.OldValue, before) {
			t.Errorf("change %d: the old value is %s", step, c.OldValue)
		}
	}
	if none, err := s.Audit(t.Context(), "p2", 0, 10); err != nil || len(none) != 0 {
		t.Errorf("another port's audit log: %v, %v", none, err)
	}
}

// sameBudget compares an audited value with what it should say; nil is no value.
func sameBudget(t testing.TB, value json.RawMessage, want *events.Budget) bool {
	t.Helper()
	if want == nil {
		return value == nil
	}
	var got events.Budget
	if err := json.Unmarshal(value, &got); err != nil {
		t.Errorf("audited value %q: %v", value, err)
		return false
	}
	return cmp.Equal(*want, got, cmpopts.IgnoreFields(events.Budget{}, "Version", "UpdatedAt", "UpdatedBy"))
}

func TestBudgetsAreValidated(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	for _, c := range []struct {
		port   string
		budget events.Budget
		field  string
	}{
		{"", events.Budget{Period: events.PeriodDay}, "port_id"},
		{"a.b", events.Budget{Period: events.PeriodDay}, "port_id"},
		{strings.Repeat("p", 65), events.Budget{Period: events.PeriodDay}, "port_id"},
		{"p1", events.Budget{}, "period"},
		{"p1", events.Budget{Period: "year"}, "period"},
		{"p1", events.Budget{Period: events.PeriodDay, HardCapTokens: tokens(-1)}, "hard_cap_tokens"},
		{"p1", events.Budget{Period: events.PeriodDay, HardCapTokens: tokens(events.MaxCapTokens + 1)}, "hard_cap_tokens"},
		{"p1", events.Budget{Period: events.PeriodDay, SoftCapTokens: tokens(2), HardCapTokens: tokens(1)}, "soft_cap_tokens"},
		{"p1", events.Budget{Period: events.PeriodDay, UpdatedBy: "a\x00b"}, "updated_by"},
	} {
		_, err := s.SetBudget(t.Context(), c.port, c.budget, nil)
		var refused *events.FieldError
		if !errors.As(err, &refused) || refused.Field != c.field {
			t.Errorf("%q %+v: %v, want %s refused", c.port, c.budget, err, c.field)
		}
	}
	if n := one[int](t, s.db, "select (select count(*) from ports)::int + (select count(*) from system_settings_audit)::int"); n != 0 {
		t.Errorf("refused budgets left %d rows", n)
	}
}

func TestIfVersion(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	b := events.Budget{Enabled: true, Period: events.PeriodDay}
	conflict := func(version int64) {
		t.Helper()
		if _, err := s.SetBudget(t.Context(), "p1", b, &version); !errors.Is(err, ledger.ErrConflict) {
			t.Errorf("if version %d: %v, want ErrConflict", version, err)
		}
	}
	conflict(1)
	if n := one[int](t, s.db, "select count(*)::int from ports"); n != 0 {
		t.Error("a conflict registered its port")
	}
	s.set(t, "p1", b, tokens(0))
	conflict(0)
	conflict(2)
	s.set(t, "p1", b, tokens(1))
	s.set(t, "p1", b, nil)
	conflict(2)
	if got := s.set(t, "p1", b, tokens(3)); got.Version != 4 {
		t.Errorf("version %d, want 4", got.Version)
	}
	if n := one[int](t, s.db, "select count(*)::int from system_settings_audit"); n != 4 {
		t.Errorf("%d audit rows, want one for each change that happened", n)
	}
}

// Sixteen people read the same version and save: one wins, the others hear of it.
func TestOneWinnerForEachVersion(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	const setters, rounds = 16, 8
	for version := range int64(rounds) {
		var won, lost atomic.Int64
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i := range setters {
			wg.Go(func() {
				<-start
				b, err := s.SetBudget(t.Context(), "p1", events.Budget{Period: events.PeriodDay, UpdatedBy: fmt.Sprint("u", i)}, &version)
				switch {
				case err == nil && b.Version == version+1:
					won.Add(1)
				case errors.Is(err, ledger.ErrConflict):
					lost.Add(1)
				default:
					t.Errorf("version %d: %+v, %v", version, b, err)
				}
			})
		}
		close(start)
		wg.Wait()
		if won.Load() != 1 || lost.Load() != setters-1 {
			t.Errorf("version %d: %d won, %d lost", version, won.Load(), lost.Load())
		}
	}
	if n := one[int](t, s.db, "select count(distinct version)::int from system_settings_audit"); n != rounds {
		t.Errorf("the audit log knows %d versions, want %d", n, rounds)
	}
}

// Without a version the last one wins, and none is lost from the count.
func TestSettersWithoutAVersion(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	const setters = 16
	var wg sync.WaitGroup
	for i := range setters {
		wg.Go(func() {
			if _, err := s.SetBudget(t.Context(), "p1", events.Budget{Period: events.PeriodDay, HardCapTokens: tokens(int64(i))}, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if b, err := s.Budget(t.Context(), "p1"); err != nil || b.Version != setters {
		t.Errorf("version %d, %v, want %d", b.Version, err, setters)
	}
	if n := one[int](t, s.db, "select count(distinct version)::int from system_settings_audit"); n != setters {
		t.Errorf("the audit log knows %d versions, want %d", n, setters)
	}
}

// Whoever stores a budget has all of it done, in order: it is stored, the gates are told,
// and none goes by the old one any more. That nobody waits for the answer, or that nobody
// can be told, changes nothing.
func TestStoreBudget(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	s := newStore(t, func(c *ledger.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	old := s.lease(t, ask("p1", func(w *reservation.Want) { w.For = time.Minute }))
	ctx, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	daily := events.Budget{Period: events.PeriodDay}
	var group sync.WaitGroup
	b, err := s.StoreBudget(ctx, "p1", daily, nil, func(b events.Budget) error {
		giveUp()
		if stored, err := s.Budget(t.Context(), "p1"); err != nil || !cmp.Equal(stored, b) || b.Version != 1 {
			t.Errorf("gates are told of %+v, stored is %+v, %v", b, stored, err)
		}
		group.Go(func() { // as a gate that is slow to hear
			time.Sleep(50 * time.Millisecond)
			if _, err := s.Reservations.Return(t.Context(), []hold.Returned{old.made}); err != nil {
				t.Error(err)
			}
		})
		return errors.New("the line is cut")
	})
	if err != nil || b.Version != 1 {
		t.Errorf("%+v, %v; want version 1", b, err)
	}
	if n := one[int](t, s.db, "select count(*)::int from ai_budget_slices where holds is null"); n != 0 {
		t.Error("answered while a gate may still make holds by the old budget")
	}
	group.Wait()
	if !strings.Contains(log.String(), "the line is cut") {
		t.Errorf("the operator is not told that gates were not: %q", log.String())
	}
	invalid := events.Budget{Period: "year"}
	for what, store := range map[string]func(announce func(events.Budget) error) error{
		"a conflict": func(f func(events.Budget) error) error {
			_, err := s.StoreBudget(t.Context(), "p1", daily, new(int64(7)), f)
			return err
		},
		"an invalid budget": func(f func(events.Budget) error) error {
			_, err := s.StoreBudget(t.Context(), "p1", invalid, nil, f)
			return err
		},
		"a caller that is gone": func(f func(events.Budget) error) error { _, err := s.StoreBudget(ctx, "p1", daily, nil, f); return err },
	} {
		err := store(func(events.Budget) error { t.Errorf("%s is announced", what); return nil })
		if got, _ := s.Budget(t.Context(), "p1"); err == nil || got.Version != 1 {
			t.Errorf("%s: %v, version %d is stored", what, err, got.Version)
		}
	}
}

// A port is deleted over and over while budgets are stored for it: no setter fails.
func TestSettersAgainstDeletions(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	var stored, deleted atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 60 {
				if _, err := s.SetBudget(t.Context(), "p1", events.Budget{Period: events.PeriodDay}, nil); err != nil {
					t.Error(err)
				}
				stored.Add(1)
			}
		})
	}
	wg.Go(func() {
		for stored.Load() < 240 {
			switch _, err := s.DeletePort(t.Context(), "p1", "ops"); {
			case err == nil:
				deleted.Add(1)
			case !errors.Is(err, ledger.ErrUnknownPort):
				t.Error(err)
			}
		}
	})
	wg.Wait()
	if deleted.Load() == 0 {
		t.Error("nothing was deleted: this test shows nothing")
	}
	if n := one[int64](t, s.db, "select count(*) from system_settings_audit"); n != stored.Load()+deleted.Load() {
		t.Errorf("%d audit rows, want one for each of %d budgets and %d deletions", n, stored.Load(), deleted.Load())
	}
}
