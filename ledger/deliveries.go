package ledger

import (
	"context"
	_ "embed"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

const (
	// DeliverFor is how long deliveries of an alert are attempted.
	DeliverFor     = 24 * time.Hour
	keepDeliveries = 35 * 24 * time.Hour // that have ended
	spreadAtOnce   = 200                 // alerts
)

// SpreadAlerts makes deliveries of up to 200 alerts that have none yet, one to each receiver
// that to names, and returns how many alerts that were. Each is spread once, by whoever
// is first. One that nobody spread within [DeliverFor] is delivered to none.
func (l *Ledger) SpreadAlerts(ctx context.Context, to func(*Alert) []string) (alerts int, err error) {
	err = l.inTx(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `update ai_alerts set spread_at = now() where spread_at is null and noticed_at < now() - $1::interval`, DeliverFor); err != nil {
			return err
		}
		rows, _ := tx.Query(ctx, `select `+alertFields+` from ai_alerts where spread_at is null
			order by noticed_at limit $1 for no key update skip locked`, spreadAtOnce)
		list, err := pgx.CollectRows(rows, collectAlert)
		if err != nil || len(list) == 0 {
			return err
		}
		var all, of []uuid.UUID
		var receivers []string
		for i := range list {
			all = append(all, list[i].ID)
			for _, r := range to(&list[i]) {
				of, receivers = append(of, list[i].ID), append(receivers, r)
			}
		}
		alerts = len(list)
		var send pgx.Batch
		send.Queue(`insert into ai_alert_deliveries (alert, receiver, give_up_at)
			select alert, receiver, now() + $3::interval from unnest($1::uuid[], $2::text[]) d(alert, receiver)`, of, receivers, DeliverFor)
		send.Queue("update ai_alerts set spread_at = now() where id = any($1)", all)
		return tx.SendBatch(ctx, &send).Close()
	})
	return alerts, wrap(err, "spread alerts")
}

// Delivery is an alert on its way to a receiver, claimed for one attempt.
type Delivery struct {
	Alert
	Receiver string
	Attempt  int // 1 is the first
}

//go:embed sql/claim_deliveries.sql
var claimDeliveriesSQL string

// ClaimDeliveries claims up to most deliveries to a receiver that are due. Nobody else attempts
// them for as long as the claim is good; say before what became of them.
func (l *Ledger) ClaimDeliveries(ctx context.Context, receiver string, most int, claim time.Duration) ([]Delivery, error) {
	rows, _ := l.pool.Query(ctx, claimDeliveriesSQL, receiver, most, claim)
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (d Delivery, err error) {
		d.Receiver = receiver
		d.Alert, err = scanAlert(row, &d.Attempt)
		return d, err
	})
	return list, wrap(err, "claim deliveries to %s", receiver)
}

// Delivered notes that the receiver has the alert.
func (l *Ledger) Delivered(ctx context.Context, d *Delivery) error {
	_, err := l.pool.Exec(ctx, `update ai_alert_deliveries set delivered_at = now(), given_up_at = null, last_error = ''
		where alert = $1 and receiver = $2 and delivered_at is null`, d.ID, d.Receiver)
	return wrap(err, "note a delivery to %s", d.Receiver)
}

// NotDelivered notes why an attempt failed, and lets the next one be after pause, unless it
// was the last. It reports whether it was, for that or because the time is over. Of no account where the
// claim ran out and somebody else has attempted it.
func (l *Ledger) NotDelivered(ctx context.Context, d *Delivery, why string, pause time.Duration, last bool) (gaveUp bool, err error) {
	rows, _ := l.pool.Query(ctx, `update ai_alert_deliveries set last_error = $4, next_attempt = now() + $5::interval,
			given_up_at = case when $6 or now() + $5::interval > give_up_at then now() end
		where alert = $1 and receiver = $2 and attempts = $3 and delivered_at is null returning given_up_at is not null`, d.ID, d.Receiver, d.Attempt, why, pause, last)
	ended, err := pgx.CollectRows(rows, pgx.RowTo[bool])
	return len(ended) > 0 && ended[0], wrap(err, "note a delivery to %s that failed", d.Receiver)
}

// GiveUpDeliveries gives up what nobody attempts any more: no process that runs knows the receiver.
func (l *Ledger) GiveUpDeliveries(ctx context.Context) error {
	_, err := l.pool.Exec(ctx, `update ai_alert_deliveries set given_up_at = now(), last_error = coalesce(nullif(last_error, ''), 'no process that has this receiver was running')
		where delivered_at is null and given_up_at is null and give_up_at < now() - interval '1 hour' and next_attempt < now()`)
	return wrap(err, "give up deliveries")
}

// RetryDeliveries lets all that was given up of a receiver be attempted for another [DeliverFor].
func (l *Ledger) RetryDeliveries(ctx context.Context, receiver string) (deliveries int64, err error) {
	tag, err := l.pool.Exec(ctx, `update ai_alert_deliveries set given_up_at = null, next_attempt = now(), give_up_at = now() + $2::interval
		where receiver = $1 and given_up_at is not null`, receiver, DeliverFor)
	return tag.RowsAffected(), wrap(err, "retry deliveries to %s", receiver)
}

// Waiting is what has not reached a receiver.
type Waiting struct {
	Receiver   string
	Deliveries int           // under way
	Oldest     time.Duration // the age of the oldest alert of these
}

// WaitingDeliveries lists the receivers that do not have all their alerts.
func (l *Ledger) WaitingDeliveries(ctx context.Context) ([]Waiting, error) {
	rows, _ := l.pool.Query(ctx, `select d.receiver, count(*), now() - min(a.noticed_at) from ai_alert_deliveries d join ai_alerts a on a.id = d.alert
		where d.delivered_at is null and d.given_up_at is null group by d.receiver`)
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Waiting])
	return list, wrap(err, "count deliveries that wait")
}

// SentAlert is an alert and what became of it at one receiver.
type SentAlert struct {
	Alert
	PublishedAt *time.Time // on NATS
	Receiver    string     // "": it goes to none
	Attempts    int
	NextAttempt *time.Time
	LastError   string // "" where the last attempt succeeded
	DeliveredAt *time.Time
	GivenUpAt   *time.Time
}

//go:embed sql/list_alerts.sql
var listAlertsSQL string

// AlertFilter says which alerts to list: "" and false are all.
type AlertFilter struct {
	PortID string
	Failed bool // only those that some receiver did not take at the last attempt
}

// Alerts lists up to limit alerts, one line for each receiver, the newest first; those after a line, if it is not nil.
func (l *Ledger) Alerts(ctx context.Context, f AlertFilter, after *SentAlert, limit int) ([]SentAlert, error) {
	var at *time.Time
	var last SentAlert
	if after != nil {
		last, at = *after, &after.NoticedAt
	}
	rows, _ := l.reportPool.Query(ctx, listAlertsSQL, f.PortID, f.Failed, at, last.ID, last.Receiver, limit)
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (a SentAlert, err error) {
		a.Alert, err = scanAlert(row, &a.PublishedAt, &a.Receiver, &a.Attempts, &a.NextAttempt, &a.LastError, &a.DeliveredAt, &a.GivenUpAt)
		return a, err
	})
	return list, wrap(err, "list alerts")
}
