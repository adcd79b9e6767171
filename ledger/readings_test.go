package ledger_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

// The error of a query comes out where its rows are read: no reading takes one that Postgres refuses for
// one without rows.
func TestReadings_FailWhereTheQueryDoes(t *testing.T) {
	s := newStore(t)
	fresh := open(t, s.url) // it has prepared nothing yet
	now := time.Now()
	day := now.Truncate(24 * time.Hour)
	hard := int64(1)
	limits := []budget.Limit{{Name: "all", Window: budget.Day, Hard: &hard, Counter: 1}}
	readings := map[string]func(context.Context, *ledger.Ledger) error{
		"Alerts": func(ctx context.Context, l *ledger.Ledger) error {
			_, err := l.Alerts(ctx, ledger.AlertFilter{}, nil, 1)
			return err
		},
		"Audit":       func(ctx context.Context, l *ledger.Ledger) error { _, err := l.Audit(ctx, "p1", 0, 1); return err },
		"Budget":      func(ctx context.Context, l *ledger.Ledger) error { _, err := l.Budget(ctx, "p1"); return err },
		"ClaimAlerts": func(ctx context.Context, l *ledger.Ledger) error { _, err := l.ClaimAlerts(ctx, nil); return err },
		"ClaimDeliveries": func(ctx context.Context, l *ledger.Ledger) error {
			_, err := l.ClaimDeliveries(ctx, "r", 1, time.Second)
			return err
		},
		"Counters": func(ctx context.Context, l *ledger.Ledger) error {
			return l.Counters(ctx, "p1", limits, func(ledger.Counter) {})
		},
		"CountersPage": func(ctx context.Context, l *ledger.Ledger) error {
			_, err := l.CountersPage(ctx, "p1", 1, day, nil, 1)
			return err
		},
		"DailyTokens": func(ctx context.Context, l *ledger.Ledger) error {
			_, err := l.DailyTokens(ctx, []string{"p1"}, 1, now)
			return err
		},
		"EraseUser": func(ctx context.Context, l *ledger.Ledger) error { _, err := l.EraseUser(ctx, "u1"); return err },
		"FindPorts": func(ctx context.Context, l *ledger.Ledger) error {
			_, _, err := l.FindPorts(ctx, ledger.PortQuery{Limit: 1})
			return err
		},
		"Fullest": func(ctx context.Context, l *ledger.Ledger) error {
			_, err := l.Fullest(ctx, "p1", limits, 1, now)
			return err
		},
		"LiveHolds": func(ctx context.Context, l *ledger.Ledger) error {
			_, err := l.LiveHolds(ctx, "p1", nil, 1)
			return err
		},
		"Maintain":     func(ctx context.Context, l *ledger.Ledger) error { return l.Maintain(ctx, now) },
		"Marks":        func(ctx context.Context, l *ledger.Ledger) error { _, err := l.Marks(ctx, uuid.New(), 1); return err },
		"NewestAlerts": func(ctx context.Context, l *ledger.Ledger) error { _, err := l.NewestAlerts(ctx, nil, 1); return err },
		"NotDelivered": func(ctx context.Context, l *ledger.Ledger) error {
			_, err := l.NotDelivered(ctx, &ledger.Delivery{}, "", 0, false)
			return err
		},
		"PortNames": func(ctx context.Context, l *ledger.Ledger) error {
			_, err := l.PortNames(ctx, []string{"p1"})
			return err
		},
		"Ports": func(ctx context.Context, l *ledger.Ledger) error {
			_, err := l.Ports(ctx, ledger.PortQuery{Limit: 1}, now)
			return err
		},
		"Refusals": func(ctx context.Context, l *ledger.Ledger) error {
			_, _, err := l.Refusals(ctx, nil, 1, now)
			return err
		},
		"Series": func(ctx context.Context, l *ledger.Ledger) error {
			_, err := l.Series(ctx, ledger.SeriesQuery{PortID: "p1", By: events.ByModel, Step: budget.Day, Start: day, End: day.AddDate(0, 0, 1), Top: 1})
			return err
		},
		"Shares": func(ctx context.Context, l *ledger.Ledger) error {
			_, err := l.Shares(ctx, events.ReportRequest{PortID: "p1", By: events.ByModel}, day, day.AddDate(0, 0, 1))
			return err
		},
		"Shares by user": func(ctx context.Context, l *ledger.Ledger) error {
			_, err := l.Shares(ctx, events.ReportRequest{PortID: "p1", By: events.ByUser}, day, day.AddDate(0, 0, 1))
			return err
		},
		"Simulate": func(ctx context.Context, l *ledger.Ledger) error {
			_, err := l.Simulate(ctx, "p1", budget.Budget{Enabled: true, HardCapTokens: &hard, Period: budget.Day}, day, day.AddDate(0, 0, 1))
			return err
		},
		"SimulateLimit": func(ctx context.Context, l *ledger.Ledger) error {
			_, err := l.SimulateLimit(ctx, "p1", &limits[0], day, day.AddDate(0, 0, 1))
			return err
		},
		"Snapshot": func(ctx context.Context, l *ledger.Ledger) error {
			_, err := l.Snapshot(ctx, 0, func(ledger.Counter) {}, func(string, budget.Budget) {}, func([]ledger.PortDay) {})
			return err
		},
		"SpendOfAll": func(ctx context.Context, l *ledger.Ledger) error {
			_, err := l.SpendOfAll(ctx, nil, 1, now)
			return err
		},
		"SpreadAlerts": func(ctx context.Context, l *ledger.Ledger) error {
			_, err := l.SpreadAlerts(ctx, func(*ledger.Alert) []string { return nil })
			return err
		},
		"Standings": func(ctx context.Context, l *ledger.Ledger) error { _, err := l.Standings(ctx, nil, now); return err },
		"TopUsers": func(ctx context.Context, l *ledger.Ledger) error {
			_, err := l.TopUsers(ctx, []ledger.PortTokens{{PortID: "p1", Tokens: 1}}, day, day.AddDate(0, 0, 1), 1, 1, time.Second)
			return err
		},
		"UnsettledHolds": func(ctx context.Context, l *ledger.Ledger) error {
			_, err := l.UnsettledHolds(ctx, "p1", ledger.UnsettledGroup{}, 1)
			return err
		},
		"UsedByPorts": func(ctx context.Context, l *ledger.Ledger) error {
			return l.UsedByPorts(ctx, day, day.AddDate(0, 0, 1), 1, func([]ledger.PortTokens) error { return nil })
		},
		"UsedOf": func(ctx context.Context, l *ledger.Ledger) error {
			_, err := l.UsedOf(ctx, []string{"p1"}, day, day.AddDate(0, 0, 1))
			return err
		},
		"Verify":            func(ctx context.Context, l *ledger.Ledger) error { _, err := l.Verify(ctx, now, nil); return err },
		"WaitingDeliveries": func(ctx context.Context, l *ledger.Ledger) error { _, err := l.WaitingDeliveries(ctx); return err },
	}
	for name, read := range readings {
		if err := read(t.Context(), s.Ledger); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	exec(t, s.db, "drop schema public cascade")
	for name, read := range readings {
		if err := read(t.Context(), fresh); err == nil {
			t.Errorf("%s: no error without a schema", name)
		}
	}
}
