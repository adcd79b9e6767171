package ledger

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
)

// Port is a tenant with what it has spent.
type Port struct {
	PortID      string        `json:"port_id"`
	Name        string        `json:"name"`
	CreatedAt   time.Time     `json:"created_at"`
	Budget      budget.Budget `json:"budget"`
	UsedTokens  int64         `json:"used_tokens"`  // in the current period
	TotalTokens int64         `json:"total_tokens"` // of all time
	Requests    int64         `json:"requests"`     // of all time
}

//go:embed sql/list_ports.sql
var listPortsSQL string

// Ports lists at most limit ports in the order of their ids, those after the
// given one ("" for the first).
func (l *Ledger) Ports(ctx context.Context, after string, limit int, now time.Time) ([]Port, error) {
	return l.listPorts(ctx, "true", after, limit, now)
}

// NamedPorts is [Ledger.Ports] for those of the given ids that are registered.
func (l *Ledger) NamedPorts(ctx context.Context, ids []string, after string, limit int, now time.Time) ([]Port, error) {
	return l.listPorts(ctx, "id = any($10)", after, limit, now, ids)
}

func (l *Ledger) listPorts(ctx context.Context, which, after string, limit int, now time.Time, more ...any) ([]Port, error) {
	args := []any{after, limit, BudgetKey}
	for _, p := range budget.Periods {
		start, end := p.Bounds(now)
		args = append(args, start, end)
	}
	rows, err := l.pool.Query(ctx, fmt.Sprintf(listPortsSQL, which), append(args, more...)...)
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
		err = p.Budget.Complete(value)
		return p, err
	})
	if err != nil {
		return nil, fmt.Errorf("ledger: list ports: %w", err)
	}
	return ports, nil
}

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
