package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/redis/go-redis/v9"

	"github.com/tidegate/tidegate/events"
)

type reserveCmd struct {
	Ports int `default:"1000"`
}

// heated begins when ports have leases: the first few requests of one are decided in Postgres.
var heated = span{2 * time.Second, measureAt}

var reserveRequest = []byte(`{"feature":"ocr","user_id":"u1","estimated_tokens":2000}`)

// reserveBench is what all rounds share.
type reserveBench struct {
	cmd       *reserveCmd
	of        span
	s, echo   *system
	db        *pgxpool.Pool
	redis     *redis.Client
	publisher *events.Publisher // the one that callers record with
	shared    *events.Publisher // on the shared subject, many events a message
	byPort    *events.Publisher // each event on its port's subject
	settled   atomic.Int64
}

func (c *reserveCmd) Run(ctx context.Context, r *report) error {
	b := &reserveBench{cmd: c, of: heated}
	stop, err := b.start(ctx)
	if err != nil {
		return err
	}
	defer stop()
	r.section("Reservations: reserve and settle", fmt.Sprintf("Each caller reserves 2,000 tokens and records the usage event that settles them; a hold, or the lease it is made from, is committed to disk before the answer. %s ports, rounds alternate with the bare echo. "+
		"`booked` counts until the last settlement is committed: the consumer works beside the callers. Their publisher uses the shared subject, some 30 of these events in a message, except in the last line, where events go to their ports' subjects and seldom share a message. Measured after two seconds, when gates have leases of the ports.", digits(c.Ports)))
	if err := b.perCallers(ctx, r); err != nil {
		return err
	}
	if err := b.bound(ctx, r); err != nil {
		return err
	}
	if err := b.hotPort(ctx, r); err != nil {
		return err
	}
	if err := b.besideIngest(ctx, r); err != nil {
		return err
	}
	return b.yardsticks(ctx, r)
}

func (b *reserveBench) start(ctx context.Context) (stop func(), err error) {
	var stops []func()
	stop = func() {
		for i := len(stops) - 1; i >= 0; i-- {
			stops[i]()
		}
	}
	defer func() {
		if err != nil {
			stop()
		}
	}()
	if b.s, err = newSystem(); err != nil {
		return stop, err
	}
	stops = append(stops, b.s.remove)
	if err = b.s.run(ctx); err != nil {
		return stop, err
	}
	if b.db, err = pgxpool.New(ctx, b.s.database()); err != nil {
		return stop, err
	}
	stops = append(stops, b.db.Close)
	nc, err := b.s.connect()
	if err != nil {
		return stop, err
	}
	stops = append(stops, nc.Close)
	if b.shared, err = events.NewPublisher(nc, events.PublisherConfig{SharedSubject: true}); err != nil {
		return stop, err
	}
	stops = append(stops, func() { _ = b.shared.Close(context.WithoutCancel(ctx)) })
	if b.byPort, err = events.NewPublisher(nc, events.PublisherConfig{}); err != nil {
		return stop, err
	}
	stops = append(stops, func() { _ = b.byPort.Close(context.WithoutCancel(ctx)) })
	b.publisher = b.shared
	client, err := events.NewClient(nc, events.ClientConfig{WhenUnavailable: events.FailClosed})
	if err != nil {
		return stop, err
	}
	hard := int64(1 << 50)
	for i := range b.cmd.Ports {
		if _, err = client.Set(ctx, events.SetRequest{PortID: fmt.Sprintf("port-%04d", i), Enabled: true, HardCapTokens: &hard}); err != nil {
			return stop, err
		}
	}
	if b.echo, err = startEcho(480); err != nil {
		return stop, err
	}
	stops = append(stops, b.echo.remove)
	stopRedis, err := b.startRedis(ctx)
	stops = append(stops, stopRedis)
	return stop, err
}

// startRedis runs Debian's redis-server with its own defaults but no snapshots:
// what it answered is lost with the process.
func (b *reserveBench) startRedis(ctx context.Context) (func(), error) {
	addrs, err := freePorts(1)
	if err != nil {
		return func() {}, err
	}
	addr := addrs[0]
	cmd := exec.Command("redis-server", "--port", strings.TrimPrefix(addr, "127.0.0.1:"), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", b.s.dir)
	if err := cmd.Start(); err != nil {
		return func() {}, fmt.Errorf("the Redis yardstick: %w (apt-get install redis-server)", err)
	}
	b.redis = redis.NewClient(&redis.Options{Addr: addr, PoolSize: 64})
	stop := func() {
		_ = b.redis.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	for range 100 {
		if b.redis.Ping(ctx).Err() == nil {
			return stop, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return stop, b.redis.Ping(ctx).Err()
}

// reserveAndSettle is one call.
func (b *reserveBench) reserveAndSettle(nc *nats.Conn, port string) error {
	return b.reserveAs(nc, port, reserveRequest, "")
}

// reserveAs is one call, of a user that the request names.
func (b *reserveBench) reserveAs(nc *nats.Conn, port string, request []byte, user string) error {
	msg, err := nc.Request(events.Subject(events.SubjectReserve, port), request, 10*time.Second)
	if err != nil {
		return err
	}
	var v struct {
		Allowed       bool   `json:"allowed"`
		ReservationID string `json:"reservation_id"`
	}
	if err := json.Unmarshal(msg.Data, &v); err != nil || !v.Allowed {
		return fmt.Errorf("reserve answered %s: %w", msg.Data, err)
	}
	b.publisher.Record(events.Usage{PortID: port, Feature: "ocr", Provider: "openai", Model: "gpt-5-mini", InputTokens: 1500, OutputTokens: 400, UserID: user, ReservationID: v.ReservationID})
	b.settled.Add(1)
	return nil
}

// port picks at random, but the same for every system: callers that walked from
// port to port would wait for each other at slow ones and go on as one crowd.
func (b *reserveBench) port(caller, i int) string {
	x := uint64(caller)<<32 | uint64(i)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return fmt.Sprintf("port-%04d", (x^x>>31)%uint64(b.cmd.Ports))
}

// drain waits until everything that was recorded is booked, and until gates have
// given back what they had leased. It returns the time of the former.
func (b *reserveBench) drain(ctx context.Context) (allBooked time.Time, err error) {
	if err := b.publisher.Flush(ctx); err != nil {
		return allBooked, err
	}
	if dropped := b.publisher.Stats().Dropped; dropped > 0 {
		return allBooked, fmt.Errorf("the publisher fell behind and dropped %d events: there is nothing to compare", dropped)
	}
	for {
		var booked, held int64
		if err := b.db.QueryRow(ctx, "select (select coalesce(sum(requests), 0) from ai_usage_port_days)::bigint, (select coalesce(sum(tokens), 0)::bigint from ai_held_tokens where expires_at > clock_timestamp())").Scan(&booked, &held); err != nil {
			return allBooked, err
		}
		switch {
		case booked < b.settled.Load():
			time.Sleep(10 * time.Millisecond)
			continue
		case allBooked.IsZero():
			allBooked = time.Now()
		}
		if held == 0 {
			return allBooked, nil
		}
		if time.Since(allBooked) > 5*time.Second {
			return allBooked, fmt.Errorf("everything is booked, but %d tokens are held", held)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// sustained measures ours and counts, too, what was booked a second until nothing
// was left: events that still wait in the publisher have cost the system nothing.
func (b *reserveBench) sustained(ctx context.Context, n int, op func(nc *nats.Conn, caller, i int) error) (ours rate, booked float64, err error) {
	before, begin := b.settled.Load(), time.Now()
	if ours, err = callersFor(ctx, b.s.nats, n, b.of, op); err != nil {
		return ours, 0, err
	}
	end, err := b.drain(ctx)
	return ours, float64(b.settled.Load()-before) / end.Sub(begin).Seconds(), err
}
