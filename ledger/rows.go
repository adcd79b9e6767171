package ledger

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

//go:embed sql/insert_rows.sql
var insertRowsSQL string

//go:embed sql/compare_known.sql
var compareKnownSQL string

const copyRowsSQL = `copy ai_usage_ledger (created_at, id, input_tokens, output_tokens, total_tokens,
	cache_read_input_tokens, cache_write_input_tokens, reasoning_output_tokens,
	port_id, feature, provider, model, measured_by, status, user_id, run_id, request_id, response_id) from stdin binary`

// copyRows writes all pending rows, and fails as a whole if one is known. The
// binary form is built here because pgx's CopyFrom boxes every value: at 18
// columns that costs more than the rest of the consumer.
func (l *Ledger) copyRows(ctx context.Context, tx pgx.Tx, b *batch) error {
	buf := append(make([]byte, 0, 64+320*len(b.pending)), "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"...)
	for _, i := range b.pending {
		e := &b.entries[i]
		u := &e.Usage
		buf = binary.BigEndian.AppendUint16(buf, 18)
		buf = copyInt(buf, pgMicros(e.At))
		buf = append(binary.BigEndian.AppendUint32(buf, 16), e.ID[:]...)
		buf = copyInt(buf, u.InputTokens)
		buf = copyInt(buf, u.OutputTokens)
		buf = copyInt(buf, u.TotalTokens())
		buf = copyInt(buf, u.Details.CacheReadInputTokens)
		buf = copyInt(buf, u.Details.CacheWriteInputTokens)
		buf = copyInt(buf, u.Details.ReasoningOutputTokens)
		for _, s := range [...]string{u.PortID, u.Feature, u.Provider, u.Model, string(u.MeasuredBy), string(u.Status)} {
			buf = append(binary.BigEndian.AppendUint32(buf, uint32(len(s))), s...)
		}
		for _, s := range [...]string{l.userOf(u), u.RunID, u.RequestID, u.ResponseID} {
			if s == "" {
				buf = binary.BigEndian.AppendUint32(buf, 0xffffffff) // null
				continue
			}
			buf = append(binary.BigEndian.AppendUint32(buf, uint32(len(s))), s...)
		}
	}
	buf = binary.BigEndian.AppendUint16(buf, 0xffff)
	_, err := tx.Conn().PgConn().CopyFrom(ctx, bytes.NewReader(buf), copyRowsSQL)
	return wrap(err, "copy %d rows", len(b.pending))
}

func copyInt(buf []byte, n int64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(buf, 8), uint64(n))
}

// pgMicros is Postgres's binary timestamptz: microseconds since 2000-01-01.
func pgMicros(t time.Time) int64 { return t.UnixMicro() - 946_684_800_000_000 }

type rowKey struct {
	port string
	id   uuid.UUID
}

// insertRows writes the pending rows that are not in the ledger yet. It returns
// the indexes of those written and of those that were known.
func (l *Ledger) insertRows(ctx context.Context, tx pgx.Tx, b *batch) (inserted, known []int, err error) {
	args, _ := l.columns(b, b.pending)
	rows, _ := tx.Query(ctx, insertRowsSQL, args...)
	written := make(map[rowKey]struct{}, len(b.pending))
	var k rowKey
	_, err = pgx.ForEachRow(rows, []any{&k.port, &k.id}, func() error {
		written[k] = struct{}{}
		return nil
	})
	if err != nil {
		return nil, nil, wrap(err, "insert %d rows", len(b.pending))
	}
	for _, i := range b.pending {
		e := &b.entries[i]
		if _, ok := written[rowKey{e.Usage.PortID, e.ID}]; ok {
			inserted = append(inserted, i)
		} else {
			known = append(known, i)
		}
	}
	return inserted, known, nil
}

// compareKnown settles the entries whose id has a row: the same content is a
// duplicate, anything else a conflict.
func (l *Ledger) compareKnown(ctx context.Context, tx pgx.Tx, b *batch, known []int) error {
	if len(known) == 0 {
		return nil
	}
	args, named := l.columns(b, known)
	// Planned anew each time: two indexes begin with the port, and on an empty ledger
	// they look alike.
	args = slices.Concat([]any{pgx.QueryExecModeCacheDescribe}, args, []any{named})
	rows, _ := tx.Query(ctx, compareKnownSQL, args...)
	compared := 0
	var n int
	var same bool
	_, err := pgx.ForEachRow(rows, []any{&n, &same}, func() error {
		compared++
		b.settleKnown(known[n-1], same)
		return nil
	})
	if err != nil {
		return wrap(err, "compare %d known rows", len(known))
	}
	if compared != len(known) {
		return fmt.Errorf("ledger: %d known rows vanished while they were compared (a port was deleted): book again", len(known)-compared)
	}
	return nil
}

// columns lays entries out as one array per column, for unnest. Beside them are
// the users that the events name, erased or not.
func (l *Ledger) columns(b *batch, indexes []int) (args []any, named []string) {
	n := len(indexes)
	at, ids := make([]time.Time, n), make([]uuid.UUID, n)
	var ints [5][]int64
	for c := range ints {
		ints[c] = make([]int64, n)
	}
	var texts [10][]string
	for c := range texts {
		texts[c] = make([]string, n)
	}
	named = make([]string, n)
	for row, i := range indexes {
		e := &b.entries[i]
		u := &e.Usage
		at[row], ids[row] = e.At, e.ID
		named[row] = u.UserID
		for c, v := range [...]int64{u.InputTokens, u.OutputTokens, u.Details.CacheReadInputTokens, u.Details.CacheWriteInputTokens, u.Details.ReasoningOutputTokens} {
			ints[c][row] = v
		}
		for c, v := range [...]string{u.PortID, u.Feature, u.Provider, u.Model, string(u.MeasuredBy), string(u.Status), l.userOf(u), u.RunID, u.RequestID, u.ResponseID} {
			texts[c][row] = v
		}
	}
	args = []any{at, ids}
	for _, c := range ints {
		args = append(args, c)
	}
	for _, c := range texts {
		args = append(args, c)
	}
	return args, named
}
