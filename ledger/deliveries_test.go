package ledger_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

// Processes that deliver share the work: each alert is spread once and each delivery is one
// process's, until its claim runs out. What they note late is of no account.
func TestDeliveriesAreShared(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	ledgers := []*ledger.Ledger{s.Ledger, open(t, s.url)}
	start, _ := events.PeriodMonth.Bounds(time.Now())
	var alerts []ledger.Alert
	for i := range 250 {
		port := fmt.Sprintf("p%03d", i)
		s.set(t, port, events.Budget{Period: events.PeriodMonth}, nil)
		alerts = append(alerts, ledger.Alert{PortID: port, Limit: "port", Unit: "tokens", Period: events.PeriodMonth, PeriodStart: start, Threshold: "hard", Reached: 8, Used: 9, NoticedAt: time.Now()})
	}
	alerts[249].NoticedAt = time.Now().Add(-25 * time.Hour) // nobody spread it for a day
	if _, err := s.ClaimAlerts(t.Context(), alerts); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	spread, claimed := 0, map[uuid.UUID]int{}
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for {
				n, err := ledgers[i%2].SpreadAlerts(t.Context(), func(a *ledger.Alert) []string {
					if a.PortID == "p000" {
						return nil
					}
					return []string{"pager"}
				})
				mu.Lock()
				spread += n
				done := err != nil || spread >= 249
				mu.Unlock()
				if err != nil {
					t.Error(err)
				}
				if done {
					break
				}
			}
			for {
				list, err := ledgers[i%2].ClaimDeliveries(t.Context(), "pager", 10, time.Hour)
				if err != nil || len(list) == 0 {
					if err != nil {
						t.Error(err)
					}
					return
				}
				mu.Lock()
				for _, d := range list {
					claimed[d.ID]++
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	for id, n := range claimed {
		if n != 1 {
			t.Errorf("%s was claimed %d times", id, n)
		}
	}
	if spread != 249 || len(claimed) != 248 {
		t.Errorf("%d alerts were spread and %d deliveries claimed, want 249 and 248", spread, len(claimed))
	}
	s.wantNoDeadlocks(t)

	// Claims run out; whoever was late with a failure does not undo what another one did.
	exec(t, s.db, "delete from ai_alert_deliveries where alert <> (select id from ai_alerts where port_id = 'p007')")
	claim := func(attempt int) ledger.Delivery {
		t.Helper()
		exec(t, s.db, "update ai_alert_deliveries set next_attempt = now()")
		list, err := ledgers[attempt%2].ClaimDeliveries(t.Context(), "pager", 10, time.Hour)
		if err != nil || len(list) != 1 || list[0].Attempt != attempt || list[0].PortID != "p007" || list[0].Used != 9 {
			t.Fatalf("claimed %+v, %v, want attempt %d", list, err, attempt)
		}
		return list[0]
	}
	late, now := claim(2), claim(3)
	fails := func(d ledger.Delivery, pause time.Duration, want bool) {
		t.Helper()
		if gaveUp, err := s.NotDelivered(t.Context(), &d, "it is closed", pause, want && pause == 0); err != nil || gaveUp != want {
			t.Errorf("given up: %t, %v; want %t", gaveUp, err, want)
		}
	}
	line := func() ledger.SentAlert {
		t.Helper()
		list, err := s.Alerts(t.Context(), ledger.AlertFilter{PortID: "p007"}, nil, 10)
		if err != nil || len(list) != 1 {
			t.Fatalf("%+v, %v", list, err)
		}
		return list[0]
	}
	fails(late, time.Minute, false)
	if got := line(); got.LastError != "" || got.GivenUpAt != nil || got.Attempts != 3 {
		t.Errorf("an attempt whose claim ran out was noted: %+v", got)
	}
	fails(now, time.Minute, false)
	if got := line(); got.LastError != "it is closed" || time.Until(*got.NextAttempt) < 50*time.Second {
		t.Errorf("%+v", got)
	}
	if waiting, err := s.WaitingDeliveries(t.Context()); err != nil || len(waiting) != 1 || waiting[0].Receiver != "pager" || waiting[0].Deliveries != 1 || waiting[0].Oldest > time.Minute {
		t.Errorf("%+v, %v", waiting, err)
	}
	fails(claim(4), 25*time.Hour, true) // the day is over by then
	if n, err := s.RetryDeliveries(t.Context(), "pager"); n != 1 || err != nil {
		t.Errorf("%d dead letters are tried again, %v; want 1", n, err)
	}
	fails(claim(5), 0, true)
	failed, err := s.Alerts(t.Context(), ledger.AlertFilter{Failed: true}, nil, 10)
	if err != nil || len(failed) != 1 || failed[0].GivenUpAt == nil {
		t.Errorf("dead letters %+v, %v", failed, err)
	}
	if err := s.Delivered(t.Context(), &late); err != nil { // it had arrived after all
		t.Fatal(err)
	}
	if got := line(); got.DeliveredAt == nil || got.GivenUpAt != nil || got.LastError != "" {
		t.Errorf("%+v", got)
	}

	// A receiver that is in no file any more.
	exec(t, s.db, "update ai_alert_deliveries set delivered_at = null, next_attempt = now() - interval '1 hour', give_up_at = now() - interval '2 hours'")
	if err := s.GiveUpDeliveries(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := line(); got.GivenUpAt == nil || got.LastError == "" {
		t.Errorf("nobody knows the receiver, and it is not given up: %+v", got)
	}
	// Pages, the newest first.
	var all []ledger.SentAlert
	for after := (*ledger.SentAlert)(nil); ; after = &all[len(all)-1] {
		page, err := s.Alerts(t.Context(), ledger.AlertFilter{}, after, 100)
		if err != nil {
			t.Fatal(err)
		}
		if all = append(all, page...); len(page) < 100 {
			break
		}
	}
	if len(all) != 250 || all[249].PortID != "p249" {
		t.Errorf("%d lines, want 250, that of p249 last", len(all))
	}
}
