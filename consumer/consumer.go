// Package consumer moves usage events from JetStream into the ledger: it pulls
// batches, books them, and acknowledges what is committed. What cannot be booked
// goes, whole and with the reason, to the quarantine stream.
package consumer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/tidegate/tidegate/consumer/stream"
	"github.com/tidegate/tidegate/internal/bus"
	"github.com/tidegate/tidegate/internal/killpoint"
	"github.com/tidegate/tidegate/internal/reservation/hold"
	"github.com/tidegate/tidegate/ledger"
)

// Ledger is what a consumer needs of [ledger.Ledger].
type Ledger interface {
	stream.Ledger
	BookShare(ctx context.Context, share ledger.Share, entries []ledger.Entry) (ledger.Booking, error)
	TrackStream(ctx context.Context, stream uuid.UUID, acknowledged uint64) (replaced *ledger.GoneStream, err error)
	Unbooked(ctx context.Context) (messages int64, err error)
	FoldBooked(ctx context.Context, stream uuid.UUID, last ledger.Mark) error
	Marks(ctx context.Context, stream uuid.UUID, limit int) ([]ledger.Mark, error)
	Unbook(ctx context.Context, stream uuid.UUID, from uint64) error
	ClaimRebooking(ctx context.Context, stream, by uuid.UUID) (mine bool, err error)
	Maintain(ctx context.Context, now time.Time) error
	Oldest(now time.Time) time.Time
	SweepHolds(ctx context.Context) ([]hold.Unsettled, error)
	Now(ctx context.Context) (time.Time, error)
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
	// fetched them died. All replicas must have the same. Default 2 s.
	AckWait time.Duration
	// Replicas is how many copies the streams must have. Default: three on a cluster of NATS,
	// one on a lone server.
	Replicas int
	// AdoptStreams takes over streams that belong to another ledger, which must not run
	// any more, and books all that they hold. By default Run refuses them.
	AdoptStreams bool
	// DrainTimeout is how long Run goes on booking what it has fetched after its
	// context ended. What is left then is handed back to the stream. Default 8 s.
	DrainTimeout time.Duration
	// Registerer gets the metrics. Default: none.
	Registerer prometheus.Registerer
	// Tracer gets a span of each booking. Default: none.
	Tracer trace.Tracer
	// Logger gets what an operator should know. Default slog.Default().
	Logger *slog.Logger
	// Now is this machine's clock. What gates are told goes by the database's, which the
	// consumer reckons from this one. Default time.Now.
	Now func() time.Time
}

// Consumer books events. Several may run, in one process or in many: they share
// one durable.
type Consumer struct {
	cfg      Config
	log      *slog.Logger
	js       jetstream.JetStream
	inFlight inFlight
	aside    *aside
	telling  *bus.Telling
	clock    ledger.Clock
	metrics  metrics
	id       uuid.UUID   // of this consumer, where consumers claim something
	trouble  trouble     // with booking
	doubt    atomic.Bool // whether the ledger has what the stream acknowledged, or the stream is the same
	lost     atomic.Int64

	mu     sync.Mutex
	source source // what is booked from
	health error  // why nothing is booked at this moment
}

// source is the stream and the durable that a consumer books from. Both may be made again
// while it runs.
type source struct {
	durable jetstream.Consumer
	stream  uuid.UUID
}

// New returns a consumer. It does not talk to the network.
func New(cfg Config) (*Consumer, error) {
	if cfg.Conn == nil || cfg.Ledger == nil {
		return nil, errors.New("consumer: Conn and Ledger are required")
	}
	cfg.BatchSize = cmp.Or(cfg.BatchSize, 25_000)
	cfg.AckWait = cmp.Or(cfg.AckWait, 2*time.Second)
	cfg.DrainTimeout = cmp.Or(cfg.DrainTimeout, 8*time.Second)
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	js, err := jetstream.New(cfg.Conn)
	if err != nil {
		return nil, fmt.Errorf("consumer: %w", err)
	}
	c := &Consumer{cfg: cfg, log: cfg.Logger, js: js, aside: newAside(), id: uuid.New(),
		health: errors.New("streams and partitions are not there yet")}
	c.metrics = newMetrics(cfg.Registerer, c.aside.count)
	c.telling = bus.NewTelling(cfg.Conn, func() time.Time { return c.clock.At(cfg.Now()) })
	return c, nil
}

// LostMessages is how many messages usage streams held that were deleted or lost within 35 days and that were
// not booked by then, as far as is known. It says nothing before the streams are there.
func (c *Consumer) LostMessages() int64 { return c.lost.Load() }

// Health says why the consumer does not book at this moment; nil while it does.
func (c *Consumer) Health() error {
	c.mu.Lock()
	err := c.health
	c.mu.Unlock()
	return cmp.Or(err, c.trouble.lasts(troubleTold), c.aside.health())
}

func (c *Consumer) setHealth(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.health = err
}

func (c *Consumer) current() source {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.source
}

// Run books until ctx ends. It returns after every fetched event is booked and
// acknowledged, quarantined, or handed back to the stream. It returns an error when a
// stream could lose events ([*stream.LossyError], [*replication.RefusedError]) or belongs to
// another ledger ([*stream.ForeignError]); it rides out everything else: Postgres or NATS being away,
// also at start, and streams or their durable being removed, which it makes again.
func (c *Consumer) Run(ctx context.Context) error {
	if err := c.prepare(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	c.telling.Heartbeat() // gates hear of this consumer before it books
	// Writers outlive ctx: they finish what was fetched.
	drain, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(c.cfg.DrainTimeout, stop) })()

	var group, housekeeping sync.WaitGroup // a panic in them ends the process: see cmd/tidegate
	queues := make([]chan part, writers)
	for i := range queues {
		queues[i] = make(chan part) // one batch is booked while the next is fetched: more would only wait, and have to be kept alive
		group.Go(func() { c.write(drain, i, queues[i]) })
	}
	background, stopBackground := context.WithCancel(drain)
	// Half of it: to keep a message alive costs NATS as much as to settle it, and most are settled by then.
	housekeeping.Go(func() { c.inFlight.keepAlive(background, c.cfg.AckWait/2, c.trouble.hopeless) })
	housekeeping.Go(func() { every(background, bus.HeartbeatEvery, c.telling.Heartbeat) })
	housekeeping.Go(func() { c.watch(background) })
	housekeeping.Go(func() { c.maintain(background) })
	housekeeping.Go(func() { c.sweep(background) })
	housekeeping.Go(func() { c.retry(background) })

	err := c.fetchLoop(ctx, queues)
	for _, q := range queues {
		close(q)
	}
	group.Wait()
	stopBackground()
	housekeeping.Wait()
	c.telling.Goodbye()
	// Acks are publishes: they count only once the server has them.
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if flushErr := c.cfg.Conn.FlushWithContext(flush); flushErr != nil {
		c.log.Warn("the last acknowledgements may not have arrived; those events will be delivered again and recognised", "error", flushErr)
	}
	return err
}

// maintain creates and drops partitions as months pass.
func (c *Consumer) maintain(ctx context.Context) {
	every(ctx, time.Hour, func() {
		if err := c.cfg.Ledger.Maintain(ctx, c.cfg.Now()); err != nil && ctx.Err() == nil {
			c.log.Warn("partitions could not be maintained, trying again in an hour", "error", err)
		}
	})
}

// sweep removes expired holds. Several consumers may do it at once.
func (c *Consumer) sweep(ctx context.Context) {
	every(ctx, 2*time.Second, func() {
		killpoint.Here("sweep")
		for more := true; more && ctx.Err() == nil; {
			found, err := c.cfg.Ledger.SweepHolds(ctx)
			if err != nil && ctx.Err() == nil {
				c.log.Warn("expired holds cannot be removed, trying again", "error", err)
			}
			more = c.countUnsettled(found) >= hold.SweepBatch
		}
	})
}

// every does something again and again, first after a while, until ctx ends.
func every(ctx context.Context, while time.Duration, do func()) {
	tick := time.NewTicker(while)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			do()
		}
	}
}

func (c *Consumer) countUnsettled(found []hold.Unsettled) (holds int64) {
	for _, u := range found {
		holds += u.Holds
		c.metrics.unsettled.Add(float64(u.Holds))
		c.metrics.unsettledTokens.Add(float64(u.Tokens))
		c.log.Warn("calls were allowed and never reported", "port_id", u.PortID, "holds", u.Holds, "tokens", u.Tokens)
	}
	return holds
}
