package ledger

import (
	"context"
	_ "embed"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/internal/reservation/hold"
)

//go:embed sql/live_holds.sql
var liveHoldsSQL string

// SweepHolds removes holds that have expired; see [hold.Store.Sweep].
func (l *Ledger) SweepHolds(ctx context.Context) ([]hold.Unsettled, error) {
	return l.Reservations.Sweep(ctx)
}

// HoldReport is what a port's reservations look like to an operator.
type HoldReport struct {
	PortID    string           `json:"port_id"`
	Live      []HoldGroup      `json:"live"`      // most tokens first
	Unsettled []UnsettledGroup `json:"unsettled"` // newest day first, then most tokens
}

// HoldGroup sums live holds. What is leased to a gate and not yet sealed has a
// service in parentheses and no number of holds. So does, with a number, a lease whose holds
// were made for several services.
type HoldGroup struct {
	Service     string    `json:"service"`
	Feature     string    `json:"feature"`
	Holds       int64     `json:"holds"`
	Tokens      int64     `json:"tokens"`
	NextExpires time.Time `json:"next_expires_at"`
}

// UnsettledGroup sums holds that expired without a usage event. What a gate had
// leased when it was killed has a service in parentheses and no number of holds.
type UnsettledGroup struct {
	Day     string `json:"day"`
	Service string `json:"service"`
	Feature string `json:"feature"`
	Holds   int64  `json:"holds"`
	Tokens  int64  `json:"tokens"`
}

// LiveHolds lists at most limit groups of a port's live holds, in the order of service
// and feature: those after the given one, nil for the first.
func (l *Ledger) LiveHolds(ctx context.Context, port string, after *HoldGroup, limit int) ([]HoldGroup, error) {
	first := after == nil
	if first {
		after = &HoldGroup{}
	}
	rows, _ := l.reportPool.Query(ctx, liveHoldsSQL, port, first, after.Service, after.Feature, limit)
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[HoldGroup])
	return list, wrap(err, "holds of %s", port)
}

// UnsettledHolds lists at most limit groups of a port's unsettled holds of the last 31
// days, newest day first, in the order of service and feature: those after the given
// one, without a day for the first.
func (l *Ledger) UnsettledHolds(ctx context.Context, port string, after UnsettledGroup, limit int) ([]UnsettledGroup, error) {
	rows, _ := l.reportPool.Query(ctx, `select to_char(day, 'YYYY-MM-DD'), service, feature, holds, tokens from ai_unsettled_holds
		where port_id = $1 and day > (now() at time zone 'UTC')::date - 31
			and ($2 = '' or day < nullif($2, '')::date or day = nullif($2, '')::date and (service, feature) > ($3, $4))
		order by day desc, service, feature limit $5`, port, after.Day, after.Service, after.Feature, limit)
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[UnsettledGroup])
	return list, wrap(err, "unsettled holds of %s", port)
}
