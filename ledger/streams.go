package ledger

import (
	"context"
	_ "embed"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

//go:embed sql/book_share.sql
var bookShareSQL string

//go:embed sql/booked_through.sql
var bookedThroughSQL string

//go:embed sql/fold_shares.sql
var foldSharesSQL string

// Share is the part of a fetched batch that one call of [Ledger.BookShare] books. The
// batch's sequences count as booked once each of its shares is.
type Share struct {
	Stream    uuid.UUID // the stream's identity; the zero Share is of no stream
	Batch     uuid.UUID
	Number    int // from 0
	Of        int
	Sequences []Sequences // of the whole batch, in one of its shares; ascending
}

// Sequences are those of a stream from First to Last, both included.
type Sequences struct{ First, Last uint64 }

// ID is the ledger's identity. Every copy of its database has the same.
func (l *Ledger) ID(ctx context.Context) (id uuid.UUID, err error) {
	err = l.pool.QueryRow(ctx, "select id from ai_ledger").Scan(&id)
	return id, wrap(err, "read its identity")
}

// queue makes a booking note its share. One that was noted before, by a commit of which
// nobody heard, stays as it is.
func (s Share) queue(send *pgx.Batch) {
	if s.Of == 0 {
		return
	}
	from, after := make([]int64, len(s.Sequences)), make([]int64, len(s.Sequences))
	for i, r := range s.Sequences {
		from[i], after[i] = int64(r.First), int64(r.Last)+1
	}
	send.Queue(bookShareSQL, s.Stream, s.Batch, s.Number, s.Of, from, after)
}

// TrackStream makes the ledger follow a stream, unless it does already. acknowledged is
// what the stream says is acknowledged: a ledger that is older than its tracking of
// streams has booked that much of its first one; any other has to prove it. It returns the stream
// of which this one takes the place, nil if it is not new to the ledger or is its first.
func (l *Ledger) TrackStream(ctx context.Context, stream uuid.UUID, acknowledged uint64) (replaced *GoneStream, err error) {
	err = l.inTx(ctx, func(tx pgx.Tx) error {
		var predates, others bool
		err := tx.QueryRow(ctx, "select predates_streams, exists (select from ai_usage_streams) from ai_ledger for update").Scan(&predates, &others)
		if err != nil {
			return err
		}
		through := uint64(0)
		if predates {
			through = acknowledged
		}
		made, err := tx.Exec(ctx, "insert into ai_usage_streams (id, booked) values ($1, int8multirange(int8range(0, $2))) on conflict do nothing", stream, int64(through)+1)
		if err == nil && made.RowsAffected() == 0 {
			_, err = tx.Exec(ctx, "update ai_usage_streams set gone_at = null, unbooked = 0 where id = $1 and gone_at is not null", stream)
			return err
		}
		if err == nil && others {
			replaced, err = noteGone(ctx, tx, stream)
		}
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "update ai_ledger set predates_streams = false where predates_streams")
		return err
	})
	return replaced, wrap(err, "track the stream")
}

// GoneStream is one that was deleted, or is on a disk that is gone.
type GoneStream struct {
	// Unbooked is how many of its messages were not booked, as far as is known: up to a second before.
	Unbooked uint64
}

// noteGone notes that the stream that was booked from last is gone, and another is there.
func noteGone(ctx context.Context, tx pgx.Tx, other uuid.UUID) (*GoneStream, error) {
	var gone uuid.UUID
	var last, through int64
	err := tx.QueryRow(ctx, "select stream_id, sequence from ai_stream_marks where stream_id <> $1 order by hour desc, sequence desc limit 1", other).Scan(&gone, &last)
	if errors.Is(err, pgx.ErrNoRows) {
		return &GoneStream{}, nil // nobody ever looked at it while it held something
	}
	if err == nil {
		err = tx.QueryRow(ctx, bookedThroughSQL, gone).Scan(&through)
	}
	if err != nil {
		return nil, err
	}
	unbooked := max(last-through, 0)
	_, err = tx.Exec(ctx, "update ai_usage_streams set gone_at = now(), unbooked = $2 where id = $1", gone, unbooked)
	return &GoneStream{uint64(unbooked)}, err
}

// Unbooked is how many messages streams held that were not booked when they were gone, within the
// time that streams keep messages.
func (l *Ledger) Unbooked(ctx context.Context) (messages int64, err error) {
	err = l.pool.QueryRow(ctx, "select coalesce(sum(unbooked), 0)::bigint from ai_usage_streams where gone_at > now() - interval '35 days'").Scan(&messages)
	return messages, wrap(err, "read what streams that are gone held")
}

// Booked says how far a stream is booked: the last sequence before the first gap, 0 for a
// stream that the ledger does not track.
func (l *Ledger) Booked(ctx context.Context, stream uuid.UUID) (through uint64, err error) {
	var t int64
	err = l.pool.QueryRow(ctx, bookedThroughSQL, stream).Scan(&t)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return 0, wrap(err, "read how far the stream is booked")
	}
	return uint64(t), nil
}

// Mark is when a message of a stream was stored. Of two streams that were the same up to a
// point, those behind it tell one from the other.
type Mark struct {
	Sequence uint64
	StoredAt time.Time // microseconds
}

// Marks returns at most limit of what [Ledger.FoldBooked] noted of a stream, newest first:
// one an hour.
func (l *Ledger) Marks(ctx context.Context, stream uuid.UUID, limit int) ([]Mark, error) {
	rows, _ := l.pool.Query(ctx, "select sequence, stored_at from ai_stream_marks where stream_id = $1 order by hour desc limit $2", stream, limit)
	marks, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Mark])
	return marks, wrap(err, "read the stream's marks")
}

// FoldBooked puts what bookings noted into one row, and notes the stream's last message.
// Without it [Ledger.Booked] is right all the same, but ever slower. Of two that are
// called at once, one does nothing.
func (l *Ledger) FoldBooked(ctx context.Context, stream uuid.UUID, last Mark) error {
	err := l.inTx(ctx, func(tx pgx.Tx) error {
		var mine bool
		if err := tx.QueryRow(ctx, "select pg_try_advisory_xact_lock($1)", foldLock).Scan(&mine); err != nil || !mine {
			return err
		}
		var send pgx.Batch
		send.Queue(foldSharesSQL, stream)
		if last.Sequence > 0 {
			send.Queue(`insert into ai_stream_marks (stream_id, hour, sequence, stored_at) values ($1, $2, $3, $4)
				on conflict (stream_id, hour) do update set sequence = excluded.sequence, stored_at = excluded.stored_at where ai_stream_marks.sequence < excluded.sequence`,
				stream, last.StoredAt.Truncate(time.Hour), int64(last.Sequence), last.StoredAt)
		}
		// A batch whose consumer died between its shares is delivered again, as another one.
		send.Queue("delete from ai_booked_shares where booked_at < now() - interval '1 day'")
		return tx.SendBatch(ctx, &send).Close()
	})
	return wrap(err, "fold what is booked of the stream")
}

// Unbook forgets that sequences from the given one on are booked, so that a consumer
// books them again, which changes nothing for events that are in the ledger.
func (l *Ledger) Unbook(ctx context.Context, stream uuid.UUID, from uint64) error {
	first := int64(max(from, 1)) // 0 is always booked
	var send pgx.Batch
	send.Queue("select pg_advisory_xact_lock($1)", foldLock)
	send.Queue(foldSharesSQL, stream)
	send.Queue("delete from ai_stream_marks where stream_id = $1 and sequence >= $2", stream, first)
	send.Queue("update ai_usage_streams set booked = booked - int8multirange(int8range($2, null)) where id = $1", stream, first)
	err := l.inTx(ctx, func(tx pgx.Tx) error { return tx.SendBatch(ctx, &send).Close() })
	return wrap(err, "forget what is booked of the stream")
}

// ClaimRebooking makes one consumer the one that books a stream again, for ten seconds:
// it claims again with every batch. It reports false while another one does.
func (l *Ledger) ClaimRebooking(ctx context.Context, stream, by uuid.UUID) (mine bool, err error) {
	claimed, err := l.pool.Exec(ctx, `update ai_usage_streams set rebooking_by = $2, rebooking_until = now() + interval '10 seconds'
		where id = $1 and (rebooking_by = $2 or rebooking_until is null or rebooking_until < now())`, stream, by)
	return claimed.RowsAffected() == 1, wrap(err, "claim the booking again")
}
