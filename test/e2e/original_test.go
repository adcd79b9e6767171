package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

// The ten behaviours of the budget service that Tidegate grew out of.

func TestOriginal_01_BudgetIsEnforced(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.setBudget("p1", 800, 1000, events.PeriodMonth)
	s.spend("p1", 500, time.Time{})
	v := s.check("p1", 100)
	if !v.Allowed || v.SoftCapWarning || v.UsedTokens != 500 || *v.RemainingTokens != 500 || !v.Enabled {
		t.Errorf("500 of 1,000 used, 100 asked: %+v, want allowed without a warning", v)
	}
}

func TestOriginal_02_DisabledBudgetAllowsAndStillRecords(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	hard := int64(10)
	if _, err := s.client.Set(t.Context(), events.SetRequest{PortID: "p1", Enabled: false, HardCapTokens: &hard}); err != nil {
		t.Fatal(err)
	}
	s.spend("p1", 500, time.Time{})
	if v := s.check("p1", 100); !v.Allowed || v.Enabled || v.UsedTokens != 500 {
		t.Errorf("disabled budget: %+v, want allowed, not enabled, 500 used", v)
	}
	if v := s.check("nobody", 1<<40); !v.Allowed || v.Enabled || v.HardCapTokens != nil {
		t.Errorf("no budget: %+v, want allowed", v)
	}
}

func TestOriginal_03_HardCapReachedRefuses(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.setBudget("p1", -1, 1000, events.PeriodMonth)
	s.spend("p1", 1000, time.Time{})
	v := s.check("p1", 0)
	if v.Allowed || v.Reason != events.ReasonHardCapReached || *v.RemainingTokens != 0 || !v.ResetsAt.After(time.Now()) {
		t.Errorf("1,000 of 1,000 used: %+v, want refused hard_cap_reached with the time of the reset", v)
	}
	s.setBudget("zero", -1, 0, events.PeriodMonth)
	if v := s.check("zero", 0); v.Allowed || v.Reason != events.ReasonHardCapReached {
		t.Errorf("a hard cap of 0: %+v, want everything refused", v)
	}
}

func TestOriginal_04_EstimateExceedsHardCapRefuses(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.setBudget("p1", -1, 1000, events.PeriodMonth)
	s.spend("p1", 900, time.Time{})
	if v := s.check("p1", 101); v.Allowed || v.Reason != events.ReasonEstimateExceedsHardCap || *v.RemainingTokens != 100 {
		t.Errorf("900 + 101 of 1,000: %+v, want refused estimate_exceeds_hard_cap, 100 remaining", v)
	}
	if v := s.check("p1", 100); !v.Allowed {
		t.Errorf("900 + 100 of 1,000: %+v, want allowed", v)
	}
}

func TestOriginal_05_SoftCapWarns(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.setBudget("p1", 800, 1000, events.PeriodMonth)
	s.spend("p1", 700, time.Time{})
	if v := s.check("p1", 99); !v.Allowed || v.SoftCapWarning {
		t.Errorf("700 + 99, soft cap 800: %+v, want no warning", v)
	}
	if v := s.check("p1", 100); !v.Allowed || !v.SoftCapWarning {
		t.Errorf("700 + 100, soft cap 800: %+v, want allowed with a warning", v)
	}
}

// The boundary tests put one event on each side of a period's end and ask on both
// sides of it, one microsecond apart, with a database far from UTC.
func TestOriginal_06_DayBoundary(t *testing.T) {
	boundary(t, events.PeriodDay, time.Date(2026, 3, 15, 0, 0, 0, 0, time.UTC))
}

func TestOriginal_07_WeekBoundary(t *testing.T) {
	boundary(t, events.PeriodWeek, time.Date(2026, 3, 30, 0, 0, 0, 0, time.UTC)) // a Monday; the week began in another month
}

func TestOriginal_08_MonthBoundaryAndLeapDay(t *testing.T) {
	for _, end := range []time.Time{time.Date(2024, 3, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)} {
		boundary(t, events.PeriodMonth, end)
	}
	s := start(t, options{at: time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)})
	s.setBudget("leap", -1, 1000, events.PeriodMonth)
	s.spend("leap", 600, time.Date(2024, 2, 29, 11, 0, 0, 0, time.UTC))
	if v := s.check("leap", 0); v.UsedTokens != 600 || !v.ResetsAt.Equal(time.Date(2024, 3, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("on 29 February: %+v, want 600 used and the reset on 1 March", v)
	}
}

func boundary(t *testing.T, period events.Period, end time.Time) {
	t.Run(end.Format(time.DateOnly), func(t *testing.T) {
		t.Parallel()
		before, after := end.Add(-time.Microsecond), end
		s := start(t, options{timezone: "Pacific/Kiritimati", at: before}) // UTC+14
		s.setBudget("p1", -1, 1000, period)
		s.spend("p1", 900, end.Add(-time.Millisecond)) // ids hold milliseconds
		s.spend("p1", 5, end)
		if v := s.check("p1", 200); v.Allowed || v.UsedTokens != 900 || !v.ResetsAt.Equal(end) {
			t.Errorf("1 µs before the end: %+v, want 900 used and 200 more refused", v)
		}
		s.clock.Stop(after)
		if v := s.check("p1", 200); !v.Allowed || v.UsedTokens != 5 || !v.PeriodStart.Equal(end) {
			t.Errorf("at the end: %+v, want a new period with 5 used", v)
		}
		report, err := s.client.Usage(t.Context(), events.ReportRequest{PortID: "p1"})
		if err != nil || report.UsedTokens != 5 {
			t.Errorf("usage in the new period: %+v, %v, want 5", report, err)
		}
	})
}

func TestOriginal_09_PortsNeverSeeEachOther(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.setBudget("p1", -1, 1000, events.PeriodMonth)
	s.setBudget("p2", -1, 1000, events.PeriodMonth)
	s.spend("p1", 1000, time.Time{})
	if v := s.check("p2", 100); !v.Allowed || v.UsedTokens != 0 {
		t.Errorf("p2 after p1 spent all of its own: %+v, want allowed and nothing used", v)
	}
	// The same id in two ports is two events.
	u := usage("p1", 10)
	u.ID = events.NewUUIDv7(time.Now()).String()
	s.publisher.Record(u)
	u.PortID = "p2"
	s.publisher.Record(u)
	testenv.Eventually(s.t, "both are booked", func() bool { return s.booked("p1") == 1010 && s.booked("p2") == 10 })
	report, err := s.client.Usage(t.Context(), events.ReportRequest{PortID: "p2"})
	if err != nil || report.UsedTokens != 10 {
		t.Errorf("usage of p2: %+v, %v, want 10", report, err)
	}
}

func TestOriginal_10_RecordingFailsSilentlyForTheCaller(t *testing.T) {
	t.Parallel()
	n := testenv.NATS(t)
	nc, err := events.Connect(n.ClientURL(), nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	n.Shutdown()
	p, err := events.NewPublisher(nc, events.PublisherConfig{Buffer: 10})
	if err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	for range 20 {
		p.Record(usage("p1", 10)) // neither blocks nor panics nor returns anything
	}
	p.Record(events.Usage{}) // nor with nonsense
	if took := time.Since(started); took > time.Second {
		t.Errorf("21 calls of Record without NATS took %s", took)
	}
	s := p.Stats()
	if s.Recorded != 21 || s.Dropped == 0 || s.Published != 0 {
		t.Errorf("stats %+v, want 21 recorded, some dropped since the buffer holds 10, none published", s)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := p.Close(ctx); err == nil {
		t.Error("Close said nothing about the events that were left")
	}
}
