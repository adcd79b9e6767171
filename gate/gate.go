// Package gate answers, from memory, whether a port may still spend tokens this
// period. It is a NATS micro service; any number of replicas share the work.
package gate

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/bus"
	"github.com/tidegate/tidegate/internal/changes"
	"github.com/tidegate/tidegate/internal/reservation/broker"
	"github.com/tidegate/tidegate/internal/service"
	"github.com/tidegate/tidegate/ledger"
)

// Config makes a [Gate].
type Config struct {
	// Conn is the gate's own connection: it carries nothing else, so that no slow
	// work delays an answer. Run drains and closes it. Required.
	Conn *nats.Conn
	// Ledger is where totals and budgets are read and budgets are stored. Required.
	Ledger *ledger.Ledger

	// MaxStale is how old the gate's knowledge may be before it refuses, with
	// gate_stale, ports that have a hard cap. It grows old when neither Postgres nor
	// a consumer can be heard. Default 5 minutes; negative: never refuse for that.
	MaxStale time.Duration
	// ReserveTimeout is how long Postgres may take over a reservation before the
	// caller gets a fault (503) and its own policy decides. Default 1 s.
	ReserveTimeout time.Duration
	// LeaseFrom is how many reservations of a port, for one feature and lifetime, within the time
	// that a lease would last, and 4 s at most, make the gate lease a part of the port's
	// headroom, from which it makes holds without asking Postgres. Default 4; negative: never.
	LeaseFrom int
	// Behind says that the ledger lacks what the usage stream has acknowledged, as after an
	// older copy of the database was put back. It is asked often and must not wait. While it is
	// not nil, as_of stands still, nothing is held of ports with a hard cap (503), and a gate
	// that has not begun to answer waits. Default: nothing says so.
	Behind func() error
	// Backlog says what waits in the usage stream to be booked, so that checks say it too. It
	// is asked by each of them and must not wait. Default: nothing waits.
	Backlog func() events.Backlog
	// Replicas is how many copies the streams of alerts and of changes of budgets have, if this
	// gate makes them. Default: three on a cluster of NATS, one on a lone server.
	Replicas int
	// AdoptStreams takes over the stream of changes of another ledger, which must not run any
	// more, with all its budgets. By default it is left alone.
	AdoptStreams bool
	// TopPorts is how many ports the metrics name: those that are nearest to their own hard
	// cap. Default 20, at most 100; negative: none.
	TopPorts int
	// Registerer gets the metrics. Default: none.
	Registerer prometheus.Registerer
	// Tracer gets a span of each request whose caller has one. Default: none.
	Tracer trace.Tracer
	// Logger gets what an operator should know. Default slog.Default().
	Logger *slog.Logger
	// Now is this machine's clock. Decisions go by the database's, which the gate reckons
	// from this one; each reads it once. Default time.Now.
	Now func() time.Time
}

// Gate answers budget questions.
type Gate struct {
	cfg       Config
	id        string
	log       *slog.Logger
	memory    *memory
	clock     ledger.Clock
	hearing   *bus.Hearing
	alerts    chan ledger.Alert
	js        jetstream.JetStream
	keeper    alertKeeper
	changes   *changes.Keeper
	refusals  refusals        // that the ledger does not have yet
	caution   caution         // of who reads everything
	learning  chan bus.Budget // with limits, whose counters are to be read
	warned    atomic.Int64    // when a message that was ignored was last logged
	overshoot int64           // the largest seen, guarded by memory.mu
	ready     chan struct{}   // closed once everything is loaded and the service answers
	heldRead  atomic.Int64    // when what is held was last read, Unix ns

	reservations *broker.Broker // holds tokens of ports, and knows what is held

	complain         rate.Sometimes // of a ledger that cannot be asked
	complainOfAlerts rate.Sometimes // that do not go out
	clockWarned      time.Time      // when this machine's clock was last said to be wrong

	subs    []*nats.Subscription // to what changes the memory; set before ready is closed
	service *service.Service
	metrics metrics
}

// New returns a gate. It does not talk to the network.
func New(cfg Config) (*Gate, error) {
	if cfg.Conn == nil || cfg.Ledger == nil {
		return nil, errors.New("gate: Conn and Ledger are required")
	}
	js, err := jetstream.New(cfg.Conn, jetstream.WithPublishAsyncTimeout(alertTimeout))
	if err != nil {
		return nil, err
	}
	cfg.TopPorts = min(cmp.Or(cfg.TopPorts, 20), 100)
	cfg.ReserveTimeout = cmp.Or(cfg.ReserveTimeout, time.Second)
	cfg.LeaseFrom = cmp.Or(cfg.LeaseFrom, 4)
	cfg.MaxStale = cmp.Or(cfg.MaxStale, 5*time.Minute)
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Behind == nil {
		cfg.Behind = func() error { return nil }
	}
	keeper, err := changes.NewKeeper(changes.KeeperConfig{Conn: cfg.Conn, Ledger: cfg.Ledger, Replicas: cfg.Replicas, AdoptStreams: cfg.AdoptStreams, Registerer: cfg.Registerer, Logger: cfg.Logger})
	if err != nil {
		return nil, err
	}
	behind := cfg.Behind
	cfg.Behind = func() error {
		if err := behind(); err != nil {
			return err
		}
		return keeper.Behind()
	}
	g := &Gate{
		cfg: cfg, js: js, id: nuid.Next(), log: cfg.Logger, memory: newMemory(), hearing: bus.NewHearing(),
		changes: keeper, alerts: make(chan ledger.Alert, 1024), learning: make(chan bus.Budget, 1024),
		ready: make(chan struct{}), complain: rate.Sometimes{Interval: 10 * time.Second}, complainOfAlerts: rate.Sometimes{Interval: time.Minute},
	}
	g.reservations = g.newBroker(cfg.Ledger.Reservations)
	g.metrics = newMetrics(cfg.Registerer, g)
	g.service = g.newService()
	return g, nil
}

// Ready is closed once the gate has loaded all totals and answers.
func (g *Gate) Ready() <-chan struct{} { return g.ready }

// AsOf is the time up to which every commit is remembered.
func (g *Gate) AsOf() time.Time {
	g.memory.mu.RLock()
	defer g.memory.mu.RUnlock()
	asOf := g.memory.age()
	if read := g.reservations.AsOf(); read.Before(asOf) {
		return read
	}
	return asOf
}

// Run loads the totals and then answers until ctx ends. A gate that is still loading,
// or waits for NATS, does not answer; other replicas do. Run returns after every request
// it took is answered and its connection is closed. While Postgres is away it goes on
// answering from memory, ever older (as_of), and heals by itself.
func (g *Gate) Run(ctx context.Context) error {
	if err := g.listen(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	background, stop := context.WithCancel(ctx)
	defer stop()
	var group sync.WaitGroup // a panic in it ends the process: see cmd/tidegate
	group.Go(func() { g.changes.Run(background) })
	group.Go(func() { g.publishAlerts(background) })
	group.Go(func() { g.alertOfLimits(background) })
	group.Go(func() { g.learnBudgets(background) })
	err := g.awaitLedger(ctx)
	if err == nil {
		err = g.resyncUntilLoaded(ctx)
	}
	if err == nil {
		group.Go(func() { g.watchLedger(background) })
		group.Go(func() { g.keepInSync(background) })
		group.Go(func() { g.followHolds(background) })
		group.Go(func() { g.keepWritingRefusals(background) })
		err = g.serve(ctx)
	}
	stop()
	group.Wait()
	g.writeRefusals(context.WithoutCancel(ctx))
	for _, sub := range g.subs {
		_ = sub.Unsubscribe()
	}
	g.drain()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// serve answers until ctx ends, and then finishes what it has begun.
func (g *Gate) serve(ctx context.Context) error {
	stopReserving := g.reservations.Start(context.WithoutCancel(ctx))
	defer stopReserving()
	if err := g.service.Start(ctx, g.endpoints(ctx)); err != nil {
		return err
	}
	close(g.ready)
	<-ctx.Done()
	return g.service.Stop()
}

// drain sends what is still to be sent and closes the connection.
func (g *Gate) drain() {
	closed := make(chan struct{})
	g.cfg.Conn.SetClosedHandler(func(*nats.Conn) { close(closed) })
	if err := g.cfg.Conn.Drain(); err != nil {
		g.cfg.Conn.Close() // not connected: nothing to drain
		return
	}
	select {
	case <-closed:
	case <-time.After(3 * time.Second):
		g.cfg.Conn.Close()
	}
}

// verdict answers a check. The clock is read once.
func (g *Gate) verdict(q *events.CheckRequest) events.Verdict {
	now := g.now()
	r, count, asOf := g.reservations.Known(q.PortID, now)
	call := q.Call()
	var counts budget.Counts
	if len(r.Limits()) > 0 {
		counts = g.memory.counts(q.PortID)
	}
	v := events.NewVerdict(budget.Decide(r, count, &call, counts, now))
	if q.Explain {
		v.Limits = events.NewLimitVerdicts(budget.Explain(r, count, &call, counts, now))
	}
	v.AsOf = asOf
	if g.cfg.Backlog != nil {
		if b := g.cfg.Backlog(); b.Age(now) > bus.HeartbeatEvery {
			v.Backlog = b
		}
	}
	if v.Allowed && v.HardCapTokens != nil && r.Enabled && g.cfg.MaxStale > 0 && now.Sub(asOf) > g.cfg.MaxStale {
		v.Allowed, v.Reason = false, events.ReasonGateStale
	}
	return v
}
