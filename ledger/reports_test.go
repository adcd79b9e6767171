package ledger_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

// wantUsed checks what the port has used in the period that contains at.
func (s store) wantUsed(t testing.TB, port string, period events.Period, at time.Time, want int64) {
	t.Helper()
	start, end := period.Bounds(at)
	got, err := s.Spend(t.Context(), port, start, end)
	if err != nil {
		t.Fatal(err)
	}
	if got.UsedTokens != want {
		t.Errorf("%s used %d in the %s of %s, want %d", port, got.UsedTokens, period, at, want)
	}
}

func TestShares(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	spend := func(feature, model, user, run string, in, out int64, days int) ledger.Entry {
		return call("p1", noon.AddDate(0, 0, days), func(u *events.Usage) {
			u.Feature, u.Model, u.UserID, u.RunID, u.InputTokens, u.OutputTokens, u.Details = feature, model, user, run, in, out, events.Details{}
		})
	}
	s.book(t,
		spend("ocr", "claude", "anna", "a-1", 100, 10, 0), spend("ocr", "gpt", "anna", "a-2", 200, 20, -1), spend("summary", "gpt", "", "", 300, 30, -1),
		spend("embedding", "ada", "ben", "b-1", 5, 0, -2), spend("chat", "ada", "ben", "a-1", 5, 0, 0),
		spend("ocr", "claude", "anna", "a-1", 7000, 0, -23), // last month
		call("p2", noon), // somebody else's
	)
	start, end := events.PeriodMonth.Bounds(noon)
	for by, want := range map[events.Dimension][]events.Share{
		events.ByFeature: {share("ocr", 2, 300, 30), share("summary", 1, 300, 30), share("chat", 1, 5, 0), share("embedding", 1, 5, 0)},
		events.ByModel:   {share("gpt", 2, 500, 50), share("claude", 1, 100, 10), share("ada", 2, 10, 0)},
		events.ByUser:    {share("", 1, 300, 30), share("anna", 2, 300, 30), share("ben", 2, 10, 0)},
		events.ByRun:     {share("", 1, 300, 30), share("a-2", 1, 200, 20), share("a-1", 2, 105, 10), share("b-1", 1, 5, 0)},
		events.ByDay:     {share("2026-11-21", 1, 5, 0), share("2026-11-22", 2, 500, 50), share("2026-11-23", 2, 105, 10)},
	} {
		got, err := s.Shares(t.Context(), events.ReportRequest{PortID: "p1", By: by}, start, end)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(ledger.SharePage{Shares: want, UsedTokens: 670, Requests: 5}, got); diff != "" {
			t.Errorf("by %s (-want +got):\n%s", by, diff)
		}
		// In pages of every size they are the same, one after another.
		for limit := 1; limit <= len(want); limit++ {
			var paged []events.Share
			for r, more := (events.ReportRequest{PortID: "p1", By: by, Limit: limit}), true; more; {
				page, err := s.Report(t.Context(), r, noon)
				if err != nil {
					t.Fatal(err)
				}
				if len(page.By) > limit || page.UsedTokens != 670 || page.Requests != 5 || page.More != (page.Next != "") {
					t.Fatalf("by %s, %d at a time: %+v, want the whole period's sums", by, limit, page)
				}
				paged, r.After, more = append(paged, page.By...), page.Next, page.More
			}
			if diff := cmp.Diff(want, paged); diff != "" {
				t.Errorf("by %s, %d at a time (-want +got):\n%s", by, limit, diff)
			}
		}
		report, err := s.Report(t.Context(), events.ReportRequest{PortID: "p1", By: by}, noon)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(events.Report{PortID: "p1", Period: events.PeriodMonth, PeriodStart: start, ResetsAt: end, UsedTokens: 670, Requests: 5,
			Dimension: by, By: want, AsOf: noon}, report); diff != "" {
			t.Errorf("report by %s (-want +got):\n%s", by, diff)
		}
	}
	if r, err := s.Report(t.Context(), events.ReportRequest{PortID: "p1"}, noon); err != nil || r.Dimension != events.ByFeature {
		t.Errorf("a report without a dimension is by %s, %v, want by feature", r.Dimension, err)
	}
	var refused *events.FieldError
	if _, err := s.Shares(t.Context(), events.ReportRequest{PortID: "p1", By: "colour"}, start, end); !errors.As(err, &refused) || refused.Field != "by" {
		t.Errorf("by colour: %v", err)
	}
	for _, after := range []string{"7", "x:ocr", ":ocr", "7:\x00", "7:\xff"} {
		if _, err := s.Shares(t.Context(), events.ReportRequest{PortID: "p1", By: events.ByUser, After: after}, start, end); !errors.As(err, &refused) || refused.Field != "after" {
			t.Errorf("after %q: %v", after, err)
		}
	}
	if past, err := s.Shares(t.Context(), events.ReportRequest{PortID: "p1", By: events.ByUser, After: "0:zoe"}, start, end); err != nil || len(past.Shares) != 0 || past.UsedTokens != 670 {
		t.Errorf("after the last: %+v, %v; want nothing but the sums", past, err)
	}
	empty, err := s.Report(t.Context(), events.ReportRequest{PortID: "nobody", By: events.ByUser}, noon)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(events.Report{PortID: "nobody", Period: events.PeriodMonth, PeriodStart: start, ResetsAt: end, Dimension: events.ByUser,
		AsOf: noon}, empty, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("a port without usage (-want +got):\n%s", diff)
	}
	if empty.By == nil {
		t.Error("the report of a port without usage has null where JSON wants []")
	}
}

// A period of a budget starts and ends where it says, to the nanosecond in the
// question and to the millisecond, the resolution of created_at, in the ledger.
func TestPeriodsOfBudgets(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	for _, c := range []struct {
		port   string
		period events.Period
		start  time.Time // of the period looked at
		end    time.Time
	}{
		{"p-day", events.PeriodDay, date(2026, 11, 23), date(2026, 11, 24)},
		{"p-leap", events.PeriodDay, date(2028, 2, 29), date(2028, 3, 1)},
		{"p-week", events.PeriodWeek, date(2026, 12, 28), date(2027, 1, 4)}, // across the year's end
		{"p-month", events.PeriodMonth, date(2028, 2, 1), date(2028, 3, 1)},
		{"p-none", "", date(2026, 11, 1), date(2026, 12, 1)},
	} {
		if c.period != "" {
			if _, err := s.SetBudget(t.Context(), c.port, events.Budget{Period: c.period}, nil); err != nil {
				t.Fatal(err)
			}
		}
		spend := func(at time.Time, tokens int64) ledger.Entry {
			return call(c.port, at, func(u *events.Usage) { u.InputTokens, u.OutputTokens, u.Details = tokens, 0, events.Details{} })
		}
		s.book(t,
			spend(c.start.Add(-time.Nanosecond), 1), // its id says one millisecond before
			spend(c.start, 10),
			spend(c.end.Add(-time.Nanosecond), 100),
			spend(c.end, 1000))
		for _, q := range []struct {
			now  time.Time
			used int64
		}{
			{c.start.Add(-time.Nanosecond), 1}, {c.start, 110}, {c.start.Add(time.Nanosecond), 110},
			{c.end.Add(-time.Nanosecond), 110}, {c.end, 1000},
		} {
			for _, by := range []events.Dimension{events.ByFeature, events.ByUser} { // totals, and the ledger itself
				r, err := s.Report(t.Context(), events.ReportRequest{PortID: c.port, By: by}, q.now)
				if err != nil {
					t.Fatal(err)
				}
				if r.UsedTokens != q.used {
					t.Errorf("%s at %s: the report by %s says %d, want %d", c.port, q.now, by, r.UsedTokens, q.used)
				}
			}
			before := string(c.port[:len(c.port)-1]) // an id that comes just before it
			ports, err := s.Ports(t.Context(), ledger.PortQuery{After: before, Limit: 1}, q.now)
			if err != nil {
				t.Fatal(err)
			}
			if len(ports) != 1 || ports[0].PortID != c.port || ports[0].UsedTokens != q.used {
				t.Errorf("%s at %s: the list of ports says %+v, want %d used", c.port, q.now, ports, q.used)
			}
		}
	}
}

func share(key string, requests, input, output int64) events.Share {
	return events.Share{Key: key, Requests: requests, InputTokens: input, OutputTokens: output, TotalTokens: input + output}
}

func date(year int, month time.Month, day int) time.Time {
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
}
