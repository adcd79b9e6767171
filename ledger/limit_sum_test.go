package ledger_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/ledger"
)

// Whichever window is added up by itself, and whatever the clock says that chose it, each call since
// the limit began is counted once, in its own window.
func TestSumsOfALimitInAnyWindow(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	now := time.Now()
	times := []time.Time{now.Add(4 * time.Minute), now, now.Add(-time.Hour), now.AddDate(0, 0, -1), now.AddDate(0, 0, -8), now.AddDate(0, -1, 0), now.AddDate(0, -3, 0)}
	var calls []ledger.Entry
	for i, at := range times {
		calls = append(calls, call("p1", at), call("p1", at, by(fmt.Sprint("u", i%2))), call("p2", at))
	}
	s.book(t, calls...)
	for _, window := range []budget.Period{budget.Hour, budget.Day, budget.Week, budget.Month, budget.Total} {
		l := limit("each", window, per(budget.PerUser))
		for _, began := range []time.Time{now.AddDate(-1, 0, 0), now.AddDate(0, 0, -2), now} {
			since, _ := window.Bounds(began)
			want := map[string]int64{}
			for _, c := range calls {
				if start, _ := window.Bounds(c.At); c.Usage.PortID == "p1" && !c.At.Before(since) {
					want[fmt.Sprint(c.Usage.UserID, " ", start.Format(time.RFC3339))] += 110
				}
			}
			for _, at := range append(times, now.AddDate(-2, 0, 0), now.AddDate(1, 0, 0)) {
				got, err := s.SumLimitAt(t.Context(), "p1", l, since, at)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("by the %s since %s, with the window of %s by itself (-want +got):\n%s", window, since, at, diff)
				}
			}
		}
	}
}
