package ledger

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
)

func monthOf(t time.Time) time.Time {
	y, m, _ := t.UTC().Date()
	return time.Date(y, m, 1, 0, 0, 0, 0, time.UTC)
}

func partitionName(month time.Time) string {
	return "ai_usage_ledger_" + month.Format("2006_01")
}

// Maintain creates the partitions of this and the next two months and drops
// those that hold only what is older than the retention, unless somebody reads
// the ledger at that moment for longer than a second: then the next call does.
// It also keeps days by user and by run where reports are asked for.
// It is idempotent; run it at start and every few hours. Dropped rows stay in the totals.
func (l *Ledger) Maintain(ctx context.Context, now time.Time) error {
	month := monthOf(now)
	if err := l.ensurePartitions(ctx, month, month.AddDate(0, 1, 0), month.AddDate(0, 2, 0)); err != nil {
		return err
	}
	if err := l.dropOldPartitions(ctx, l.Oldest(now)); err != nil {
		return err
	}
	if err := l.dropCounters(ctx); err != nil {
		return err
	}
	return l.keepAsked(ctx, now)
}

// dropCounters drops counters, and alerts, of windows in which no booking counts any more, by
// the database's clock, as bookings go, counters of limits that there are no more, and refusals that nobody is shown any more.
func (l *Ledger) dropCounters(ctx context.Context) error {
	_, err := l.pool.Exec(ctx, `delete from ai_limit_counters c where ends < now() - $1::interval
		or not exists (select from ai_limited_ports p where p.port_id in (c.port_id, $2) and p.limits @> jsonb_build_array(jsonb_build_object('counter', c.counter)))`, 2*countLate, budget.DefaultPort)
	if err == nil { // alerts of these windows have all been sent, but for those that some receiver does not take
		_, err = l.pool.Exec(ctx, `delete from ai_alerts a where ends < now() - $1::interval and not exists (select from ai_alert_deliveries d
			where d.alert = a.id and d.delivered_at is null and a.noticed_at > now() - $2::interval)`, 2*countLate, keepDeliveries)
	}
	if err == nil {
		_, err = l.pool.Exec(ctx, "delete from ai_alert_deliveries where (delivered_at is not null or given_up_at is not null) and next_attempt < now() - $1::interval", keepDeliveries)
	}
	if err == nil {
		_, err = l.pool.Exec(ctx, "delete from ai_refusals where day < (now() at time zone 'UTC')::date - 31")
	}
	return wrap(err, "drop counters and refusals")
}

func (l *Ledger) ensurePartitions(ctx context.Context, months ...time.Time) error {
	err := l.inTx(ctx, func(tx pgx.Tx) error {
		have, err := listPartitions(ctx, tx)
		if err != nil {
			return err
		}
		if err := l.learnDropped(ctx, tx); err != nil {
			return err
		}
		for _, month := range months {
			if slices.Contains(have, month) || month.Before(l.droppedBefore()) {
				continue
			}
			// Created aside and attached, since attaching lets bookings go on.
			name := pgx.Identifier{partitionName(month)}.Sanitize()
			from, to := month.Format("2006-01-02 15:04:05Z07:00"), month.AddDate(0, 1, 0).Format("2006-01-02 15:04:05Z07:00")
			if _, err := tx.Exec(ctx, "create table "+name+" (like ai_usage_ledger including defaults including constraints)"); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, fmt.Sprintf("alter table ai_usage_ledger attach partition %s for values from ('%s') to ('%s')", name, from, to)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return wrap(err, "create partitions")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, month := range months {
		if !month.Before(l.dropped) {
			l.partitions[month] = struct{}{}
		}
	}
	return nil
}

func (l *Ledger) dropOldPartitions(ctx context.Context, oldest time.Time) error {
	var dropped []time.Time
	err := l.inTx(ctx, func(tx pgx.Tx) error {
		have, err := listPartitions(ctx, tx)
		if err != nil {
			return err
		}
		// A drop waits for whoever reads the ledger, a backup say, and every booking
		// waits behind the drop.
		if _, err := tx.Exec(ctx, "set local lock_timeout = '1s'"); err != nil {
			return err
		}
		for _, month := range have {
			if !month.Before(oldest) {
				continue
			}
			if _, err := tx.Exec(ctx, "drop table "+pgx.Identifier{partitionName(month)}.Sanitize()); err != nil {
				return err
			}
			dropped = append(dropped, month)
		}
		if len(dropped) == 0 {
			return nil
		}
		after := slices.MaxFunc(dropped, time.Time.Compare).AddDate(0, 1, 0)
		var send pgx.Batch
		send.Queue("update ai_ledger set dropped_before = greatest(dropped_before, $1::date)", after)
		send.Queue("delete from ai_usage_day_shares where day < $1", after)
		if err := tx.SendBatch(ctx, &send).Close(); err != nil {
			return err
		}
		return l.learnDropped(ctx, tx)
	})
	if sqlState(err) == codeLockNotAvailable {
		l.log.Warn("somebody reads the ledger: months beyond the retention stay until the next maintenance")
		return nil
	}
	if err != nil {
		return wrap(err, "drop partitions")
	}
	if len(dropped) > 0 {
		l.forget()
		l.log.Info("dropped ledger months beyond the retention", "months", dropped, "retention_months", l.cfg.RetentionMonths)
	}
	return nil
}

// learnDropped reads which months were dropped. Their ids went with them, so that an
// event of theirs could be booked a second time: none may be, even if the retention is
// raised later.
func (l *Ledger) learnDropped(ctx context.Context, db interface {
	QueryRow(context.Context, string, ...any) pgx.Row
}) error {
	var before *time.Time
	if err := db.QueryRow(ctx, "select dropped_before from ai_ledger").Scan(&before); err != nil || before == nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropped = *before
	return nil
}

// droppedBefore is the first month that was not dropped, zero if none was.
func (l *Ledger) droppedBefore() time.Time {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.dropped
}

// listPartitions returns the months that have a partition, having locked out
// every other process that would change them. The lock is a statement of its own.
func listPartitions(ctx context.Context, tx pgx.Tx) ([]time.Time, error) {
	if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock($1)", partitionLock); err != nil {
		return nil, err
	}
	rows, _ := tx.Query(ctx, `select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
		where i.inhparent = 'ai_usage_ledger'::regclass`)
	var months []time.Time
	var name string
	_, err := pgx.ForEachRow(rows, []any{&name}, func() error {
		if month, err := time.Parse("ai_usage_ledger_2006_01", name); err == nil {
			months = append(months, month)
		}
		return nil
	})
	return months, err
}
