// Package e2e tests the whole system as its users meet it: real NATS, real
// Postgres, the public clients, and the built binary where it is killed.
package e2e

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/admin/ops"
	"github.com/tidegate/tidegate/consumer"
	"github.com/tidegate/tidegate/consumer/stream"
	"github.com/tidegate/tidegate/dev"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/gate"
	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/identity/pgstore"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

func TestMain(m *testing.M) {
	http.DefaultClient.Timeout = 2 * time.Minute // of servers that stand still, too
	testenv.Main(m)
}

// system is a running Tidegate in this process.
type system struct {
	t         testing.TB
	nats      *dev.NATS
	url       string // of the database
	nc        *nats.Conn
	js        jetstream.JetStream
	db        *pgxpool.Pool
	ledger    *ledger.Ledger
	tokens    *pgstore.Store
	client    *events.Client
	publisher *events.Publisher
	ops       *ops.Client
	now       func() time.Time // the machine's clock
	clock     *testenv.Clock   // nil: the real one
	options   options
	consumer  *consumer.Consumer               // unless there are no roles
	differed  atomic.Pointer[ops.Verification] // what verified last saw
}

type options struct {
	ledger   ledger.Config
	consumer func(*consumer.Config)
	gates    int       // default 1; negative: none
	timezone string    // of the database
	at       time.Time // the clocks stand still there, until the test sets them
	noRoles  bool
	shared   bool // the publisher puts many events into a message
}

// start runs the system until the test ends.
func start(t testing.TB, o options) *system {
	t.Helper()
	s := &system{t: t, nats: testenv.NATS(t), url: testenv.Database(t), now: time.Now}
	s.nc = testenv.Connect(t, s.nats)
	s.js = testenv.Must(jetstream.New(s.nc))
	s.db = testenv.Must(pgxpool.New(t.Context(), s.url))
	t.Cleanup(s.db.Close)
	if o.timezone != "" {
		if _, err := s.db.Exec(t.Context(), fmt.Sprintf("alter database %q set timezone to '%s'", s.db.Config().ConnConfig.Database, o.timezone)); err != nil {
			t.Fatal(err)
		}
	}
	if !o.at.IsZero() {
		s.clock = testenv.NewClock(t, s.url)
		s.clock.Stop(o.at)
		s.now = s.clock.Now
	}
	s.db.Reset() // sessions begin with all that
	o.ledger.URL = s.url
	s.ledger = testenv.Must(ledger.Open(t.Context(), o.ledger))
	t.Cleanup(s.ledger.Close)
	s.tokens = testenv.Must(pgstore.Open(t.Context(), s.url))
	t.Cleanup(s.tokens.Close)
	s.publisher = testenv.Must(events.NewPublisher(s.nc, events.PublisherConfig{SharedSubject: o.shared}))
	t.Cleanup(func() { _ = s.publisher.Close(context.Background()) })
	s.client = testenv.Must(events.NewClient(s.nc, events.ClientConfig{WhenUnavailable: events.FailClosed, Publisher: s.publisher, Service: "test", Timeout: 5 * time.Second}))
	s.ops = ops.NewClient(s.nc, 30*time.Second)
	s.options = o
	t.Cleanup(func() {
		if v := s.differed.Load(); v != nil && t.Failed() {
			t.Logf("what last differed: %+v", *v)
		}
	})
	if !o.noRoles {
		s.run()
	}
	return s
}

// ensureStreams makes the streams before any consumer, so they are nobody's yet.
func ensureStreams(t testing.TB, js jetstream.JetStream) {
	t.Helper()
	if _, _, err := stream.Ensure(t.Context(), js, 1, uuid.Nil, false); err != nil {
		t.Fatal(err)
	}
}

var ledgerOfKnownPorts = ledger.Config{KnownPortsOnly: true}

// run starts the roles.
func (s *system) run() {
	t, o := s.t, s.options
	t.Helper()
	cc := consumer.Config{Conn: testenv.Connect(t, s.nats), Ledger: s.ledger, AckWait: time.Second, Now: s.now}
	if o.consumer != nil {
		o.consumer(&cc)
	}
	s.consumer = testenv.Must(consumer.New(cc))
	s.background(s.consumer.Run)
	watcher := stream.NewWatcher(s.js, s.ledger, false)
	s.background(watcher.Run)
	testenv.Eventually(s.t, "the consumer has made its streams", func() bool {
		_, err := s.js.Consumer(t.Context(), events.UsageStream, events.ConsumerName)
		return err == nil
	})
	s.background(testenv.Must(ops.New(ops.Config{Conn: testenv.Connect(t, s.nats), Ledger: s.ledger, Tokens: identity.NewTokens(s.tokens, nil), Now: s.now})).Run)
	if o.gates == 0 {
		o.gates = 1
	}
	for range o.gates {
		g := testenv.Must(gate.New(gate.Config{Conn: testenv.Connect(t, s.nats), Ledger: s.ledger, Now: s.now, MaxStale: -1, Behind: watcher.Behind, Backlog: watcher.Backlog}))
		s.background(g.Run)
		testenv.Await(t, "the gate is ready", g.Ready())
	}
}

func (s *system) background(run func(context.Context) error) { testenv.Background(s.t, run) }

func (s *system) setBudget(port string, soft, hard int64, period events.Period) {
	s.t.Helper()
	r := events.SetRequest{PortID: port, Enabled: true, Period: period}
	if soft >= 0 {
		r.SoftCapTokens = &soft
	}
	if hard >= 0 {
		r.HardCapTokens = &hard
	}
	if _, err := s.client.Set(s.t.Context(), r); err != nil {
		s.t.Fatal(err)
	}
}

func (s *system) check(port string, estimate int64) events.Verdict {
	s.t.Helper()
	v, err := s.client.Check(s.t.Context(), events.CheckRequest{PortID: port, Feature: "ocr", EstimatedTokens: estimate})
	if err != nil {
		s.t.Fatal(err)
	}
	return v
}

// spend records a call of that many tokens and waits until the gate knows.
func (s *system) spend(port string, tokens int64, at time.Time) {
	s.t.Helper()
	var before int64
	if err := s.db.QueryRow(s.t.Context(), "select coalesce(sum(total_tokens), 0)::bigint from ai_usage_port_days where port_id = $1", port).Scan(&before); err != nil {
		s.t.Fatal(err)
	}
	u := usage(port, tokens)
	u.OccurredAt = at
	s.publisher.Record(u)
	testenv.Eventually(s.t, "the call is booked and known to the gates", func() bool {
		return s.booked(port) == before+tokens && s.verified()
	})
}

func (s *system) booked(port string) (tokens int64) {
	s.t.Helper()
	if err := s.db.QueryRow(s.t.Context(), "select coalesce(sum(total_tokens), 0)::bigint from ai_usage_ledger where port_id = $1", port).Scan(&tokens); err != nil {
		s.t.Fatal(err)
	}
	return tokens
}

// verified says whether ledger, totals and gates agree. How they last did not is in the output
// of a test that fails.
func (s *system) verified() bool {
	s.t.Helper()
	v, err := s.ops.Verify(s.t.Context(), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if !v.OK {
		s.differed.Store(&v)
	}
	return v.OK
}

// flush returns once all that was recorded is stored.
func (s *system) flush() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	if err := s.publisher.Flush(ctx); err != nil {
		s.t.Fatalf("what was recorded is not stored: %v; %+v", err, s.publisher.Stats())
	}
}

func usage(port string, tokens int64) events.Usage {
	return events.Usage{PortID: port, Feature: "ocr", Provider: "openai", Model: "gpt-5-mini", InputTokens: tokens - tokens/3, OutputTokens: tokens / 3}
}

// publishEach publishes events of p1 one after the other, each in a message of its own, and
// returns once all are stored.
func (s *system) publishEach(p *events.Publisher, tokens ...int64) {
	s.t.Helper()
	for _, n := range tokens {
		if err := p.Publish(s.t.Context(), []events.Usage{usage("p1", n)}); err != nil {
			s.t.Fatal(err)
		}
	}
}
