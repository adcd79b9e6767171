// Package consumer moves usage events from JetStream into the ledger: it pulls
// batches, books them, and acknowledges what is committed. What cannot be booked
// goes, whole and with the reason, to the quarantine stream.
package consumer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/internal/killpoint"
	"github.com/tidegate/tidegate/ledger"
)

// Ledger is what a consumer needs of [ledger.Ledger].
type Ledger interface {
	Book(ctx context.Context, entries []ledger.Entry) (ledger.Booking, error)
	Maintain(ctx context.Context, now time.Time) error
	Oldest(now time.Time) time.Time
	SweepHolds(ctx context.Context) ([]ledger.Unsettled, error)
}

// Config makes a [Consumer].
type Config struct {
	Conn   *nats.Conn // required; the consumer does not close it
	Ledger Ledger     // required

	// BatchSize is how many messages are fetched at once, at most; 10 MiB of payload
	// end a batch too. Default 25,000: the more events share a transaction, the more
	// of them share a totals row, but nats-server keeps account of every message that is
	// fetched and not acknowledged. Only a backlog makes batches that large.
	BatchSize int
	// AckWait is how long events wait for another consumer when the one that had
	// fetched them died. All replicas must have the same. Default 10 s.
	AckWait time.Duration
	// Replicas of streams that have to be created. Default 1.
	Replicas int
	// DrainTimeout is how long Run goes on booking what it has fetched after its
	// context ended. What is left then is handed back to the stream. Default 8 s.
	DrainTimeout time.Duration
	// Registerer gets the metrics. Default: none.
	Registerer prometheus.Registerer
	// Logger gets what an operator should know. Default slog.Default().
	Logger *slog.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Consumer books events. Several may run, in one process or in many: they share
// one durable.
type Consumer struct {
	cfg      Config
	log      *slog.Logger
	js       jetstream.JetStream
	inFlight inFlight
	notices  notices
	metrics  metrics
	ready    chan struct{} // closed once streams, durable and partitions exist
}

// New returns a consumer. It does not talk to the network.
func New(cfg Config) (*Consumer, error) {
	if cfg.Conn == nil || cfg.Ledger == nil {
		return nil, errors.New("consumer: Conn and Ledger are required")
	}
	setDefault(&cfg.BatchSize, defaultBatch)
	setDefault(&cfg.AckWait, 10*time.Second)
	setDefault(&cfg.Replicas, 1)
	setDefault(&cfg.DrainTimeout, 8*time.Second)
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	js, err := jetstream.New(cfg.Conn)
	if err != nil {
		return nil, fmt.Errorf("consumer: %w", err)
	}
	c := &Consumer{cfg: cfg, log: cfg.Logger, js: js, metrics: newMetrics(cfg.Registerer), ready: make(chan struct{})}
	c.notices = notices{conn: cfg.Conn, from: nuid.Next(), now: cfg.Now}
	return c, nil
}

func setDefault[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

// Ready is closed once the consumer books: its streams exist.
func (c *Consumer) Ready() <-chan struct{} { return c.ready }

// Run books until ctx ends. It returns after every fetched event is booked and
// acknowledged, quarantined, or handed back to the stream. It returns an error at
// once when a stream could lose events ([*LossyStreamError]); it rides out
// everything else: Postgres or NATS being away, also at start.
func (c *Consumer) Run(ctx context.Context) error {
	durable, err := c.prepare(ctx)
	if err != nil || durable == nil {
		return err
	}
	close(c.ready)
	// Writers outlive ctx: they finish what was fetched.
	drain, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(c.cfg.DrainTimeout, stop) })()

	var group, housekeeping sync.WaitGroup // a panic in them ends the process: see cmd/tidegate
	queues := make([]chan []delivery, writers)
	for i := range queues {
		queues[i] = make(chan []delivery, 1)
		group.Go(func() { c.write(drain, i, queues[i]) })
	}
	background, stopBackground := context.WithCancel(drain)
	housekeeping.Go(func() { c.inFlight.keepAlive(background, c.cfg.AckWait/3) })
	housekeeping.Go(func() { c.beat(background, durable) })
	housekeeping.Go(func() { c.maintain(background) })
	housekeeping.Go(func() { c.sweep(background) })

	c.fetchLoop(ctx, durable, queues)
	for _, q := range queues {
		close(q)
	}
	group.Wait()
	stopBackground()
	housekeeping.Wait()
	// Acks are publishes: they count only once the server has them.
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := c.cfg.Conn.FlushWithContext(flush); err != nil {
		c.log.Warn("the last acknowledgements may not have arrived; those events will be delivered again and recognised", "error", err)
	}
	return nil
}

// prepare waits until streams, durable and partitions exist. It returns nil,
// nil when ctx ended first.
func (c *Consumer) prepare(ctx context.Context) (jetstream.Consumer, error) {
	for wait := newBackoff(); ; {
		durable, err := c.tryPrepare(ctx)
		if err == nil {
			return durable, nil
		}
		if lossy := (*LossyStreamError)(nil); errors.As(err, &lossy) {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, nil
		}
		c.log.Warn("consumer cannot start yet, trying again", "error", err)
		wait.sleep(ctx)
	}
}

func (c *Consumer) tryPrepare(ctx context.Context) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := EnsureStreams(ctx, c.js, c.cfg.Replicas); err != nil {
		return nil, err
	}
	if err := c.cfg.Ledger.Maintain(ctx, c.cfg.Now()); err != nil {
		return nil, err
	}
	return ensureDurable(ctx, c.js, c.cfg.BatchSize, c.cfg.AckWait)
}

// maintain creates and drops partitions as months pass.
func (c *Consumer) maintain(ctx context.Context) {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := c.cfg.Ledger.Maintain(ctx, c.cfg.Now()); err != nil && ctx.Err() == nil {
				c.log.Warn("partitions could not be maintained, trying again in an hour", "error", err)
			}
		}
	}
}

// sweep removes expired holds. Several consumers may do it at once.
func (c *Consumer) sweep(ctx context.Context) {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		killpoint.Here("sweep")
		for more := true; more && ctx.Err() == nil; {
			found, err := c.cfg.Ledger.SweepHolds(ctx)
			if err != nil && ctx.Err() == nil {
				c.log.Warn("expired holds cannot be removed, trying again", "error", err)
			}
			more = c.countUnsettled(found) >= ledger.SweepBatch
		}
	}
}

func (c *Consumer) countUnsettled(found []ledger.Unsettled) (holds int64) {
	for _, u := range found {
		holds += u.Holds
		c.metrics.unsettled.Add(float64(u.Holds))
		c.metrics.unsettledTokens.Add(float64(u.Tokens))
		c.log.Warn("calls were allowed and never reported", "port_id", u.PortID, "holds", u.Holds, "tokens", u.Tokens)
	}
	return holds
}
