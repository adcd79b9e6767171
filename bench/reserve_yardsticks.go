package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/redis/go-redis/v9"

	"github.com/tidegate/tidegate/events"
)

const luaReserve = `local used = tonumber(redis.call('get', KEYS[1]) or '0')
if used + tonumber(ARGV[1]) > tonumber(ARGV[2]) then return -1 end
return redis.call('incrby', KEYS[1], ARGV[1])`

// yardsticks are the two usual ways to keep a cap, and what ours costs Postgres.
func (b *reserveBench) yardsticks(ctx context.Context, r *report) error {
	_, err := b.db.Exec(ctx, `create table if not exists yardstick_caps (port_id text primary key, used bigint not null, cap bigint not null) with (fillfactor = 50);
		insert into yardstick_caps select id, 0, 1::bigint << 50 from ports on conflict do nothing`)
	if err != nil {
		return err
	}
	const n = 64
	pid := b.s.procs[0].Process.Pid
	postgres := func() float64 { return cpuSeconds(pid) - cpuOf(pid) }
	script := redis.NewScript(luaReserve)
	type way struct {
		name string
		op   func(nc *nats.Conn, caller, i int) error
	}
	var rows [][]string
	run := 0
	for _, w := range []way{
		{"Tidegate reserve from leases, not settled", func(nc *nats.Conn, caller, i int) error {
			return ask(nc, events.Subject(events.SubjectReserve, b.port(caller, i)), []byte(`{"estimated_tokens":2000,"ttl_seconds":8}`))
		}},
		{"Tidegate reserve decided in Postgres, not settled", func(nc *nats.Conn, caller, i int) error {
			return ask(nc, events.Subject(events.SubjectReserve, b.port(caller, i)), fmt.Appendf(nil, `{"estimated_tokens":2000,"ttl_seconds":1,"idempotency_key":"%d-%d-%d"}`, run, caller, i))
		}},
		{"one conditional UPDATE in Postgres", func(_ *nats.Conn, caller, i int) error {
			_, err := b.db.Exec(ctx, "update yardstick_caps set used = used + 2000 where port_id = $1 and used + 2000 <= cap", b.port(caller, i))
			return err
		}},
		{"Redis, Lua check and increment (not durable)", func(_ *nats.Conn, caller, i int) error {
			return script.Run(ctx, b.redis, []string{b.port(caller, i)}, 2000, 1<<50).Err()
		}},
	} {
		var got []float64
		var p99, cpu []float64
		for range r.runs {
			run++
			before := postgres()
			var calls atomic.Int64
			x, err := callersFor(ctx, b.s.nats, n, heated, func(nc *nats.Conn, caller, i int) error {
				calls.Add(1)
				return w.op(nc, caller, i)
			})
			if err != nil {
				return err
			}
			got, p99 = append(got, x.perSecond), append(p99, float64(x.p99))
			cpu = append(cpu, (postgres()-before)*1e6/float64(calls.Load()))
			time.Sleep(1500 * time.Millisecond) // holds of this round expire
		}
		rows = append(rows, []string{w.name, thousands(median(got)), micros(time.Duration(median(p99))), fmt.Sprintf("%.0f µs", median(cpu))})
	}
	r.section("Reservations: against the usual ways", fmt.Sprintf("%d callers over %s ports. A conditional UPDATE and a Redis counter hold nothing: a crash leaks what was taken, and Redis forgets.", n, digits(b.cmd.Ports)))
	r.table([]string{"", "per second", "p99", "Postgres CPU each"}, rows)
	return nil
}
