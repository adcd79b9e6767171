package ledger

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// BookTx is like [Ledger.Book] within the caller's transaction, which must be
// READ COMMITTED and must not have inserted one of the ports itself. Outcomes hold
// once it commits. An error leaves the transaction unusable; nothing is retried and
// no bad entry is singled out.
func (l *Ledger) BookTx(ctx context.Context, tx pgx.Tx, entries []Entry) (Booking, error) {
	b := newBatch(entries)
	if err := l.prepare(ctx, b); err != nil {
		return Booking{}, err
	}
	err := l.bookIn(ctx, tx, Share{}, b, false)
	if changedElsewhere(err) {
		l.forget() // for the caller's next try
	}
	return b.booking, err
}
