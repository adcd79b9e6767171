package ledger

import (
	"context"
	_ "embed"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
)

// Alert says that a port reached a threshold of one of its limits, at the value that this
// had, in a window. There is one for each, and none where a higher value was reached before.
type Alert struct {
	ID          uuid.UUID // given to it when it is stored
	PortID      string
	Limit       string            // [budget.PortLimit] for the port's own caps
	Counter     budget.CounterRef // 0 for the port's own caps
	Value       string            // of what the limit counts by itself
	Unit        budget.Unit
	Period      budget.Period
	PeriodStart time.Time
	Threshold   string    // [budget.AtSoft], [budget.AtHard], or of alert_at
	Reached     int64     // the threshold's value, in the unit
	Used        int64     // when it was noticed
	NoticedAt   time.Time // by the database's clock
}

// OnWire is the alert as it is told.
func (a *Alert) OnWire() events.Alert {
	out := events.Alert{V: events.Version, ID: a.ID, PortID: a.PortID, Limit: a.Limit, LimitValue: a.Value, Cap: a.Threshold, CapTokens: a.Reached, UsedTokens: a.Used,
		Period: a.Period, PeriodStart: a.PeriodStart, At: a.NoticedAt.UTC()}
	if a.Unit != budget.Tokens {
		out.Unit = a.Unit
	}
	if t, ok := budget.ParseThreshold(a.Threshold); ok {
		out.Cap, out.Threshold = events.AlertAt, &t
	}
	_, out.ResetsAt = a.Period.Bounds(a.PeriodStart)
	return out
}

// AlertLease is how long a gate may take to publish an alert that it claimed. Then it is
// taken for dead, and another one may take the alert over.
const AlertLease = 15 * time.Second

//go:embed sql/claim_alerts.sql
var claimAlertsSQL string

const alertFields = "port_id, counter, limit_name, limit_value, unit, period, period_start, threshold, reached, used, noticed_at, id"

// ClaimAlerts stores alerts and returns those that the caller is to publish: the others
// are stored already, or their port is gone. After publishing them call [Ledger.AlertsPublished].
func (l *Ledger) ClaimAlerts(ctx context.Context, alerts []Alert) (mine []Alert, err error) {
	var ports, limits, values, units, periods, thresholds []string
	var counters, reached, used []int64
	var starts, noticed []time.Time
	ends := make([]*pgtype.Timestamptz, len(alerts))
	for i, a := range alerts {
		ports, counters, limits, values, units = append(ports, a.PortID), append(counters, int64(a.Counter)), append(limits, a.Limit), append(values, a.Value), append(units, string(a.Unit))
		periods, starts, thresholds = append(periods, string(a.Period)), append(starts, a.PeriodStart), append(thresholds, a.Threshold)
		reached, used, noticed = append(reached, a.Reached), append(used, a.Used), append(noticed, a.NoticedAt)
		if a.Counter != 0 {
			_, end := a.Period.Bounds(a.PeriodStart)
			ends[i] = new(pgEnd(end))
		}
	}
	rows, _ := l.pool.Query(ctx, claimAlertsSQL, ports, counters, limits, values, units, periods, starts, ends, thresholds, reached, used, noticed, AlertLease)
	mine, err = pgx.CollectRows(rows, collectAlert)
	return mine, wrap(err, "claim %d alerts", len(alerts))
}

// TakeOverAlerts claims alerts, so many at most, that were claimed before and are still not published
// although their lease is over.
func (l *Ledger) TakeOverAlerts(ctx context.Context, most int) ([]Alert, error) {
	rows, _ := l.pool.Query(ctx, `with abandoned as materialized (
			select id from ai_alerts
			where published_at is null and claimed_until < now() order by claimed_until limit $2 for update skip locked)
		update ai_alerts set claimed_until = now() + $1::interval
		where id in (select id from abandoned)
		returning `+alertFields, AlertLease, most)
	list, err := pgx.CollectRows(rows, collectAlert)
	return list, wrap(err, "take over alerts")
}

func collectAlert(row pgx.CollectableRow) (Alert, error) { return scanAlert(row) }

// scanAlert reads [alertFields], and what follows them into more.
func scanAlert(row pgx.Row, more ...any) (a Alert, err error) {
	err = row.Scan(append([]any{&a.PortID, &a.Counter, &a.Limit, &a.Value, &a.Unit, &a.Period, &a.PeriodStart, &a.Threshold, &a.Reached, &a.Used, &a.NoticedAt, &a.ID}, more...)...)
	return a, err
}

// AlertsPublished ends the claims: the alerts are never published again.
func (l *Ledger) AlertsPublished(ctx context.Context, alerts []Alert) error {
	var ids []uuid.UUID
	for _, a := range alerts {
		ids = append(ids, a.ID)
	}
	_, err := l.pool.Exec(ctx, "update ai_alerts set published_at = now() where id = any($1)", ids)
	return wrap(err, "note %d alerts", len(alerts))
}

// CountersPage is up to so many counters of a limit in one window, in the order of their
// values, those after a value; nil: from the first.
func (l *Ledger) CountersPage(ctx context.Context, port string, counter budget.CounterRef, start time.Time, after *string, most int) ([]Counter, error) {
	rows, _ := l.pool.Query(ctx, `select port_id, counter, value, start, used from ai_limit_counters
		where port_id = $1 and counter = $2 and start = $3 and ($4::text is null or value > $4) order by value limit $5`, port, counter, start, after, most)
	list, err := pgx.CollectRows(rows, scanCounter)
	return list, wrap(err, "read counters of %s", port)
}
