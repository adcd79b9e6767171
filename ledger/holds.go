package ledger

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

//go:embed sql/sweep_holds.sql
var sweepHoldsSQL string

//go:embed sql/live_holds.sql
var liveHoldsSQL string

//go:embed sql/standings.sql
var standingsSQL string

const (
	// sweepGrace leaves an expired hold where it is for a while: it counts no more,
	// but the event that settles it may be on its way.
	sweepGrace = 10 * time.Second
	// SweepBatch is how many holds of their own one sweep removes at most.
	SweepBatch  = 5_000
	sweepSlices = 5_000 // and slices, each with all its holds
)

// Unsettled is what a sweep found in one port: calls that were allowed and whose
// usage was not reported within the hold's lifetime.
type Unsettled struct {
	PortID string
	Holds  int64
	Tokens int64
}

// SweepHolds removes holds that have expired and counts them as unsettled, at
// most [SweepBatch] a call. An expired hold binds nobody even before it is swept.
// What it removed before an error is returned beside it.
func (l *Ledger) SweepHolds(ctx context.Context) ([]Unsettled, error) {
	var found []Unsettled
	for _, s := range []struct {
		sql   string
		limit int
	}{{sweepHoldsSQL, SweepBatch}, {sweepSlicesSQL, sweepSlices}} {
		rows, err := l.pool.Query(ctx, s.sql, sweepGrace, s.limit)
		if err != nil {
			return found, fmt.Errorf("ledger: sweep holds: %w", err)
		}
		some, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Unsettled])
		if err != nil {
			return found, fmt.Errorf("ledger: sweep holds: %w", err)
		}
		found = append(found, some...)
	}
	return found, nil
}

// Standings lists every port that has live holds in the current period of its
// budget, and the moment, by the database's clock, at which that was so.
func (l *Ledger) Standings(ctx context.Context) (list []Standing, at time.Time, err error) {
	rows, err := l.reservePool.Query(ctx, standingsSQL, BudgetKey)
	if err != nil {
		return nil, at, fmt.Errorf("ledger: read holds: %w", err)
	}
	var s Standing
	_, err = pgx.ForEachRow(rows, []any{&s.At, &s.PortID, &s.Held}, func() error {
		at = s.At.UTC()
		if s.Held > 0 {
			list = append(list, s)
		}
		return nil
	})
	if err != nil {
		return nil, at, fmt.Errorf("ledger: read holds: %w", err)
	}
	return list, at, nil
}

// HoldReport is what a port's reservations look like to an operator.
type HoldReport struct {
	PortID    string           `json:"port_id"`
	Live      []HoldGroup      `json:"live"`      // most tokens first
	Unsettled []UnsettledGroup `json:"unsettled"` // newest day first, then most tokens
}

// HoldGroup sums live holds. What is leased to a gate and not yet sealed has a
// service in parentheses and no number of holds.
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
	rows, err := l.pool.Query(ctx, liveHoldsSQL, port, first, after.Service, after.Feature, limit)
	var list []HoldGroup
	if err == nil {
		list, err = pgx.CollectRows(rows, pgx.RowToStructByPos[HoldGroup])
	}
	if err != nil {
		return nil, fmt.Errorf("ledger: holds of %s: %w", port, err)
	}
	return list, nil
}

// UnsettledHolds lists at most limit groups of a port's unsettled holds of the last 31
// days, newest day first, in the order of service and feature: those after the given
// one, without a day for the first.
func (l *Ledger) UnsettledHolds(ctx context.Context, port string, after UnsettledGroup, limit int) ([]UnsettledGroup, error) {
	rows, err := l.pool.Query(ctx, `select to_char(day, 'YYYY-MM-DD'), service, feature, holds, tokens from ai_unsettled_holds
		where port_id = $1 and day > (now() at time zone 'UTC')::date - 31
			and ($2 = '' or day < nullif($2, '')::date or day = nullif($2, '')::date and (service, feature) > ($3, $4))
		order by day desc, service, feature limit $5`, port, after.Day, after.Service, after.Feature, limit)
	var list []UnsettledGroup
	if err == nil {
		list, err = pgx.CollectRows(rows, pgx.RowToStructByPos[UnsettledGroup])
	}
	if err != nil {
		return nil, fmt.Errorf("ledger: unsettled holds of %s: %w", port, err)
	}
	return list, nil
}
