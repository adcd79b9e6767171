package ledger

import (
	"context"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
)

// limitNowSQL adds to what calls have used ($1 to $20 as in simulate_limit.sql) what those under way hold:
// of values $21 so much, $22, and of any other $23. Reached is those that have come to the hard cap, $24.
const limitNowSQL = `, held as (select * from unnest($21::text[], $22::bigint[]) h (value, held)),
	counts as (
		select coalesce(w.value, h.value) as value, least(coalesce(w.used, 0), 9223372036854775807)::bigint as used, coalesce(h.held, $23) as held
		from windows w full join held h on h.value = w.value
	)
	select value, used, held, count(*) over (), count(*) filter (where used::numeric + held >= $24) over ()
	from counts order by used::numeric + held desc, value limit $25`

// LimitNow is what a limit that is not stored would count and hold in its present window.
type LimitNow struct {
	Fullest
	Reached int64 // how many values have come to the hard cap
}

// LimitNow reads, from the ledger, what a limit of a port would begin with if it was stored, and what calls
// under way would hold in it. The error is a [*budget.FieldError] when the limit is invalid.
func (l *Ledger) LimitNow(ctx context.Context, port string, limit *budget.Limit, most int, now time.Time) (n LimitNow, err error) {
	if err := limit.Validate("limit"); err != nil {
		return n, err
	}
	start, end := limit.Window.Bounds(now)
	if end.IsZero() { // it never ends
		end = now.AddDate(1, 0, 0)
	}
	hard := int64(math.MaxInt64)
	if limit.Hard != nil {
		hard = limit.Scaled(*limit.Hard)
	}
	err = pgx.BeginTxFunc(ctx, l.reportPool, oneMoment, func(tx pgx.Tx) error {
		if err := planForOnePort(ctx, tx); err != nil {
			return err
		}
		tally, err := l.tally(ctx, tx, port, []budget.Limit{*limit}, now)
		if err != nil {
			return err
		}
		values := tally.Values(limit)
		held := make([]int64, len(values))
		for i, v := range values {
			held[i] = tally.Held(limit, v, start)
		}
		const nobody = "\x00" // which no call can name
		args := append(limitArgs(port, limit, start, end), values, held, tally.Held(limit, nobody, start), hard, most)
		rows, _ := tx.Query(ctx, simulateLimitSQL+limitNowSQL, args...)
		var v ValueUsed
		_, err = pgx.ForEachRow(rows, []any{&v.Value, &v.Used, &v.Held, &n.Values, &n.Reached}, func() error {
			n.Top = append(n.Top, v)
			return nil
		})
		return err
	})
	return n, wrap(err, "limit %s of %s now", limit.Name, port)
}
