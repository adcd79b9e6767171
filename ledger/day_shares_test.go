package ledger_test

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

// lastMonths are the days of this and the last month, by the machine's clock, which is the database's:
// it decides which days are over.
func lastMonths() (from, today, to time.Time) {
	today, tomorrow := events.PeriodDay.Bounds(time.Now())
	month, _ := events.PeriodMonth.Bounds(today)
	return month.AddDate(0, -1, 0), today, tomorrow
}

func (s store) shares(t testing.TB, port string, by events.Dimension) []events.Share {
	t.Helper()
	from, _, to := lastMonths()
	page, err := s.Shares(t.Context(), events.ReportRequest{PortID: port, By: by}, from, to)
	if err != nil {
		t.Fatal(err)
	}
	return page.Shares
}

// addUp is the report as one would explain it.
func addUp(entries []ledger.Entry, by events.Dimension) []events.Share {
	sums := map[string]events.Share{}
	for _, e := range entries {
		key := e.Usage.UserID
		if by == events.ByRun {
			key = e.Usage.RunID
		}
		s := sums[key]
		sums[key] = share(key, s.Requests+1, s.InputTokens+e.Usage.InputTokens, s.OutputTokens+e.Usage.OutputTokens)
	}
	all := []events.Share{}
	for _, s := range sums {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b events.Share) int {
		return cmp.Or(cmp.Compare(b.TotalTokens, a.TotalTokens), cmp.Compare(a.Key, b.Key))
	})
	return all
}

// Whatever happens between reports, they say what the ledger has.
func TestReportsByUserAndRunAreTheLedgers(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.KeepDaysFrom(2)
	from, _, to := lastMonths()
	n, kept := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		port := fmt.Sprintf("p%d", n)
		var booked []ledger.Entry
		users := []string{"", fmt.Sprintf("anna-%d", n), fmt.Sprintf("ben-%d", n)}
		erased := map[string]bool{}
		days := []time.Time{from, from.AddDate(0, 0, 3), to.AddDate(0, 0, -2), to.AddDate(0, 0, -1)}
		rt.Repeat(map[string]func(*rapid.T){
			"book": func(rt *rapid.T) {
				var batch []ledger.Entry
				for range rapid.IntRange(1, 4).Draw(rt, "calls") {
					at := rapid.SampledFrom(days).Draw(rt, "day").Add(time.Duration(rapid.Int64Range(0, 24*3600*1000-1).Draw(rt, "ms")) * time.Millisecond)
					batch = append(batch, call(port, at, func(u *events.Usage) {
						u.UserID, u.RunID = rapid.SampledFrom(users).Draw(rt, "user"), rapid.SampledFrom([]string{"", "r1", "r2"}).Draw(rt, "run")
						u.InputTokens, u.Details = rapid.Int64Range(0, 50).Draw(rt, "input"), events.Details{}
					}))
				}
				s.book(t, batch...)
				for _, e := range batch {
					if erased[e.Usage.UserID] {
						e.Usage.UserID = ""
					}
					booked = append(booked, e)
				}
			},
			"erase": func(rt *rapid.T) {
				user := rapid.SampledFrom(users[1:]).Draw(rt, "user")
				if _, err := s.EraseUser(t.Context(), user); err != nil {
					rt.Fatal(err)
				}
				erased[user] = true
				for i := range booked {
					if booked[i].Usage.UserID == user {
						booked[i].Usage.UserID = ""
					}
				}
			},
			"delete": func(rt *rapid.T) {
				if len(booked) == 0 {
					return // there is no port
				}
				if _, err := s.DeletePort(t.Context(), port, "ada"); err != nil {
					rt.Fatal(err)
				}
				booked = nil
			},
			"maintain": func(rt *rapid.T) {
				if err := s.Maintain(t.Context(), time.Now()); err != nil {
					rt.Fatal(err)
				}
			},
			"": func(rt *rapid.T) {
				if !rapid.Bool().Draw(rt, "ask") {
					return
				}
				for _, by := range []events.Dimension{events.ByUser, events.ByRun} {
					if diff := gocmp.Diff(addUp(booked, by), s.shares(t, port, by)); diff != "" {
						rt.Fatalf("by %s (-booked +reported):\n%s", by, diff)
					}
				}
				kept += one[int](t, s.db, "select count(*)::int from ai_usage_day_shares where port_id = $1", port)
			},
		})
		if left := one[int](t, s.db, "select count(*)::int from ai_usage_day_shares where keys && $1", erasedNames(erased)); left != 0 {
			rt.Fatalf("%d days that are kept name an erased user", left)
		}
	})
	if kept == 0 {
		t.Error("no day was kept")
	}
}

func erasedNames(erased map[string]bool) []string {
	names := []string{}
	for name := range erased {
		names = append(names, name)
	}
	return names
}

// rename changes a name where it is kept, so that a report tells whether it read that.
func (s store) rename(t testing.TB, port string, day time.Time) {
	t.Helper()
	if n := exec(t, s.db, "update ai_usage_day_shares set keys = array_replace(keys, 'anna', 'kept') where port_id = $1 and day = $2 and dimension = 'user'", port, day.Format(time.DateOnly)); n != 1 {
		t.Fatalf("%d days of %s are kept for %s, want 1", n, port, day.Format(time.DateOnly))
	}
}

func TestADayIsKeptWhenAReportNeedsIt(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.KeepDaysFrom(2)
	_, today, _ := lastMonths()
	old := today.AddDate(0, 0, -2)
	s.book(t, call("p1", old, by("anna")), call("p1", old, by("anna")), call("p1", today, by("anna")), call("p1", today, by("anna")),
		call("p1", old.AddDate(0, 0, -1), by("anna")), call("p2", old, by("anna")), call("p2", old, by("anna")))
	want := func(port string, shares ...events.Share) {
		t.Helper()
		if diff := gocmp.Diff(shares, s.shares(t, port, events.ByUser)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", port, diff)
		}
	}
	want("p1", share("anna", 5, 500, 50))
	if n := one[int](t, s.db, "select count(*)::int from ai_usage_day_shares"); n != 1 {
		t.Fatalf("%d days are kept, want the one that is over and has two calls", n)
	}
	s.rename(t, "p1", old)
	want("p1", share("anna", 3, 300, 30), share("kept", 2, 200, 20))

	// A late event makes what is kept void.
	s.book(t, call("p1", old, by("anna")))
	want("p1", share("anna", 6, 600, 60))

	// Who asked has the days of other months and days in advance.
	s.book(t, call("p1", old.AddDate(0, 0, -1), by("anna")))
	if err := s.Maintain(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	s.rename(t, "p1", old.AddDate(0, 0, -1))
	want("p1", share("anna", 5, 500, 50), share("kept", 2, 200, 20))
	if n := one[int](t, s.db, "select count(*)::int from ai_usage_day_shares where port_id = 'p2'"); n != 0 {
		t.Errorf("%d days are kept of a port that nobody asked about", n)
	}
	// Not for ever.
	exec(t, s.db, "update ai_usage_day_shares set asked_at = asked_at - interval '36 days'")
	s.book(t, call("p1", old.AddDate(0, 0, -3)), call("p1", old.AddDate(0, 0, -3)))
	if err := s.Maintain(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if n := one[int](t, s.db, "select count(*)::int from ai_usage_day_shares"); n != 2 {
		t.Errorf("%d days are kept, want 2: nobody has asked for 36 days", n)
	}
}

// A report does not wait until all days are kept; the next maintenance keeps the others.
func TestAReportKeepsSomeDays(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.KeepDaysFrom(1)
	s.KeepFor(0)
	_, today, _ := lastMonths()
	for days := range 5 {
		s.book(t, call("p1", today.AddDate(0, 0, -2-days), by("anna")))
	}
	kept := func(want int) {
		t.Helper()
		if n := one[int](t, s.db, "select count(*)::int from ai_usage_day_shares"); n != want {
			t.Errorf("%d days are kept, want %d", n, want)
		}
	}
	for i := range 2 {
		if diff := gocmp.Diff([]events.Share{share("anna", 5, 500, 50)}, s.shares(t, "p1", events.ByUser)); diff != "" {
			t.Errorf("report %d (-want +got):\n%s", i+1, diff)
		}
		kept(i + 1)
	}
	if err := s.Maintain(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	kept(5)
}

// A report during an erasure keeps nothing, which might name the user, and is right nevertheless.
func TestNoDayIsKeptDuringAnErasure(t *testing.T) {
	t.Parallel()
	var log strings.Builder // no two write at once: the handler sees to it
	s := newStore(t, func(c *ledger.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	s.KeepDaysFrom(1)
	_, today, _ := lastMonths()
	s.book(t, call("p1", today.AddDate(0, 0, -2), by("anna")))
	s.shares(t, "p1", events.ByUser)
	s.book(t, call("p1", today.AddDate(0, 0, -2), by("anna")), call("p1", today.AddDate(0, 0, -1), by("anna")))
	done := make(chan error, 1)
	err := s.inTx(t, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "select from ai_usage_ledger where user_id = 'anna' for update"); err != nil {
			return err
		}
		go func() {
			_, err := s.EraseUser(t.Context(), "anna")
			done <- err
		}()
		s.awaitLockWait(t, 1)
		if diff := gocmp.Diff([]events.Share{share("anna", 3, 300, 30)}, s.shares(t, "p1", events.ByUser)); diff != "" {
			t.Errorf("while she is erased (-want +got):\n%s", diff)
		}
		if n := one[int](t, s.db, "select sum(requests)::int from ai_usage_day_shares"); n != 1 {
			t.Errorf("days of %d calls are kept, want the one of before", n)
		}
		// Nor does who changes the default budget wait for it.
		_, err := s.StoreBudget(t.Context(), budget.DefaultPort, events.Budget{Enabled: true, Period: events.PeriodMonth, HardCapTokens: new(int64(5))}, nil, func(budget.Budget) error { return nil })
		if log.String() != "" {
			t.Errorf("the default budget is stored, and the log says\n%s", &log)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// What is kept goes with the months that it is of.
func TestKeptDaysGoWithTheirMonth(t *testing.T) {
	t.Parallel()
	s := newStore(t, func(c *ledger.Config) { c.RetentionMonths = 3 })
	s.KeepDaysFrom(1)
	old := noon.AddDate(-1, 0, 0)
	s.book(t, call("p1", old, by("anna")))
	start, end := events.PeriodMonth.Bounds(old)
	for _, want := range []int64{1, 0} {
		page, err := s.Shares(t.Context(), events.ReportRequest{PortID: "p1", By: events.ByUser}, start, end)
		if err != nil {
			t.Fatal(err)
		}
		if page.Requests != want || one[int64](t, s.db, "select count(*) from ai_usage_day_shares") != want {
			t.Errorf("the report says %d calls, want %d, and as many days kept", page.Requests, want)
		}
		if err := s.Maintain(t.Context(), noon); err != nil {
			t.Fatal(err)
		}
	}
}
