package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/events"
)

// Alert names one crossing of one cap: it happens once per port and period.
type Alert struct {
	PortID      string
	Period      events.Period
	PeriodStart time.Time
	Cap         string // "soft" or "hard"
}

// alertLease is how long a gate may take to publish an alert that it claimed
// before another one takes over: it may have died.
const alertLease = 15 * time.Second

// ClaimAlert reports whether the caller is the one to publish the alert: nobody
// has, and nobody else is about to. After publishing call [Ledger.AlertPublished].
func (l *Ledger) ClaimAlert(ctx context.Context, a Alert) (mine bool, err error) {
	err = l.pool.QueryRow(ctx, `insert into ai_alerts as a (port_id, period, period_start, cap) values ($1, $2, $3, $4)
		on conflict (port_id, period, period_start, cap) do update set claimed_at = now()
		where a.published_at is null and a.claimed_at < now() - $5::interval
		returning true`, a.PortID, a.Period, a.PeriodStart, a.Cap, alertLease).Scan(&mine)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ledger: claim the %s cap alert of %s: %w", a.Cap, a.PortID, err)
	}
	return mine, nil
}

// AlertPublished ends the claim: the alert is never published again.
func (l *Ledger) AlertPublished(ctx context.Context, a Alert) error {
	_, err := l.pool.Exec(ctx, `update ai_alerts set published_at = now()
		where port_id = $1 and period = $2 and period_start = $3 and cap = $4`, a.PortID, a.Period, a.PeriodStart, a.Cap)
	if err != nil {
		return fmt.Errorf("ledger: note the %s cap alert of %s: %w", a.Cap, a.PortID, err)
	}
	return nil
}
