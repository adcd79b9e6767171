package ledger_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

// claims has 16 gates, of two processes, claim the alert at once, and counts the winners.
func claims(t testing.TB, a ledger.Alert, ledgers ...*ledger.Ledger) int64 {
	t.Helper()
	var mine atomic.Int64
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range 16 {
		wg.Go(func() {
			<-start
			ok, err := ledgers[i%len(ledgers)].ClaimAlert(t.Context(), a)
			if err != nil {
				t.Error(err)
			}
			if ok {
				mine.Add(1)
			}
		})
	}
	close(start)
	wg.Wait()
	return mine.Load()
}

func TestAlertsAreClaimedOnce(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	other := open(t, s.url)
	s.set(t, "p1", events.Budget{Period: events.PeriodDay}, nil)
	s.set(t, "p2", events.Budget{Period: events.PeriodDay}, nil)
	start, next := events.PeriodDay.Bounds(noon)
	soft := ledger.Alert{PortID: "p1", Period: events.PeriodDay, PeriodStart: start, Cap: "soft"}
	if n := claims(t, soft, s.Ledger, other); n != 1 {
		t.Fatalf("%d gates publish the alert, want 1", n)
	}
	if n := claims(t, soft, s.Ledger, other); n != 0 {
		t.Errorf("%d gates claim it again while the first publishes it", n)
	}
	// Every other alert is one of its own.
	for _, a := range []ledger.Alert{
		{PortID: "p1", Period: events.PeriodDay, PeriodStart: start, Cap: "hard"},
		{PortID: "p1", Period: events.PeriodDay, PeriodStart: next, Cap: "soft"},
		{PortID: "p1", Period: events.PeriodWeek, PeriodStart: start, Cap: "soft"},
		{PortID: "p2", Period: events.PeriodDay, PeriodStart: start, Cap: "soft"},
	} {
		if n := claims(t, a, s.Ledger, other); n != 1 {
			t.Errorf("%+v: %d gates publish it, want 1", a, n)
		}
	}
	// The gate that claimed it died: after its lease, not before, one other takes over.
	s.age(t, 14*time.Second)
	if n := claims(t, soft, s.Ledger, other); n != 0 {
		t.Errorf("%d gates take over before the lease has ended", n)
	}
	s.age(t, 16*time.Second)
	if n := claims(t, soft, s.Ledger, other); n != 1 {
		t.Errorf("%d gates take over, want 1", n)
	}
	if err := other.AlertPublished(t.Context(), soft); err != nil {
		t.Fatal(err)
	}
	s.age(t, 24*time.Hour)
	if n := claims(t, soft, s.Ledger, other); n != 0 {
		t.Errorf("%d gates publish it again", n)
	}
}

// age lets the claims be that old.
func (s store) age(t testing.TB, d time.Duration) {
	t.Helper()
	exec(t, s.db, "update ai_alerts set claimed_at = now() - $1::interval", d)
}
