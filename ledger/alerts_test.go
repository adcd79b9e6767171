package ledger_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

// unnamed is an alert as it was before it was stored.
func unnamed(a ledger.Alert) ledger.Alert {
	a.ID = uuid.Nil
	return a
}

// claims has 16 gates, of two processes, claim the alert at once, and counts the winners.
func claims(t testing.TB, a ledger.Alert, ledgers ...*ledger.Ledger) int64 {
	t.Helper()
	var mine atomic.Int64
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range 16 {
		wg.Go(func() {
			<-start
			got, err := ledgers[i%len(ledgers)].ClaimAlerts(t.Context(), []ledger.Alert{a})
			if err != nil || len(got) > 0 && unnamed(got[0]) != a {
				t.Errorf("claimed %+v, %v; want %+v", got, err, a)
			}
			mine.Add(int64(len(got)))
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
	soft := ledger.Alert{PortID: "p1", Limit: "port", Unit: "tokens", Period: events.PeriodDay, PeriodStart: start, Threshold: "soft", Reached: 800, Used: 900, NoticedAt: noon}
	if n := claims(t, soft, s.Ledger, other); n != 1 {
		t.Fatalf("%d gates publish the alert, want 1", n)
	}
	if n := claims(t, soft, s.Ledger, other); n != 0 {
		t.Errorf("%d gates claim it again while the first publishes it", n)
	}
	for what, change := range map[string]func(*ledger.Alert){
		"another cap":    func(a *ledger.Alert) { a.Threshold = "hard" },
		"the next day":   func(a *ledger.Alert) { a.PeriodStart = next },
		"another period": func(a *ledger.Alert) { a.Period = events.PeriodWeek },
		"another port":   func(a *ledger.Alert) { a.PortID = "p2" },
		"a higher value": func(a *ledger.Alert) { a.Reached = 1000 },
	} {
		a := soft
		change(&a)
		if n := claims(t, a, s.Ledger, other); n != 1 {
			t.Errorf("%s: %d gates publish it, want 1", what, n)
		}
	}
	// Who was told of a higher value knows.
	for _, tokens := range []int64{0, 799, 800, 999, 1000} {
		a := soft
		a.Reached = tokens
		if n := claims(t, a, s.Ledger, other); n != 0 {
			t.Errorf("%d gates publish that %d is reached, after 1,000", n, tokens)
		}
	}
}

// Gates that start find the same alerts, in any order, and claim them together: each is one
// gate's, and of several values of a cap a lower one after a higher one is nobody's.
func TestAlertsAreClaimedTogether(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	gates := []*ledger.Ledger{s.Ledger, open(t, s.url), open(t, s.url)}
	start, _ := events.PeriodDay.Bounds(noon)
	alert := func(port string, tokens int64) ledger.Alert {
		return ledger.Alert{PortID: port, Limit: "port", Unit: "tokens", Period: events.PeriodDay, PeriodStart: start, Threshold: "hard", Reached: tokens, Used: tokens + 1, NoticedAt: noon}
	}
	var all []ledger.Alert
	for i := range 100 {
		port := fmt.Sprintf("p%02d", i)
		s.set(t, port, events.Budget{Period: events.PeriodDay}, nil)
		all = append(all, alert(port, 800))
	}
	var mu sync.Mutex
	claimed := map[string]int{}
	var wg sync.WaitGroup
	for n := range 12 {
		wg.Go(func() {
			mine := slices.Clone(all)
			rand.Shuffle(len(mine), func(i, j int) { mine[i], mine[j] = mine[j], mine[i] })
			got, err := gates[n%len(gates)].ClaimAlerts(t.Context(), append(mine, alert("nobody", 800)))
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, a := range got {
				claimed[a.PortID]++
			}
		})
	}
	wg.Wait()
	for _, a := range all {
		if claimed[a.PortID] != 1 {
			t.Errorf("%s is claimed by %d gates", a.PortID, claimed[a.PortID])
		}
	}
	if len(claimed) != len(all) {
		t.Errorf("%d ports have alerts, want %d", len(claimed), len(all))
	}
	s.wantNoDeadlocks(t)

	got, err := s.ClaimAlerts(t.Context(), []ledger.Alert{alert("p00", 800), alert("p00", 1000), alert("p00", 900), alert("p01", 900), alert("p01", 1000)})
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		got[i] = unnamed(got[i])
	}
	if want := []ledger.Alert{alert("p00", 1000), alert("p01", 900), alert("p01", 1000)}; !slices.Equal(got, want) {
		t.Errorf("claimed %+v, want %+v", got, want)
	}
}

// takeOvers has 16 gates look for abandoned alerts at once, and counts what they find.
func takeOvers(t testing.TB, want ledger.Alert, ledgers ...*ledger.Ledger) int64 {
	t.Helper()
	var found atomic.Int64
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			list, err := ledgers[i%len(ledgers)].TakeOverAlerts(t.Context(), 2)
			if err != nil || len(list) > 0 && unnamed(list[0]) != want {
				t.Errorf("taken over: %+v, %v; want %+v", list, err, want)
			}
			found.Add(int64(len(list)))
		})
	}
	wg.Wait()
	return found.Load()
}

// The gate that claimed an alert died, or never heard that it did: once its lease is
// over, not before, one other takes it over as it was claimed.
func TestAbandonedAlertsAreTakenOverOnce(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	other := open(t, s.url)
	s.set(t, "p1", events.Budget{Period: events.PeriodDay}, nil)
	start, _ := events.PeriodDay.Bounds(noon)
	a := ledger.Alert{PortID: "p1", Limit: "port", Unit: "tokens", Period: events.PeriodDay, PeriodStart: start, Threshold: "hard", Reached: 800, Used: 900, NoticedAt: noon}
	if n := takeOvers(t, a, s.Ledger, other); n != 0 {
		t.Errorf("%d found before there was one", n)
	}
	if n := claims(t, a, s.Ledger, other); n != 1 {
		t.Fatalf("%d gates publish the alert, want 1", n)
	}
	if left := one[float64](t, s.db, "select extract(epoch from claimed_until - now())::float8 from ai_alerts"); left > ledger.AlertLease.Seconds() || left < ledger.AlertLease.Seconds()-5 {
		t.Errorf("the claim is for %v s more", left)
	}
	for range 2 {
		exec(t, s.db, "update ai_alerts set claimed_until = now() + interval '1 second'")
		if n := takeOvers(t, a, s.Ledger, other); n != 0 {
			t.Errorf("%d gates take over before the lease is over", n)
		}
		exec(t, s.db, "update ai_alerts set claimed_until = now() - interval '1 second'")
		if n := claims(t, a, s.Ledger, other); n != 0 {
			t.Errorf("%d gates claim it anew", n)
		}
		if n := takeOvers(t, a, s.Ledger, other); n != 1 {
			t.Errorf("%d gates take over, want 1", n)
		}
	}
	a.ID = one[uuid.UUID](t, s.db, "select id from ai_alerts where published_at is null")
	if err := other.AlertsPublished(t.Context(), []ledger.Alert{a}); err != nil {
		t.Fatal(err)
	}
	exec(t, s.db, "update ai_alerts set claimed_until = now() - interval '1 day'")
	if n := claims(t, a, s.Ledger, other) + takeOvers(t, a, s.Ledger, other); n != 0 {
		t.Errorf("%d gates publish it again", n)
	}
}

// Several alerts that were abandoned are all found, each once.
func TestEveryAbandonedAlertIsFound(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	start, _ := events.PeriodDay.Bounds(noon)
	want := map[string]bool{}
	for _, port := range []string{"a", "b", "c"} {
		s.set(t, port, events.Budget{Period: events.PeriodDay}, nil)
		a := ledger.Alert{PortID: port, Limit: "port", Unit: "tokens", Period: events.PeriodDay, PeriodStart: start, Threshold: "hard", Reached: 1, Used: 1, NoticedAt: noon}
		if mine, err := s.ClaimAlerts(t.Context(), []ledger.Alert{a}); len(mine) != 1 || err != nil {
			t.Fatal(mine, err)
		}
		want[port] = true
	}
	exec(t, s.db, "update ai_alerts set claimed_until = now() - interval '1 second'")
	for {
		list, err := s.TakeOverAlerts(t.Context(), 2)
		if err != nil || len(list) > 2 {
			t.Fatal(list, err)
		}
		if len(list) == 0 {
			break
		}
		for _, a := range list {
			if !want[a.PortID] {
				t.Fatalf("%s was found twice", a.PortID) // and would be for ever
			}
			delete(want, a.PortID)
		}
	}
	if len(want) > 0 {
		t.Errorf("not found: %v", want)
	}
}
