package ledger

import (
	"context"
	_ "embed"
	"fmt"
	"time"
)

//go:embed sql/spend.sql
var spendSQL string

// Spend is what counts against a port's caps.
type Spend struct {
	UsedTokens int64
	HeldTokens int64     // reserved, neither settled nor expired
	AsOf       time.Time // by the database's clock: every commit up to then is counted
}

// Spend reads what the port has used and holds in [start, end), whole UTC days, in
// one statement.
func (l *Ledger) Spend(ctx context.Context, port string, start, end time.Time) (Spend, error) {
	var s Spend
	err := l.pool.QueryRow(ctx, spendSQL, port, start, end).Scan(&s.UsedTokens, &s.HeldTokens, &s.AsOf)
	if err != nil {
		return Spend{}, fmt.Errorf("ledger: spend of %s: %w", port, err)
	}
	s.AsOf = s.AsOf.UTC()
	return s, nil
}
