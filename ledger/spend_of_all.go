package ledger

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
)

//go:embed sql/spend_of_all.sql
var spendOfAllSQL string

// Spent is what ports used together, until now.
type Spent struct {
	Tokens   map[time.Time]int64            // by day, since the month before the running one began
	Features map[string]map[time.Time]int64 // by day, of the days asked for
	Models   map[string]int64               // of the days asked for
	// Of the last 31 days: holds that expired without a usage event, and the port that has most
	// tokens of them; "": there were none.
	UnsettledHolds, UnsettledTokens int64
	UnsettledPort                   string
}

// SpendOfAll reads what ports used together, those of ids; nil: all. Features and models are
// of so many days, the last of which contains now. It reads each port's days and totals, so
// all of 100,000 busy ports take seconds.
func (l *Ledger) SpendOfAll(ctx context.Context, ids []string, days int, now time.Time) (Spent, error) {
	s := Spent{Tokens: map[time.Time]int64{}, Features: map[string]map[time.Time]int64{}, Models: map[string]int64{}}
	day, tomorrow := budget.Day.Bounds(now)
	month, _ := budget.Month.Bounds(now)
	args := []any{day.AddDate(0, 0, 1-days), month.AddDate(0, -1, 0), tomorrow}
	rows, _ := l.reportPool.Query(ctx, fmt.Sprintf(spendOfAllSQL, among("port_id", ids, &args)), args...)
	var kind, key string
	var on *time.Time
	var tokens int64
	_, err := pgx.ForEachRow(rows, []any{&kind, &key, &on, &tokens}, func() error {
		switch kind {
		case "day":
			s.Tokens[*on] = tokens
		case "feature":
			if s.Features[key] == nil {
				s.Features[key] = map[time.Time]int64{}
			}
			s.Features[key][*on] = tokens
		case "model":
			s.Models[key] = tokens
		}
		return nil
	})
	if err != nil {
		return s, wrap(err, "spend of all ports")
	}
	args = []any{day.AddDate(0, 0, -30)}
	err = l.reportPool.QueryRow(ctx, `select coalesce(sum(holds), 0)::bigint, least(coalesce(sum(tokens), 0), 9223372036854775807)::bigint, coalesce((array_agg(port_id order by tokens desc, port_id))[1], '')
		from (select port_id, sum(holds) as holds, sum(tokens) as tokens from ai_unsettled_holds where day >= $1::date and `+among("port_id", ids, &args)+` group by port_id) p`, args...).
		Scan(&s.UnsettledHolds, &s.UnsettledTokens, &s.UnsettledPort)
	return s, wrap(err, "spend of all ports")
}

// NewestAlerts are the alerts of ports, the newest first, at most so many: of ids; nil: of all.
func (l *Ledger) NewestAlerts(ctx context.Context, ids []string, most int) ([]Alert, error) {
	args := []any{most}
	rows, _ := l.reportPool.Query(ctx, "select "+alertFields+" from ai_alerts where "+among("port_id", ids, &args)+" order by noticed_at desc, id desc limit $1", args...)
	list, err := pgx.CollectRows(rows, collectAlert)
	return list, wrap(err, "newest alerts")
}
