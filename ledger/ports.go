package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/events"
)

// Port is a tenant with what it has spent.
type Port struct {
	PortID      string        `json:"port_id"`
	Name        string        `json:"name"`
	CreatedAt   time.Time     `json:"created_at"`
	Budget      events.Budget `json:"budget"`
	UsedTokens  int64         `json:"used_tokens"`  // in the current period
	TotalTokens int64         `json:"total_tokens"` // of all time
	Requests    int64         `json:"requests"`     // of all time
}

// Ports lists at most limit ports in the order of their ids, those after the
// given one ("" for the first).
func (l *Ledger) Ports(ctx context.Context, after string, limit int, now time.Time) ([]Port, error) {
	day, dayEnd := events.PeriodDay.Bounds(now)
	week, weekEnd := events.PeriodWeek.Bounds(now)
	month, monthEnd := events.PeriodMonth.Bounds(now)
	rows, err := l.pool.Query(ctx, listPortsSQL, after, limit, BudgetKey, day, dayEnd, week, weekEnd, month, monthEnd)
	if err != nil {
		return nil, fmt.Errorf("ledger: list ports: %w", err)
	}
	ports, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Port, error) {
		var p Port
		var value []byte
		err := row.Scan(&p.PortID, &p.Name, &p.CreatedAt, &value, &p.Budget.Version, &p.Budget.UpdatedAt, &p.Budget.UpdatedBy,
			&p.UsedTokens, &p.TotalTokens, &p.Requests)
		if err != nil {
			return Port{}, err
		}
		p.CreatedAt = p.CreatedAt.UTC()
		if p.Budget.Version == 0 {
			p.Budget = noBudget()
			return p, nil
		}
		var s storedBudget
		err = json.Unmarshal(value, &s)
		p.Budget.Enabled, p.Budget.SoftCapTokens, p.Budget.HardCapTokens, p.Budget.Period = s.Enabled, s.SoftCapTokens, s.HardCapTokens, s.Period
		p.Budget.UpdatedAt = p.Budget.UpdatedAt.UTC()
		return p, err
	})
	if err != nil {
		return nil, fmt.Errorf("ledger: list ports: %w", err)
	}
	return ports, nil
}

const listPortsSQL = `
with page as (select * from ports where id > $1 order by id limit $2)
select p.id, p.name, p.created_at, s.value, coalesce(s.version, 0), coalesce(s.updated_at, p.created_at), coalesce(s.updated_by, ''),
    coalesce(sum(d.total_tokens) filter (where d.day >= (b.start at time zone 'UTC')::date and d.day < (b.finish at time zone 'UTC')::date), 0)::bigint,
    coalesce(sum(d.total_tokens), 0)::bigint, coalesce(sum(d.requests), 0)::bigint
from page p
left join system_settings s on s.port_id = p.id and s.key = $3
cross join lateral (select
    case s.value->>'period' when 'day' then $4::timestamptz when 'week' then $6 else $8 end as start,
    case s.value->>'period' when 'day' then $5::timestamptz when 'week' then $7 else $9 end as finish) b
left join ai_usage_port_days d on d.port_id = p.id
group by p.id, p.name, p.created_at, s.value, s.version, s.updated_at, s.updated_by
order by p.id`

// ErrUnknownPort: there is no such port.
var ErrUnknownPort = errors.New("there is no such port")

// DeletePort removes the port with its ledger rows, totals and settings, leaves
// an audit row and returns how many ledger rows went. Events of the port that
// are still in the stream register it again.
func (l *Ledger) DeletePort(ctx context.Context, port, by string) (rows int64, err error) {
	for attempt := 1; ; attempt++ {
		rows, err = l.deletePort(ctx, port, by)
		// A booking that has the port's totals and wants the port itself cannot
		// wait for a deletion that wants it the other way round.
		if sqlState(err) != codeDeadlock || attempt == 4 {
			break
		}
	}
	l.forget()
	if errors.Is(err, ErrUnknownPort) {
		return 0, err
	}
	if err != nil {
		return 0, fmt.Errorf("ledger: delete port %s: %w", port, err)
	}
	return rows, nil
}

func (l *Ledger) deletePort(ctx context.Context, port, by string) (rows int64, err error) {
	err = l.inTx(ctx, func(tx pgx.Tx) error {
		old, err := lockExisting(ctx, tx, port)
		if err != nil {
			return err
		}
		// Waits for the last bookings of the port; then no row can come any more.
		if _, err := tx.Exec(ctx, "delete from ai_usage_totals where port_id = $1", port); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, "delete from ai_usage_ledger where port_id = $1", port)
		if err != nil {
			return err
		}
		rows = tag.RowsAffected()
		if _, err := tx.Exec(ctx, "delete from ports where id = $1", port); err != nil {
			return err
		}
		return audit(ctx, tx, port, "port.deleted", old.version, old.value, nil, by)
	})
	return rows, err
}

func lockExisting(ctx context.Context, tx pgx.Tx, port string) (setting, error) {
	var s setting
	err := tx.QueryRow(ctx, "select 1 from ports where id = $1 for update", port).Scan(new(int))
	if errors.Is(err, pgx.ErrNoRows) {
		return s, ErrUnknownPort
	}
	if err != nil {
		return s, err
	}
	err = tx.QueryRow(ctx, "select value, version from system_settings where port_id = $1 and key = $2", port, BudgetKey).Scan(&s.value, &s.version)
	if errors.Is(err, pgx.ErrNoRows) {
		return s, nil
	}
	return s, err
}

// EraseUser removes the user from every ledger row, and from every event of
// theirs that comes later. It returns how many rows it changed. Totals keep the
// tokens. Calling it again is harmless.
func (l *Ledger) EraseUser(ctx context.Context, user string) (rows int64, err error) {
	if user == "" {
		return 0, &events.FieldError{Reason: events.ReasonInvalidField, Field: "user_id", Value: `""`, Rule: "is required"}
	}
	hash := sha256.Sum256([]byte(user))
	// First make it known: once this commits no booking writes the user any more,
	// and those that did have committed, so the update sees their rows.
	err = l.inTx(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock($1)", eraseLock); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "insert into ai_erased_users (user_hash) values ($1) on conflict do nothing", hash[:])
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("ledger: erase a user: %w", err)
	}
	// Holds name a user for as long as they live, which is an hour at most.
	if _, err := l.pool.Exec(ctx, "update ai_budget_holds set asked = null where asked->>'user_id' = $1", user); err != nil {
		return 0, fmt.Errorf("ledger: erase a user: %w", err)
	}
	tag, err := l.pool.Exec(ctx, "update ai_usage_ledger set user_id = null where user_id = $1", user)
	if err != nil {
		return 0, fmt.Errorf("ledger: erase a user: %w", err)
	}
	return tag.RowsAffected(), nil
}
