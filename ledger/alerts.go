package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/events"
)

// Alert says that a port reached one of its caps, at the value that this had, in a
// period. There is one for each, and none where a higher value was reached before.
type Alert struct {
	PortID      string
	Period      events.Period
	PeriodStart time.Time
	Cap         string // "soft" or "hard"
	CapTokens   int64
	UsedTokens  int64     // when it was noticed
	NoticedAt   time.Time // by the database's clock
}

// AlertLease is how long a gate may take to publish an alert that it claimed. Then it is
// taken for dead, and another one may take the alert over.
const AlertLease = 15 * time.Second

// ClaimAlert stores an alert and reports whether the caller is the one to publish it:
// the others find it stored already. After publishing call [Ledger.AlertPublished].
func (l *Ledger) ClaimAlert(ctx context.Context, a Alert) (mine bool, err error) {
	tag, err := l.pool.Exec(ctx, `insert into ai_alerts (port_id, period, period_start, cap, cap_tokens, used_tokens, noticed_at, claimed_until)
		select $1, $2, $3, $4, $5, $6, $7, now() + $8::interval where not exists (select from ai_alerts
			where port_id = $1 and period = $2 and period_start = $3 and cap = $4 and cap_tokens >= $5)
		on conflict do nothing`, a.PortID, a.Period, a.PeriodStart, a.Cap, a.CapTokens, a.UsedTokens, a.NoticedAt, AlertLease)
	if err != nil {
		return false, fmt.Errorf("ledger: claim the %s cap alert of %s: %w", a.Cap, a.PortID, err)
	}
	return tag.RowsAffected() == 1, nil
}

// TakeOverAlert claims one alert that was claimed before and is still not published
// although its lease is over. ok is false when there is none.
func (l *Ledger) TakeOverAlert(ctx context.Context) (a Alert, ok bool, err error) {
	err = l.pool.QueryRow(ctx, `with abandoned as materialized (
			select port_id, period, period_start, cap, cap_tokens from ai_alerts
			where published_at is null and claimed_until < now() order by claimed_until limit 1 for update skip locked)
		update ai_alerts a set claimed_until = now() + $1::interval from abandoned b
		where (a.port_id, a.period, a.period_start, a.cap, a.cap_tokens) = (b.port_id, b.period, b.period_start, b.cap, b.cap_tokens)
		returning a.port_id, a.period, a.period_start, a.cap, a.cap_tokens, a.used_tokens, a.noticed_at`, AlertLease).
		Scan(&a.PortID, &a.Period, &a.PeriodStart, &a.Cap, &a.CapTokens, &a.UsedTokens, &a.NoticedAt)
	if errors.Is(err, pgx.ErrNoRows) {
		return a, false, nil
	}
	if err != nil {
		return a, false, fmt.Errorf("ledger: take over an alert: %w", err)
	}
	a.PeriodStart, a.NoticedAt = a.PeriodStart.UTC(), a.NoticedAt.UTC()
	return a, true, nil
}

// AlertPublished ends the claim: the alert is never published again.
func (l *Ledger) AlertPublished(ctx context.Context, a Alert) error {
	_, err := l.pool.Exec(ctx, `update ai_alerts set published_at = now()
		where port_id = $1 and period = $2 and period_start = $3 and cap = $4 and cap_tokens = $5`, a.PortID, a.Period, a.PeriodStart, a.Cap, a.CapTokens)
	if err != nil {
		return fmt.Errorf("ledger: note the %s cap alert of %s: %w", a.Cap, a.PortID, err)
	}
	return nil
}
