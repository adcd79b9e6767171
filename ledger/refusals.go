package ledger

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
)

// Refusal is how often one limit of a port refused questions on a day.
type Refusal struct {
	PortID  string
	Limit   string    // its name; [budget.PortLimit]: a cap of the port's own
	Day     time.Time // in UTC
	Refused int64
	LastAt  time.Time
}

// refusalsShownFor is how many days newest refusals are of, the running one included.
const refusalsShownFor = 7

// AddRefusals adds what a gate refused to what is known of these days. Of a port that is not
// registered nothing is kept.
func (l *Ledger) AddRefusals(ctx context.Context, list []Refusal) error {
	var ports, limits []string
	var days, last []time.Time
	var refused []int64
	for _, r := range list {
		ports, limits, days, refused, last = append(ports, r.PortID), append(limits, r.Limit), append(days, r.Day), append(refused, r.Refused), append(last, r.LastAt)
	}
	// In the order of the key, so that two gates wait for each other in one direction only.
	_, err := l.pool.Exec(ctx, `insert into ai_refusals as r (port_id, day, limit_name, refused, last_at)
		select u.port_id, u.day, u.limit_name, u.refused, u.last_at
		from unnest($1::text[], $2::date[], $3::text[], $4::bigint[], $5::timestamptz[]) u (port_id, day, limit_name, refused, last_at)
		where exists (select from ports p where p.id = u.port_id) order by 1, 2, 3
		on conflict (port_id, day, limit_name) do update set refused = r.refused + excluded.refused, last_at = greatest(r.last_at, excluded.last_at)`,
		ports, days, limits, refused, last)
	return wrap(err, "add refusals")
}

// Refusals reads how many questions were refused today, and the newest refusals of the last seven
// days, at most so many: of ids; nil: of all ports.
func (l *Ledger) Refusals(ctx context.Context, ids []string, most int, now time.Time) (today int64, newest []Refusal, err error) {
	day, _ := budget.Day.Bounds(now)
	args := []any{day.AddDate(0, 0, 1-refusalsShownFor), most, day}
	rows, _ := l.reportPool.Query(ctx, `select port_id, limit_name, day, refused, last_at,
			least(coalesce(sum(refused) filter (where day = $3::date) over (), 0), 9223372036854775807)::bigint
		from ai_refusals where day >= $1::date and `+among("port_id", ids, &args)+` order by last_at desc, port_id, limit_name limit $2`, args...)
	var r Refusal
	_, err = pgx.ForEachRow(rows, []any{&r.PortID, &r.Limit, &r.Day, &r.Refused, &r.LastAt, &today}, func() error {
		newest = append(newest, r)
		return nil
	})
	return today, newest, wrap(err, "refusals")
}
