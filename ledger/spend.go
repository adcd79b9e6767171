package ledger

import (
	"context"
	_ "embed"
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
func (l *Ledger) Spend(ctx context.Context, port string, start, end time.Time) (s Spend, err error) {
	err = l.pool.QueryRow(ctx, spendSQL, port, start, end).Scan(&s.UsedTokens, &s.HeldTokens, &s.AsOf)
	return s, wrap(err, "spend of %s", port)
}
