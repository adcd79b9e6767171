package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/tidegate/tidegate/events"
)

// copyYardstick writes the ledger's own rows again, into a table like it.
func (c *ingestCmd) copyYardstick(ctx context.Context, db *pgxpool.Pool) (float64, error) {
	_, err := db.Exec(ctx, `create table yardstick (like ai_usage_ledger including defaults including constraints) partition by range (created_at);
		alter table yardstick add primary key (port_id, created_at, id);
		create index on yardstick (port_id, feature, created_at);
		create table yardstick_now partition of yardstick default`)
	if err != nil {
		return 0, err
	}
	batches, err := dumpLedger(ctx, db, 5_000)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	group, gctx := errgroup.WithContext(ctx)
	for n := range 2 {
		group.Go(func() error {
			conn, err := db.Acquire(gctx)
			if err != nil {
				return err
			}
			defer conn.Release()
			for i := n; i < len(batches); i += 2 {
				if _, err := conn.Conn().PgConn().CopyFrom(gctx, bytes.NewReader(batches[i]), "copy yardstick from stdin binary"); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	rate := float64(c.Events) / time.Since(start).Seconds()
	_, err = db.Exec(ctx, "truncate yardstick")
	return rate, err
}

// dumpLedger returns the ledger's rows as binary COPY input, batch by batch, each
// sorted by port as the consumer does it.
func dumpLedger(ctx context.Context, db *pgxpool.Pool, size int) (batches [][]byte, err error) {
	conn, err := db.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Release()
	var dump bytes.Buffer
	_, err = conn.Conn().PgConn().CopyTo(ctx, &dump, fmt.Sprintf(`copy (select created_at, id, input_tokens, output_tokens, total_tokens,
			cache_read_input_tokens, cache_write_input_tokens, reasoning_output_tokens, port_id, feature, provider, model, measured_by, status, user_id, request_id, response_id, run_id
		from (select *, (row_number() over (order by id) - 1) / %d as batch from ai_usage_ledger) l
		order by batch, port_id, id) to stdout binary`, size))
	if err != nil {
		return nil, err
	}
	const header = 19
	b := dump.Bytes()
	head, at := b[:header], header
	for begin := at; ; {
		tuples := 0
		for ; tuples < size && int16(binary.BigEndian.Uint16(b[at:])) >= 0; tuples++ {
			fields := binary.BigEndian.Uint16(b[at:])
			at += 2
			for range fields {
				length := int32(binary.BigEndian.Uint32(b[at:]))
				at += 4 + int(max(length, 0))
			}
		}
		if tuples == 0 {
			return batches, nil
		}
		batches = append(batches, slices.Concat(head, b[begin:at], []byte{0xff, 0xff}))
		begin = at
	}
}

func (c *ingestCmd) insertYardstick(ctx context.Context, db *pgxpool.Pool) (float64, error) {
	const each, conns = 2_000, 8
	start := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for range conns {
		group.Go(func() error {
			conn, err := pgx.ConnectConfig(ctx, db.Config().ConnConfig)
			if err != nil {
				return err
			}
			defer conn.Close(ctx)
			for i := range each {
				u := sampleUsage(i % c.Ports)
				id, _ := events.ParseUUIDv7(u.ID)
				_, err := conn.Exec(ctx, `insert into yardstick (created_at, id, input_tokens, output_tokens, total_tokens, port_id, feature, provider, model, user_id, request_id, response_id)
					values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`, events.UUIDv7Time(id), id, u.InputTokens, u.OutputTokens, u.TotalTokens(),
					u.PortID, u.Feature, u.Provider, u.Model, u.UserID, u.RequestID, u.ResponseID)
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := group.Wait()
	return each * conns / time.Since(start).Seconds(), err
}
