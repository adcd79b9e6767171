package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/gate"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

const (
	chaosGates   = 3
	chaosCallers = 4 // of each port: what more do at once, the checker cannot order in time
	chaosPorts   = 16
	chaosFor     = 2 * time.Second

	reserveTimeout = 500 * time.Millisecond
)

// chaosCap is a port's hard cap: one that is too small for slices, one that is
// reached while slices are about, and one that is not reached.
func chaosCap(port string) int64 { return [...]int64{30, 120, 150, 1000}[portNumber(port)%4] }

// TestChaos runs 64 callers that reserve, settle (some twice, some with another
// port's reservation), release and forget against three gates of which one or
// the other is cut off or stopped and whose database sessions are killed, and checks
// each history against the model in model_test.go. In every second one a second consumer
// is killed again and again, after its commit too; in the others a day ends, and the
// gates' clocks are 3 s ahead, 3 s behind and right. `make chaos SEED=… RUNS=…` runs more.
func TestChaos(t *testing.T) {
	seed, runs := envInt(t, "CHAOS_SEED", 1), envInt(t, "CHAOS_RUNS", 2)
	for i := range runs {
		t.Run(fmt.Sprintf("seed=%d", seed+i), func(t *testing.T) {
			c := newChaos(t, seed+i, "")
			c.run()
			c.mustBeLegal()
			t.Logf("%s", c.tally())
		})
	}
}

// TestChaosFindsPlantedBugs plants bugs, each as a side effect in the database, and
// wants the checker to object to each: to one of them here, to all in `make chaos`. The one
// here shows in the first history, which is a small one, however few calls a busy machine makes in it.
func TestChaosFindsPlantedBugs(t *testing.T) {
	t.Parallel()
	findPlanted(t, plants, "hold not counted")
}

func findPlanted(t *testing.T, plants map[string]string, one string, change ...func(*chaos)) {
	for bug := range plants {
		if bug != one && os.Getenv("CHAOS_PLANTS") != "all" {
			continue
		}
		t.Run(bug, func(t *testing.T) {
			for attempt, ports := range plantedPorts { // a race needs its chance
				c := newChaos(t, 999+attempt, bug, append(change, func(c *chaos) { c.ports = ports })...)
				c.run()
				if illegal, _ := c.check(1); len(illegal) > 0 {
					t.Logf("caught in history %d: %v", attempt+1, illegal)
					return
				}
			}
			t.Errorf("the checker accepted %d histories with the bug %q", len(plantedPorts), bug)
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
		create trigger plant before insert on ai_budget_holds for each row execute function plant();
		create trigger plant before insert on ai_budget_slices for each row execute function plant()`,
	"hold not counted": `create function plant() returns trigger language plpgsql as $$ begin
		new.tokens := 0; return new; end $$;
		create trigger plant before insert on ai_budget_holds for each row execute function plant()`,
	"slice not counted": `create function plant() returns trigger language plpgsql as $$ begin
		new.tokens := 0; return new; end $$;
		create trigger plant before insert on ai_budget_slices for each row execute function plant()`,
	"settle twice": `create function plant() returns trigger language plpgsql as $$ begin
		delete from ai_budget_holds where (port_id, id) in (select port_id, id from ai_budget_holds where port_id = old.port_id limit 1 for update skip locked);
		return null; end $$;
		create trigger plant after delete on ai_budget_holds for each row when (pg_trigger_depth() = 0) execute function plant()`,
	"settle twice in a slice": `create function plant() returns trigger language plpgsql as $$ begin
		new.closed_tokens := new.closed_tokens + (new.closed_tokens - old.closed_tokens); return new; end $$;
		create trigger plant before update on ai_budget_slices for each row execute function plant()`,
	"foreign id accepted": "", // done where the foreign event is recorded
	crashForgets:          "", // done where the gate is torn down
}

const crashForgets = "crash forgets holds"

type chaos struct {
	*system
	seed   int
	bug    string
	ports  int
	limits bool           // ports have limits, which change
	hasty  *events.Client // changes them
	random *rand.Rand

	mu       sync.Mutex
	history  []operation
	asked    map[string]operation     // reserves, answered or not, by the service they named
	unbooked map[string]chan struct{} // recorded events
	late     *answers                 // what gates told whom
	gates    []*mortal
	kills    map[string]int // of the second consumer, by the line at which
	faults   int            // of gates and database sessions
	enough   func()         // ends the calls
}

// midnight is when the day ends in a history in which one does: not later than now, which
// is when JetStream says that events arrive.
var midnight = time.Now().UTC().Truncate(24 * time.Hour)

// beforeMidnight is when such a history begins.
const beforeMidnight = chaosFor / 2

// A planted bug has its chance in so many operations and faults, however long a busy machine takes.
const (
	plantedOperations = 1500 / chaosPorts // of each port
	plantedFaults     = 8                 // where the bug is what a fault does
	plantedFor        = 20 * time.Second  // at most
)

// plantedPorts are how many ports the histories with a planted bug have, one after the other: most bugs
// show in the first, with one port of each kind.
var plantedPorts = [...]int{4, chaosPorts, chaosPorts, chaosPorts, chaosPorts, chaosPorts}

// mortal is a gate that can be cut off at any moment.
type mortal struct {
	conn   *nats.Conn
	cable  *cable // to Postgres
	ledger *ledger.Ledger
	cancel context.CancelFunc
	done   chan struct{}
}

func newChaos(t *testing.T, seed int, bug string, change ...func(*chaos)) *chaos {
	o := options{gates: -1, shared: seed/2%2 == 0} // half of them report several events in a message
	dayEnds := seed%2 == 0 && bug == ""
	if dayEnds {
		o.at = midnight.Add(-beforeMidnight)
	}
	s := start(t, o)
	c := &chaos{system: s, seed: seed, bug: bug, ports: chaosPorts, random: rand.New(rand.NewPCG(uint64(seed), 1)), asked: map[string]operation{}, unbooked: map[string]chan struct{}{}}
	for _, f := range change {
		f(c)
	}
	c.late = listen(t, s.nats, c.now)
	for i := range chaosGates {
		c.gates = append(c.gates, c.birth(i))
	}
	c.awaitGate()
	if c.limits {
		c.beginLimits()
	} else {
		for p := range c.ports {
			s.setBudget(chaosPort(p), -1, chaosCap(chaosPort(p)), c.period())
		}
	}
	c.awaitBudgets()
	s.exec(keepEnded)
	if sql := plants[bug] + limitPlants[bug]; sql != "" {
		s.exec(sql)
	}
	return c
}

func chaosPort(p int) string { return fmt.Sprintf("port-%d", p) }

// period is the one that caps are for.
func (c *chaos) period() events.Period {
	if c.clock != nil {
		return events.PeriodDay
	}
	return events.PeriodMonth
}

// periodOf is the start of the period that a time is in.
func (c *chaos) periodOf(at time.Time) time.Time {
	start, _ := c.period().Bounds(at)
	return start
}

// birth starts the i-th gate.
func (c *chaos) birth(i int) *mortal {
	wrong := time.Duration(0)
	if c.clock != nil {
		wrong = time.Duration(i-1) * 3 * time.Second
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &mortal{conn: testenv.Must(nats.Connect(c.nats.ClientURL())), cable: lay(c.t, c.url), cancel: cancel, done: make(chan struct{})}
	m.ledger = testenv.Must(ledger.Open(ctx, ledger.Config{URL: m.cable.url}))
	g := testenv.Must(gate.New(gate.Config{Conn: m.conn, Ledger: m.ledger, ReserveTimeout: reserveTimeout, LeaseFrom: 1,
		MaxStale: -1, Now: func() time.Time { return c.now().Add(wrong) }}))
	go func() {
		defer close(m.done)
		_ = g.Run(ctx)
		m.ledger.Close()
		m.cable.cut()
	}()
	return m
}

// death cuts the gate off in the middle of whatever it does: what it knew is lost.
func (m *mortal) death() {
	m.conn.Close()
	m.cable.cut()
	m.stop()
}

// stop lets the gate finish what it does.
func (m *mortal) stop() {
	m.cancel()
	<-m.done
}

// run lets callers and calamities loose, and returns when all is quiet.
func (c *chaos) run() {
	var killed *killing
	switch {
	case c.clock != nil:
		c.clock.Start(midnight.Add(-beforeMidnight))
	case c.bug == "":
		killed = startKilling(c.t, rand.New(rand.NewPCG(uint64(c.seed), 3)), []line{{"after-commit", 5}, {"after-fetch", 5}, {"during-insert", 5}, {"notice-sent", 5}, {"during-ack", 5}},
			"--nats-url", c.nats.ClientURL(), "--database-url", c.url, "--roles", "consumer", "--ack-wait", "1s")
	}
	lasts := chaosFor
	if c.limits { // whose changes take their time
		lasts *= 2
	}
	if c.bug != "" {
		lasts = plantedFor
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), lasts)
	defer cancel()
	c.enough = cancel
	watch, stop := context.WithCancel(c.t.Context())
	var group, watcher sync.WaitGroup
	watcher.Go(func() { c.watchLedger(watch) })
	for caller := range c.ports * chaosCallers {
		group.Go(func() { c.caller(ctx, caller) })
	}
	group.Go(func() { c.calamities(ctx) })
	for n := range chaosChangers {
		if c.limits {
			group.Go(func() { c.changeLimits(ctx, n) })
		}
	}
	group.Wait()
	stop()
	watcher.Wait()
	if killed != nil {
		c.kills = killed.end()
	}
	for _, g := range c.gates {
		g.stop()
	}
	answered, unanswered := c.late.all()
	c.findUnknown(answered)
	c.findStranded(unanswered)
	c.t.Cleanup(c.birth(1).stop) // verification asks one
	c.awaitGate()
}

func (c *chaos) awaitGate() {
	testenv.Eventually(c.t, "a gate answers", func() bool { // a check is what it answers last, when it starts
		_, err := c.client.Check(c.t.Context(), events.CheckRequest{PortID: "p"})
		return err == nil
	})
}

// awaitBudgets returns when, as far as many checks show, every gate has heard of every
// budget: a check may be answered before the notice is heard.
func (c *chaos) awaitBudgets() {
	for p := range c.ports {
		testenv.Eventually(c.t, "gates know the budget of "+chaosPort(p), func() bool {
			for range 5 * chaosGates {
				v, err := c.client.Check(c.t.Context(), events.CheckRequest{PortID: chaosPort(p)})
				if err != nil || v.HardCapTokens == nil {
					return false
				}
			}
			return true
		})
	}
}

func (c *chaos) calamities(ctx context.Context) {
	for ctx.Err() == nil {
		time.Sleep(time.Duration(150+c.random.IntN(250)) * time.Millisecond)
		c.mu.Lock()
		c.faults++
		c.mu.Unlock()
		switch i := c.random.IntN(len(c.gates)); c.random.IntN(4) {
		case 0, 1:
			c.gates[i].death()
			if c.bug == crashForgets {
				c.forget("ai_budget_holds")
				c.forget("ai_budget_slices")
			}
			c.gates[i] = c.birth(i)
		case 2:
			c.gates[i].stop()
			c.gates[i] = c.birth(i)
		case 3:
			c.exec(`select pg_terminate_backend(pid) from pg_stat_activity
				where datname = current_database() and application_name = 'tidegate' order by random() limit 2`)
		}
	}
}

// forget deletes all rows, however bookings lock them meanwhile.
func (c *chaos) forget(table string) {
	for {
		_, err := c.db.Exec(context.Background(), "delete from "+table)
		if deadlock := (*pgconn.PgError)(nil); errors.As(err, &deadlock) && deadlock.Code == "40P01" {
			continue
		}
		if err != nil {
			c.t.Error(err)
		}
		return
	}
}

func (s *system) exec(sql string) {
	if _, err := s.db.Exec(context.Background(), sql); err != nil {
		s.t.Errorf("%s: %v", sql, err)
	}
}

// caller makes calls until ctx ends, like a service with many users.
func (c *chaos) caller(ctx context.Context, n int) {
	random := rand.New(rand.NewPCG(uint64(c.seed), uint64(n)+100))
	client := testenv.Must(events.NewClient(c.nc, events.ClientConfig{WhenUnavailable: events.FailClosed, Publisher: c.publisher, Timeout: 300 * time.Millisecond}))
	for i := 0; ctx.Err() == nil; i++ {
		port := chaosPort(n % c.ports)
		q := events.ReserveRequest{PortID: port, Feature: "ocr", Service: fmt.Sprintf("caller %d-%d", n, i),
			EstimatedTokens: 1 + random.Int64N(5), TTLSeconds: 60}
		if c.limits {
			chaosCall(random, &q)
		}
		if random.IntN(8) == 0 {
			q.TTLSeconds = 1
		}
		if random.IntN(8) == 0 {
			q.IdempotencyKey = fmt.Sprintf("%d-%d", n, i)
		}
		if random.IntN(4) == 0 {
			begin := c.now()
			if v, err := client.Check(ctx, events.CheckRequest{PortID: port}); err == nil {
				c.mustBeOfNow(begin, v)
			}
		}
		r := c.reserve(client, q)
		if r == nil {
			continue
		}
		if !r.Allowed {
			time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
			continue
		}
		time.Sleep(time.Duration(random.IntN(30)) * time.Millisecond)
		actual := random.Int64N(r.GrantedTokens + 1)
		switch random.IntN(8) {
		case 0: // forgets: the hold expires
		case 1:
			c.release(client, port, r)
		case 2: // reports twice, as two events
			c.settle(port, &q, r, actual)
			c.settle(port, &q, r, min(actual, 3))
		case 3: // a foreign reservation frees nobody
			other := chaosPort((random.IntN(c.ports-1) + 1 + portNumber(port)) % c.ports)
			c.settleForeign(other, &q, r, 1)
			c.settle(port, &q, r, actual)
		default:
			c.settle(port, &q, r, actual)
		}
	}
}

func portNumber(port string) int {
	n, _ := strconv.Atoi(port[len("port-"):])
	return n
}

// reserve asks until somebody answers, if a key makes the tries one request, and
// once otherwise; nil: nobody answered.
func (c *chaos) reserve(client *events.Client, q events.ReserveRequest) *events.Reservation {
	begin := c.now()
	op := operation{port: q.PortID, kind: opReserve, tokens: q.EstimatedTokens}
	if c.limits {
		op.counts = countsAs(q.Call(), q.EstimatedTokens)
	}
	c.mu.Lock()
	op.call = begin.UnixNano()
	c.asked[q.Service] = op
	c.mu.Unlock()
	for end := time.Now().Add(answeredWithin); ; {
		r, err := client.Reserve(context.Background(), q)
		if err == nil {
			c.mustBeOfNow(begin, r.Verdict)
			if id, err := uuid.Parse(r.ReservationID); err == nil {
				// The answer may be to a retry, the client's own too, and about the day that began
				// meanwhile: the hold counts in the one in which the first try made it.
				r.PeriodStart = c.periodOf(events.UUIDv7Time(id))
			} else if c.limits && c.clock == nil { // the answer is about a limit and its window
				r.PeriodStart = c.periodOf(begin)
			}
			op.period, op.id, op.ok = r.PeriodStart, r.ReservationID, r.Allowed
			if !r.Allowed {
				op.spent = r.UsedTokens + r.HeldTokens
			}
			c.record(begin, op)
			if r.Allowed {
				c.recordExpiry(op, r.ExpiresAt)
			}
			return r
		}
		if q.IdempotencyKey == "" {
			return nil
		}
		if time.Now().After(end) {
			c.unanswered(fmt.Sprint("reserve with a key: ", err))
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// answeredWithin is how long callers ask at most: gates are away for moments, and slow on a busy machine.
const answeredWithin = 3 * time.Minute

// insist asks again until somebody answers.
func (c *chaos) insist(what string, answered func() bool) {
	for end := time.Now().Add(answeredWithin); !answered(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			c.unanswered(what)
			return
		}
	}
}

// unanswered fails a history in which somebody gave up, unless it has a planted bug: what was held
// all the same is found in the database.
func (c *chaos) unanswered(what string) {
	if c.bug == "" {
		c.t.Errorf("nobody answered within %s: %s", answeredWithin, what)
	}
}

// mustBeOfNow objects to an answer about another period than it was, by the database's
// clock, at some time since begin.
func (c *chaos) mustBeOfNow(begin time.Time, v events.Verdict) {
	if v.Limit != budget.PortLimit {
		return // it is about another window
	}
	if end := c.now(); v.PeriodStart.Before(c.periodOf(begin.Add(-periodSlack))) || v.PeriodStart.After(c.periodOf(end.Add(periodSlack))) {
		c.t.Errorf("asked between %s and %s, answered for the period that began at %s", begin, end, v.PeriodStart)
	}
}

func (c *chaos) release(client *events.Client, port string, r *events.Reservation) {
	begin := c.now()
	c.insist("release", func() bool { return client.Release(context.Background(), port, r.ReservationID) == nil })
	c.record(begin, operation{port: port, period: r.PeriodStart, kind: opRelease, id: r.ReservationID})
}

// settle records a call and waits until it is booked. Its tokens count in the period it
// happened in, and what it frees in the one that it was reserved in.
func (c *chaos) settle(port string, q *events.ReserveRequest, r *events.Reservation, tokens int64) {
	begin := c.now()
	u := usage(port, tokens)
	u.ID, u.OccurredAt, u.ReservationID = events.NewUUIDv7(begin).String(), begin, r.ReservationID
	var used counts
	if c.limits {
		u.Feature, u.UserID, u.RunID = q.Feature, q.UserID, q.RunID
		used = countsAs(q.Call(), tokens)
	}
	booked := make(chan struct{})
	c.mu.Lock()
	c.unbooked[u.ID] = booked
	c.mu.Unlock()
	c.publisher.Record(u)
	select {
	case <-booked:
	case <-time.After(time.Minute):
		c.t.Errorf("an event of %s for %s was not booked within a minute", begin, port)
	}
	spent := operation{port: port, period: c.periodOf(begin), kind: opSettle, id: r.ReservationID, tokens: tokens, counts: used}
	if !r.PeriodStart.Equal(spent.period) {
		c.record(begin, operation{port: port, period: r.PeriodStart, kind: opRelease, id: r.ReservationID})
	}
	c.record(begin, spent)
}

// watchLedger tells the callers that wait in settle, until ctx ends.
func (c *chaos) watchLedger(ctx context.Context) {
	for ctx.Err() == nil {
		c.mu.Lock()
		ids := slices.Collect(maps.Keys(c.unbooked))
		c.mu.Unlock()
		rows, _ := c.db.Query(ctx, "select id::text from ai_usage_ledger where id = any($1::uuid[])", ids)
		booked, _ := pgx.CollectRows(rows, pgx.RowTo[string]) // in vain while its session is killed
		c.mu.Lock()
		for _, id := range booked {
			close(c.unbooked[id])
			delete(c.unbooked, id)
		}
		c.mu.Unlock()
		time.Sleep(2 * time.Millisecond)
	}
}

func (c *chaos) settleForeign(port string, q *events.ReserveRequest, r *events.Reservation, tokens int64) {
	c.settle(port, q, r, tokens)
	if c.bug == "foreign id accepted" {
		if slice, ok := sliceOf(r.ReservationID); ok {
			c.exec("update ai_budget_slices set closed_tokens = tokens where id = '" + slice.String() + "'")
			return
		}
		c.exec("delete from ai_budget_holds where id = '" + r.ReservationID + "'")
	}
}

func (c *chaos) record(begin time.Time, op operation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	op.call, op.ret = begin.UnixNano(), c.now().UnixNano()
	c.history = append(c.history, op)
	if c.bug != "" && len(c.history) >= plantedOperations*c.ports && (c.bug != crashForgets || c.faults >= plantedFaults) {
		c.enough()
	}
}

const (
	// clockSlack is between this process's clock and the database's: one machine,
	// but a reading is not taken at the very moment of the statement.
	clockSlack = 5 * time.Millisecond
	// periodSlack is between the database's clock and as a gate reckons it: a round trip.
	periodSlack = 25 * time.Millisecond
)

// recordExpiry adds the end of what a reserve held.
func (c *chaos) recordExpiry(reserved operation, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	reserved.kind, reserved.tokens = opExpire, 0
	reserved.call, reserved.ret = at.Add(-clockSlack).UnixNano(), at.Add(clockSlack).UnixNano()
	c.history = append(c.history, reserved)
}
