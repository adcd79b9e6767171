package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// NamedPorts is [Ledger.Ports] for those of the given ids that are registered. It
// asks a few times for each, as few callers may see more than a handful.
func (l *Ledger) NamedPorts(ctx context.Context, ids []string, after string, limit int, now time.Time) ([]Port, error) {
	rows, err := l.pool.Query(ctx, `select p.id, p.name, p.created_at, coalesce(sum(d.total_tokens), 0)::bigint, coalesce(sum(d.requests), 0)::bigint
		from ports p left join ai_usage_port_days d on d.port_id = p.id
		where p.id = any($1) and p.id > $2 group by p.id order by p.id limit $3`, ids, after, limit)
	if err != nil {
		return nil, fmt.Errorf("ledger: list named ports: %w", err)
	}
	ports, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p Port, err error) {
		err = row.Scan(&p.PortID, &p.Name, &p.CreatedAt, &p.TotalTokens, &p.Requests)
		p.CreatedAt = p.CreatedAt.UTC()
		return p, err
	})
	if err != nil {
		return nil, fmt.Errorf("ledger: list named ports: %w", err)
	}
	for i := range ports {
		p := &ports[i]
		if p.Budget, err = l.Budget(ctx, p.PortID); err != nil {
			return nil, err
		}
		start, end := p.Budget.Period.Bounds(now)
		if p.UsedTokens, err = l.Used(ctx, p.PortID, start, end); err != nil {
			return nil, err
		}
	}
	return ports, nil
}
