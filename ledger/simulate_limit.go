package ledger

import (
	"context"
	_ "embed"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
)

//go:embed sql/simulate_limit.sql
var simulateLimitSQL string

const (
	// countSQL is what all calls count; of how many values; and in how many windows a cap is reached ($21).
	countSQL = `, vals as (select sum(calls) as calls, sum(used) as used, count(*) filter (where used >= $21) as full_windows from windows group by value)
		select coalesce(sum(calls), 0)::bigint, least(coalesce(sum(used), 0), 9223372036854775807)::bigint, count(*), coalesce(sum(full_windows), 0)::bigint from vals`
	// playSQL is the calls of those windows. Value by value, so that one value at a time need be known.
	playSQL = ` select value, created_at, input_tokens, cache_read, cache_write, output_tokens
		from calls join (select value, start from windows where used >= $21) w using (value, start) order by value, created_at, id`
)

// SimulateLimit replays the port's calls in [from, to), value by value and in the order of
// created_at and id, against a limit as if it had been in force. from and to are widened to
// whole windows of the limit; one in total counts what begins at from.
//
// The rule is that of [Ledger.Simulate]. The answer is exact, of one moment: calls are read one
// by one where their value reaches a cap in their window. What this needs of memory does not
// depend on how many calls or values there are. The error is a [*budget.FieldError] when the
// limit is invalid, or when some of the calls have left the ledger with their month.
func (l *Ledger) SimulateLimit(ctx context.Context, port string, limit *budget.Limit, from, to time.Time) (budget.LimitSimulation, error) {
	if err := limit.Validate("limit"); err != nil {
		return budget.LimitSimulation{}, err
	}
	if limit.Window != budget.Total {
		from, _ = limit.Window.Bounds(from)
		_, to = limit.Window.Bounds(to.Add(-1))
	}
	p := budget.NewLimitPlayer(limit, from, to)
	err := pgx.BeginTxFunc(ctx, l.reportPool, oneMoment, func(tx pgx.Tx) error { return playLimit(ctx, tx, port, limit, p, from, to) })
	return p.Result(), wrap(err, "simulate limit %s of %s", limit.Name, port)
}

func playLimit(ctx context.Context, tx pgx.Tx, port string, limit *budget.Limit, p *budget.LimitPlayer, from, to time.Time) error {
	if err := planForOnePort(ctx, tx); err != nil {
		return err
	}
	if _, err := daysStillKept(ctx, tx, port, from, to); err != nil {
		return err
	}
	args := append(limitArgs(port, limit, from, to), p.Worth())
	var calls, used, values, full int64
	if err := tx.QueryRow(ctx, simulateLimitSQL+countSQL, args...).Scan(&calls, &used, &values, &full); err != nil {
		return err
	}
	p.Count(calls, used, values)
	if full == 0 {
		return nil
	}
	rows, _ := tx.Query(ctx, simulateLimitSQL+playSQL, args...)
	var value string
	var at time.Time
	var u budget.Usage
	_, err := pgx.ForEachRow(rows, []any{&value, &at, &u.Input, &u.CacheRead, &u.CacheWrite, &u.Output}, func() error {
		p.Play(value, at, &u)
		return nil
	})
	return err
}

// planForOnePort: the plan depends on what the limit matches. The calls of a port lie together, in their
// order: Postgres would rather read a whole month than believe that.
func planForOnePort(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, "set local plan_cache_mode = force_custom_plan; set local random_page_cost = 1.1; set local work_mem = '64MB'")
	return err
}

// limitArgs are those of simulateLimitSQL.
func limitArgs(port string, limit *budget.Limit, from, to time.Time) []any {
	args := append([]any{port, from, to}, matchArgs(&limit.Match)...)
	args = append(args, string(limit.Per), string(limit.Window))
	for _, w := range limit.Counting() {
		args = append(args, w)
	}
	return args
}
