package ledger

import (
	"context"
	_ "embed"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"golang.org/x/sync/errgroup"

	"github.com/tidegate/tidegate/budget"
)

//go:embed sql/bucket_ledger.sql
var bucketLedgerSQL string

//go:embed sql/bucket_totals.sql
var bucketTotalsSQL string

//go:embed sql/bucket_port_days.sql
var bucketPortDaysSQL string

// figures are requests, input, output, total, cache-read, cache-write and reasoning tokens.
type figures [7]int64

// buckets are what keys add up to, by ai_bucket of migration 017.
type buckets [4096]figures

// add adds to a bucket. What saturates differs from what does not, and is then compared key by key.
func (b *buckets) add(bucket int32, f figures) {
	of := &b[bucket]
	for i := range f {
		of[i] = addSigned(of[i], f[i])
	}
}

// addSigned is [budget.Add] for what an error may have made negative.
func addSigned(a, b int64) int64 {
	if a >= 0 && b >= 0 {
		return budget.Add(a, b)
	}
	return a + b
}

func differing(a, b *buckets) (list []int32) {
	for i := range a {
		if a[i] != b[i] {
			list = append(list, int32(i))
		}
	}
	return list
}

// sums are what one moment's ledger and its rollups add up to.
type sums struct {
	seed                  int64
	booked, totals        buckets // by the keys of the totals
	totalsOfDays, days    buckets // by port and day: requests and total tokens only
	mu                    sync.Mutex
	blocksRead, allBlocks int64
}

// stretch is a range of blocks of a table: what they add to buckets by the keys of the totals, and by port and day.
type stretch struct {
	sql          string
	byKey, byDay *buckets
	from, upTo   int64
}

const (
	// stretchBlocks, of 8 KiB each, are read by one statement: some 300,000 rows, half a second.
	stretchBlocks = 8192
	// addUpAtOnce is how many statements run at once: one a core of a small machine.
	addUpAtOnce = 2
)

// oneMoment is a transaction that sees one.
var oneMoment = pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}

// addUp reads all tables once, in the order in which they lie on disk: no sorting, no spilling,
// whatever their size. Other transactions, in the snapshot of tx, share the work.
func (l *Ledger) addUp(ctx context.Context, tx pgx.Tx, since time.Time, progress func(done, all int64)) (*sums, error) {
	s := &sums{seed: int64(rand.Int32())}
	var snapshot string
	if err := tx.QueryRow(ctx, "select pg_export_snapshot()").Scan(&snapshot); err != nil {
		return nil, err
	}
	stretches, err := s.stretches(ctx, tx, since, l.stretchBlocks)
	if err != nil {
		return nil, err
	}
	work := make(chan stretch, len(stretches))
	for _, w := range stretches {
		s.allBlocks += w.upTo - w.from
		work <- w
	}
	close(work)
	readAll := func(ctx context.Context, tx pgx.Tx) error {
		for w := range work {
			if err := s.read(ctx, tx, &w, since); err != nil {
				return err
			}
			s.mu.Lock()
			s.blocksRead += w.upTo - w.from
			if progress != nil {
				progress(s.blocksRead*blockBytes, s.allBlocks*blockBytes)
			}
			s.mu.Unlock()
		}
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	sharing, shared := context.WithCancel(ctx) // while there is something to share
	group.Go(func() error { defer shared(); return readAll(ctx, tx) })
	for range min(addUpAtOnce, len(stretches)/4) - 1 { // for few, a connection costs more than it saves
		group.Go(func() error {
			conn, err := l.reportPool.Acquire(sharing)
			if err != nil {
				if sharing.Err() != nil {
					err = ctx.Err()
				}
				return err
			}
			defer conn.Release()
			return pgx.BeginTxFunc(ctx, conn, oneMoment, func(tx pgx.Tx) error {
				// SET takes no parameters; what the server exported is hexadecimal digits.
				if _, err := tx.Exec(ctx, "set transaction snapshot '"+snapshot+"'"); err != nil {
					return err
				}
				return readAll(ctx, tx)
			})
		})
	}
	return s, group.Wait()
}

const blockBytes = 8192

// stretches are those, of at most so many blocks, of the months since a time, of the totals and of the ports' days.
func (s *sums) stretches(ctx context.Context, tx pgx.Tx, since time.Time, size int64) (list []stretch, err error) {
	rows, _ := tx.Query(ctx, `select c.relname, pg_relation_size(c.oid) / current_setting('block_size')::int from pg_class c
		where c.oid in ('ai_usage_totals'::regclass, 'ai_usage_port_days'::regclass)
			or c.oid in (select inhrelid from pg_inherits where inhparent = 'ai_usage_ledger'::regclass) order by c.relname`)
	var table string
	var blocks int64
	_, err = pgx.ForEachRow(rows, []any{&table, &blocks}, func() error {
		var of stretch
		switch {
		case table == "ai_usage_totals":
			of = stretch{sql: bucketTotalsSQL, byKey: &s.totals, byDay: &s.totalsOfDays}
		case table == "ai_usage_port_days":
			of = stretch{sql: bucketPortDaysSQL, byDay: &s.days}
		case table >= partitionName(since):
			of = stretch{sql: strings.Replace(bucketLedgerSQL, "TABLE where", pgx.Identifier{table}.Sanitize()+" where", 1), byKey: &s.booked}
		default:
			return nil
		}
		for of.from = 0; of.from < blocks; of.from = of.upTo {
			of.upTo = min(of.from+size, blocks)
			list = append(list, of)
		}
		return nil
	})
	return list, err
}

func (s *sums) read(ctx context.Context, tx pgx.Tx, w *stretch, since time.Time) error {
	from, to := pgtype.TID{BlockNumber: uint32(w.from), Valid: true}, pgtype.TID{BlockNumber: uint32(w.upTo), Valid: true}
	rows, _ := tx.Query(ctx, w.sql, from, to, s.seed, since)
	var key, day *int32 // one of them
	var f figures
	into := []any{&key, &day}
	for i := range f {
		into = append(into, &f[i])
	}
	_, err := pgx.ForEachRow(rows, into, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if key != nil {
			w.byKey.add(*key, f)
		} else {
			w.byDay.add(*day, figures{0: f[0], 3: f[3]})
		}
		return nil
	})
	return err
}
