package ledger_test

import (
	"fmt"
	"testing"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/ledger"
)

// Of a limit each value, threshold and window alerts once, at each value of the threshold that
// is higher than those before; so does each limit, and each count that it has had.
func TestAlertsOfLimitsAreClaimedOnce(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	other := open(t, s.url)
	s.limited(t, "p1")
	start, next := budget.Hour.Bounds(noon)
	first := ledger.Alert{PortID: "p1", Limit: "each-user", Counter: 7, Value: "ada", Unit: budget.Weighted, Period: budget.Hour, PeriodStart: start,
		Threshold: "50%", Reached: 800, Used: 900, NoticedAt: noon}
	if n := claims(t, first, s.Ledger, other); n != 1 {
		t.Fatalf("%d gates publish the alert, want 1", n)
	}
	for what, change := range map[string]func(*ledger.Alert){
		"another value":     func(a *ledger.Alert) { a.Value = "bob" },
		"another limit":     func(a *ledger.Alert) { a.Limit = "other" },
		"another count":     func(a *ledger.Alert) { a.Counter = 8 },
		"another threshold": func(a *ledger.Alert) { a.Threshold = "60%" },
		"a lower number":    func(a *ledger.Alert) { a.Threshold, a.Reached = "700", 700 },
		"the next hour":     func(a *ledger.Alert) { a.PeriodStart = next },
		"the port's own cap": func(a *ledger.Alert) {
			*a = ledger.Alert{PortID: "p1", Limit: "port", Unit: "tokens", Period: "day", PeriodStart: start, Threshold: "hard", Reached: 8, Used: 8, NoticedAt: noon}
		},
		"the same, of a higher value": func(a *ledger.Alert) { a.Reached = 1000 },
		"a limit without end":         func(a *ledger.Alert) { a.Period, a.Counter = budget.Total, 9 },
	} {
		a := first
		change(&a)
		if n := claims(t, a, s.Ledger, other); n != 1 {
			t.Errorf("%s: %d gates publish it, want 1", what, n)
		}
	}
	for _, reached := range []int64{799, 800, 900} {
		a := first
		a.Reached = reached
		if n := claims(t, a, s.Ledger, other); n != 0 {
			t.Errorf("%d gates publish that %d is reached, after 1,000", n, reached)
		}
	}
	exec(t, s.db, "update ai_alerts set claimed_until = now() - interval '1 second'")
	taken := 0
	for {
		list, err := s.TakeOverAlerts(t.Context(), 3)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			break
		}
		taken += len(list)
		if err := other.AlertsPublished(t.Context(), list); err != nil {
			t.Fatal(err)
		}
	}
	if left := one[int](t, s.db, "select count(*)::int from ai_alerts where published_at is null"); taken != 10 || left != 0 {
		t.Errorf("%d are taken over, want 10, and %d are left", taken, left)
	}
}

// Alerts of limits are kept as long as the counters of their windows: those of a port's own
// caps, and of windows without end, for good; what a receiver did not take, for 35 days. A user who
// is erased is in none.
func TestAlertsOfLimitsAreForgotten(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.limited(t, "p1")
	now := one[string](t, s.db, "select now()::text")
	var alerts []ledger.Alert
	for i, window := range []budget.Period{budget.Hour, budget.Total} {
		for _, user := range []string{"ada", "bob"} {
			start, _ := window.Bounds(noon)
			alerts = append(alerts, ledger.Alert{PortID: "p1", Limit: "each-user", Counter: budget.CounterRef(i + 1), Value: user, Unit: "tokens", Period: window, PeriodStart: start,
				Threshold: "hard", Reached: 10, Used: 10, NoticedAt: noon})
		}
	}
	start, _ := budget.Day.Bounds(noon)
	alerts = append(alerts, ledger.Alert{PortID: "p1", Limit: "port", Unit: "tokens", Period: budget.Day, PeriodStart: start, Threshold: "hard", Reached: 10, Used: 10, NoticedAt: noon})
	if mine, err := s.ClaimAlerts(t.Context(), alerts); err != nil || len(mine) != 5 {
		t.Fatal(mine, err)
	}
	left := func() string {
		return one[string](t, s.db, "select string_agg(concat_ws(' ', limit_name, limit_value, period), ', ' order by limit_name, limit_value, period) from ai_alerts")
	}
	exec(t, s.db, fmt.Sprintf("update ai_alerts set ends = '%s'::timestamptz - interval '47 hours' where period = 'hour'", now))
	exec(t, s.db, `insert into ai_alert_deliveries (alert, receiver, next_attempt, give_up_at, given_up_at, delivered_at)
		select id, 'pager', now(), now(), case when limit_value = 'bob' then now() end, case when limit_value <> 'bob' then now() end from ai_alerts`)
	exec(t, s.db, "update ai_alerts set noticed_at = now()")
	for i, want := range []string{"each-user ada hour, each-user ada total, each-user bob hour, each-user bob total, port  day", "each-user ada total, each-user bob hour, each-user bob total, port  day",
		"each-user ada total, each-user bob total, port  day"} {
		if i == 2 {
			exec(t, s.db, "update ai_alerts set noticed_at = now() - interval '36 days'")
			exec(t, s.db, "update ai_alert_deliveries set next_attempt = now() - interval '36 days' where given_up_at is not null")
		}
		if err := s.Maintain(t.Context(), noon); err != nil {
			t.Fatal(err)
		}
		if got := left(); got != want {
			t.Errorf("left: %s\nwant: %s", got, want)
		}
		exec(t, s.db, "update ai_alerts set ends = ends - interval '2 hours'")
	}
	if n := one[int](t, s.db, "select count(*)::int from ai_alert_deliveries"); n != 2 {
		t.Errorf("%d deliveries are left, want those that ended in the last 35 days: ada's of the total and the port's", n)
	}
	if _, err := s.EraseUser(t.Context(), "ada"); err != nil {
		t.Fatal(err)
	}
	if n := one[int](t, s.db, "select count(*)::int from ai_alert_deliveries"); n != 1 {
		t.Errorf("%d deliveries are left once ada is erased, want the port's", n)
	}
	if got, want := left(), "each-user bob total, port  day"; got != want {
		t.Errorf("once ada is erased: %s\nwant: %s", got, want)
	}
}
