package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/gate"
	"github.com/tidegate/tidegate/ledger"
)

const (
	chaosGates   = 3
	chaosCallers = 64
	chaosPorts   = 16
	chaosCap     = 300
	chaosFor     = 1500 * time.Millisecond
)

// TestChaos runs 64 callers that reserve, settle (some twice, some with another
// port's reservation), release and forget against three gates of which one or
// the other is torn down and whose database sessions are killed, and checks each
// history against the model in model_test.go. `make chaos SEED=… RUNS=…` runs more.
func TestChaos(t *testing.T) {
	seed, runs := envInt(t, "CHAOS_SEED", 1), envInt(t, "CHAOS_RUNS", 4)
	for i := range runs {
		t.Run(fmt.Sprintf("seed=%d", seed+i), func(t *testing.T) {
			c := newChaos(t, seed+i, "")
			c.run()
			c.mustBeLegal()
			t.Logf("%s", c.tally())
		})
	}
}

// TestChaosFindsPlantedBugs plants five bugs, each as a side effect in the
// database, and wants the checker to object to each.
func TestChaosFindsPlantedBugs(t *testing.T) {
	for bug := range plants {
		t.Run(bug, func(t *testing.T) {
			for attempt := range 5 { // a race needs its chance
				c := newChaos(t, 1000+attempt, bug)
				c.run()
				if illegal, _ := c.check(); len(illegal) > 0 {
					t.Logf("caught: %s", illegal[0])
					return
				}
			}
			t.Errorf("the checker accepted five histories with the bug %q", bug)
		})
	}
}

func envInt(t *testing.T, name string, otherwise int) int {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		return otherwise
	}
	n, err := strconv.Atoi(value)
	if err != nil {
		t.Fatalf("%s=%q is no number", name, value)
	}
	return n
}

// plants are bugs as a trigger would cause them in the real tables.
var plants = map[string]string{
	"expire early": `create function plant() returns trigger language plpgsql as $$ begin
		new.expires_at := new.created_at + interval '30 milliseconds'; return new; end $$;
		create trigger plant before insert on ai_budget_holds for each row execute function plant()`,
	"hold not counted": `create function plant() returns trigger language plpgsql as $$ begin
		new.tokens := 0; return new; end $$;
		create trigger plant before insert on ai_budget_holds for each row execute function plant()`,
	"settle twice": `create function plant() returns trigger language plpgsql as $$ begin
		delete from ai_budget_holds where (port_id, id) in (select port_id, id from ai_budget_holds where port_id = old.port_id limit 1 for update skip locked);
		return null; end $$;
		create trigger plant after delete on ai_budget_holds for each row when (pg_trigger_depth() = 0) execute function plant()`,
	"foreign id accepted": "", // done where the foreign event is recorded
	"crash forgets holds": "", // done where the gate is torn down
}

type chaos struct {
	*system
	seed   int
	bug    string
	random *rand.Rand

	mu      sync.Mutex
	history []operation
	gates   []*mortal
}

// mortal is a gate that can be torn down at any moment.
type mortal struct {
	conn   *nats.Conn
	ledger *ledger.Ledger
	cancel context.CancelFunc
	done   chan struct{}
}

func newChaos(t *testing.T, seed int, bug string) *chaos {
	s := start(t, options{gates: -1})
	c := &chaos{system: s, seed: seed, bug: bug, random: rand.New(rand.NewPCG(uint64(seed), 1))}
	for range chaosGates {
		c.gates = append(c.gates, c.birth())
	}
	s.eventually("a gate answers", func() bool {
		_, err := s.client.Get(t.Context(), "p")
		return err == nil
	})
	for p := range chaosPorts {
		s.setBudget(chaosPort(p), -1, chaosCap, events.PeriodMonth)
	}
	if sql := plants[bug]; sql != "" {
		if _, err := s.db.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func chaosPort(p int) string { return fmt.Sprintf("port-%d", p) }

func (c *chaos) birth() *mortal {
	ctx, cancel := context.WithCancel(context.Background())
	m := &mortal{conn: must(nats.Connect(c.nats.ClientURL())), ledger: must(ledger.Open(ctx, ledger.Config{URL: c.url})), cancel: cancel, done: make(chan struct{})}
	g := must(gate.New(gate.Config{Conn: m.conn, Ledger: m.ledger, ReserveTimeout: 500 * time.Millisecond}))
	go func() {
		defer close(m.done)
		_ = g.Run(ctx)
		m.ledger.Close()
	}()
	return m
}

// death cuts the gate off in the middle of whatever it does.
func (m *mortal) death() {
	m.conn.Close()
	m.cancel()
	<-m.done
}

// run lets callers and calamities loose, and returns when all is quiet.
func (c *chaos) run() {
	ctx, cancel := context.WithTimeout(c.t.Context(), chaosFor)
	defer cancel()
	var group sync.WaitGroup
	for caller := range chaosCallers {
		group.Go(func() { c.caller(ctx, caller) })
	}
	group.Go(func() { c.calamities(ctx) })
	group.Wait()
	for _, g := range c.gates[1:] {
		g.death()
	}
	c.t.Cleanup(c.gates[0].death) // verification asks one
}

func (c *chaos) calamities(ctx context.Context) {
	for ctx.Err() == nil {
		time.Sleep(time.Duration(100+c.random.IntN(200)) * time.Millisecond)
		switch c.random.IntN(3) {
		case 0, 1:
			i := c.random.IntN(len(c.gates))
			c.gates[i].death()
			if c.bug == "crash forgets holds" {
				c.exec("delete from ai_budget_holds")
			}
			c.gates[i] = c.birth()
		case 2:
			c.exec(`select pg_terminate_backend(pid) from pg_stat_activity
				where datname = current_database() and application_name = 'tidegate' order by random() limit 2`)
		}
	}
}

func (c *chaos) exec(sql string) {
	if _, err := c.db.Exec(context.Background(), sql); err != nil {
		c.t.Errorf("%s: %v", sql, err)
	}
}

// caller makes calls until ctx ends, like a service with many users.
func (c *chaos) caller(ctx context.Context, n int) {
	random := rand.New(rand.NewPCG(uint64(c.seed), uint64(n)+100))
	client := must(events.NewClient(c.nc, events.ClientConfig{WhenUnavailable: events.FailClosed, Publisher: c.publisher, Timeout: 300 * time.Millisecond}))
	for i := 0; ctx.Err() == nil; i++ {
		port := chaosPort(random.IntN(chaosPorts))
		r := c.reserve(client, port, int64(1+random.IntN(60)), 1+random.Int64N(2)*59, fmt.Sprintf("%d-%d", n, i))
		if !r.Allowed {
			time.Sleep(time.Duration(random.IntN(40)) * time.Millisecond)
			continue
		}
		time.Sleep(time.Duration(random.IntN(60)) * time.Millisecond)
		actual := random.Int64N(r.GrantedTokens + 1)
		switch random.IntN(8) {
		case 0: // forgets: the hold expires
		case 1:
			c.release(client, port, r.ReservationID)
		case 2: // reports twice, as two events
			c.settle(port, r.ReservationID, actual)
			c.settle(port, r.ReservationID, min(actual, 3))
		case 3: // a foreign reservation frees nobody
			other := chaosPort((random.IntN(chaosPorts-1) + 1 + portNumber(port)) % chaosPorts)
			c.settleForeign(other, r.ReservationID, 1)
			c.settle(port, r.ReservationID, actual)
		default:
			c.settle(port, r.ReservationID, actual)
		}
	}
}

func portNumber(port string) int {
	n, _ := strconv.Atoi(port[len("port-"):])
	return n
}

// reserve asks until somebody answers. Its key makes the tries one request.
func (c *chaos) reserve(client *events.Client, port string, tokens, ttl int64, key string) *events.Reservation {
	begin := time.Now()
	for {
		r, err := client.Reserve(context.Background(), events.ReserveRequest{PortID: port, Feature: "ocr", EstimatedTokens: tokens, TTLSeconds: ttl, IdempotencyKey: key})
		if err == nil {
			c.record(begin, operation{port: port, kind: opReserve, tokens: tokens, id: r.ReservationID, ok: r.Allowed})
			if r.Allowed {
				c.recordExpiry(port, r.ReservationID, r.ExpiresAt)
			}
			return r
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (c *chaos) release(client *events.Client, port, id string) {
	begin := time.Now()
	for client.Release(context.Background(), port, id) != nil {
		time.Sleep(5 * time.Millisecond)
	}
	c.record(begin, operation{port: port, kind: opRelease, id: id})
}

// settle records a call and waits until it is booked.
func (c *chaos) settle(port, reservation string, tokens int64) {
	begin := time.Now()
	u := usage(port, tokens)
	u.ID, u.ReservationID = events.NewUUIDv7(begin).String(), reservation
	c.publisher.Record(u)
	c.eventually("a call is booked", func() bool {
		var n int
		err := c.db.QueryRow(context.Background(), "select count(*) from ai_usage_ledger where port_id = $1 and id = $2", port, u.ID).Scan(&n)
		return err == nil && n == 1
	})
	c.record(begin, operation{port: port, kind: opSettle, id: reservation, tokens: tokens})
}

func (c *chaos) settleForeign(port, reservation string, tokens int64) {
	c.settle(port, reservation, tokens)
	if c.bug == "foreign id accepted" {
		c.exec("delete from ai_budget_holds where id = '" + reservation + "'")
	}
}

func (c *chaos) record(begin time.Time, op operation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	op.call, op.ret = begin.UnixNano(), time.Now().UnixNano()
	c.history = append(c.history, op)
}

// clockSlack is between this process's clock and the database's: one machine,
// but a reading is not taken at the very moment of the statement.
const clockSlack = 5 * time.Millisecond

func (c *chaos) recordExpiry(port, id string, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.history = append(c.history, operation{port: port, kind: opExpire, id: id, call: at.Add(-clockSlack).UnixNano(), ret: at.Add(clockSlack).UnixNano()})
}
