package ledger

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// CopyOnly writes rows and nothing else, for the benchmark to compare with. It
// leaves the totals wrong.
func (l *Ledger) CopyOnly(ctx context.Context, entries []Entry) error {
	b := newBatch(entries)
	if err := l.prepare(ctx, b); err != nil {
		return err
	}
	return l.inTx(ctx, func(tx pgx.Tx) error { return l.copyRows(ctx, tx, b) })
}
