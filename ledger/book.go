package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/killpoint"
	"github.com/tidegate/tidegate/internal/reservation/hold"
)

// Entry is one event ready to be booked: decoded, validated, identified.
type Entry struct {
	ID    uuid.UUID
	At    time.Time // the id's own timestamp: UTC, whole milliseconds
	Usage events.Usage
}

// Fate is what became of an entry.
type Fate uint8

// The fates.
const (
	Booked    Fate = iota // it has a row now, written by this call
	Duplicate             // its id has a row with the same content, from before or from an earlier entry
	Rejected              // it cannot have a row: quarantine it
)

// Outcome is an entry's fate, with the reason when it was rejected.
type Outcome struct {
	Fate   Fate
	Reason *events.FieldError
}

// Booking is what a call to [Ledger.Book] did.
type Booking struct {
	Outcomes []Outcome // one for each entry, in their order
	// Days are the totals, after the commit, of every port and day that the
	// entries touch, duplicates too: a consumer that died after its commit and
	// before telling the gates repairs that by booking again.
	Days []PortDay
	// Counters are those of limits that the entries count in, likewise.
	Counters []Counter
	// Noted says that the share of [Ledger.BookShare] was noted as booked.
	Noted bool
}

func (b *Booking) rejects() bool {
	return slices.ContainsFunc(b.Outcomes, func(o Outcome) bool { return o.Fate == Rejected })
}

// Book writes entries to the ledger and both rollups in one transaction. When it
// returns without an error every outcome is committed; with one, nothing may be
// assumed (the connection may have broken during the commit), and calling again
// with the same entries is safe and required.
//
// An entry that Postgres refuses is rejected alone: the rest is booked, then in
// more than one transaction.
func (l *Ledger) Book(ctx context.Context, entries []Entry) (Booking, error) {
	return l.BookShare(ctx, Share{}, entries)
}

// BookShare is [Ledger.Book] for entries that came from a usage stream: it notes their
// sequences as booked, also when there are no entries, in the transaction that books the
// last of them. It does not when an entry is rejected: its caller puts that one where it is
// safe, and then books the others again, with the share: Postgres may have been put back to
// an older copy in between.
func (l *Ledger) BookShare(ctx context.Context, share Share, entries []Entry) (Booking, error) {
	if len(entries) == 0 {
		var err error
		if share.Of > 0 {
			err = pgx.BeginFunc(ctx, l.bookPool, func(tx pgx.Tx) error { return l.beginBooking(ctx, tx, share, new(batch)) })
		}
		return Booking{Noted: err == nil}, err
	}
	for attempt := 1; ; attempt++ {
		booking, err := l.bookOnce(ctx, share, entries)
		if err == nil {
			return booking, nil
		}
		switch code := sqlState(err); {
		case attempt == 4:
			return Booking{}, err
		case changedElsewhere(err):
			l.forget()
		case code == codeSerialization, code == codeDeadlock:
		case isDataError(code):
			return l.bisect(ctx, entries, err)
		default:
			return Booking{}, err
		}
	}
}

// bookOnce tries the fast way, COPY, and takes the idempotent one when that
// meets a known id, which fails the whole COPY.
func (l *Ledger) bookOnce(ctx context.Context, share Share, entries []Entry) (Booking, error) {
	b := newBatch(entries)
	if err := l.prepare(ctx, b); err != nil {
		return Booking{}, err
	}
	if !l.expectDuplicates.Load() {
		err := pgx.BeginFunc(ctx, l.bookPool, func(tx pgx.Tx) error { return l.bookIn(ctx, tx, share, b, true) })
		if sqlState(err) != codeUniqueViolation {
			return b.booking, err
		}
	}
	err := pgx.BeginFunc(ctx, l.bookPool, func(tx pgx.Tx) error { return l.bookIn(ctx, tx, share, b, false) })
	if err == nil {
		l.expectDuplicates.Store(b.known > 0)
	}
	return b.booking, err
}

// bookIn books a batch within a transaction. fresh is the fast way, by COPY: it fails with a
// unique violation when an id is in the ledger already.
func (l *Ledger) bookIn(ctx context.Context, tx pgx.Tx, share Share, b *batch, fresh bool) (err error) {
	if err := l.beginBooking(ctx, tx, share, b); err != nil {
		return err
	}
	inserted, known := b.pending, []int(nil)
	if fresh {
		err = l.copyRows(ctx, tx, b)
	} else {
		inserted, known, err = l.insertRows(ctx, tx, b)
	}
	if err != nil {
		return err
	}
	killpoint.Here("during-insert")
	b.known = len(known)
	if err := l.compareKnown(ctx, tx, b, append(known, b.repeats...)); err != nil {
		return err
	}
	if err := b.keepNote(ctx, tx, share); err != nil {
		return err
	}
	if err := l.addAndSettle(ctx, tx, b, inserted); err != nil || len(known) == 0 {
		return err
	}
	if b.booking.Days, err = readDays(ctx, tx, b); err != nil {
		return err
	}
	b.booking.Counters, err = readCounters(ctx, tx, l.count(b, b.pending))
	return err
}

// addAndSettle adds entries, all of them rows written by this transaction, to the totals and
// to the counters of limits, and ends the holds that they name: a hold's tokens turn into
// used ones at once.
func (l *Ledger) addAndSettle(ctx context.Context, tx pgx.Tx, b *batch, indexes []int) error {
	var send pgx.Batch
	days := addToTotals(&send, b, indexes)
	counters := addToCounters(&send, l.count(b, indexes))
	_, err := hold.End(ctx, tx, &send, b.settled(indexes))
	b.booking.Days, b.booking.Counters = *days, *counters
	return wrap(err, "add to totals and settle")
}

// keepNote takes back the note of a share of which an entry is rejected.
func (b *batch) keepNote(ctx context.Context, tx pgx.Tx, share Share) error {
	b.booking.Noted = !b.booking.rejects()
	if b.booking.Noted || share.Of == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, "delete from ai_booked_shares where stream_id = $1 and batch_id = $2 and share = $3", share.Stream, share.Batch, share.Number)
	return err
}

// bisect finds the entries that Postgres refuses by halving. cause is what it
// said of the whole.
func (l *Ledger) bisect(ctx context.Context, entries []Entry, cause error) (Booking, error) {
	if len(entries) == 1 {
		var pg *pgconn.PgError
		errors.As(cause, &pg)
		return Booking{Outcomes: []Outcome{{Fate: Rejected, Reason: &events.FieldError{
			Reason: events.ReasonUnbookable,
			Rule:   fmt.Sprintf("Postgres refuses the row: %s (SQLSTATE %s)", pg.Message, pg.Code),
		}}}}, nil
	}
	half := len(entries) / 2
	first, err := l.Book(ctx, entries[:half])
	if err != nil {
		return Booking{}, err
	}
	second, err := l.Book(ctx, entries[half:])
	if err != nil {
		return Booking{}, err
	}
	return Booking{
		Outcomes: append(first.Outcomes, second.Outcomes...),
		Days:     append(first.Days, second.Days...), // the later wins, as it does at the gate
		Counters: append(first.Counters, second.Counters...),
	}, nil
}

// changedElsewhere: another process deleted a port or dropped a month that this
// one believes to be there.
func changedElsewhere(err error) bool {
	return sqlState(err) == codeForeignKeyViolation || missesPartition(err)
}

// isDataError: the rows are at fault, not the moment.
func isDataError(code string) bool {
	return len(code) == 5 && (code[:2] == "22" || code[:2] == "23")
}
