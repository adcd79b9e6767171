package broker_test

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/reservation/broker"
	"github.com/tidegate/tidegate/internal/reservation/hold"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

func TestMain(m *testing.M) {
	testenv.Checks(20)
	testenv.Main(m)
}

// house is a database and the brokers of some gates, which hear each other.
type house struct {
	t      testing.TB
	db     *pgxpool.Pool
	ledger *ledger.Ledger
	mu     sync.Mutex
	all    []*gate
	rule   atomic.Pointer[budget.Rule] // of all ports
}

// gate is one of which there is only the broker.
type gate struct {
	*broker.Broker
	house *house
	stop  func()
	dead  atomic.Bool // it hears nothing any more, and the store hears nothing of it
}

const hot = 2

func newHouse(t testing.TB, hard int64) *house {
	t.Helper()
	url := testenv.Database(t)
	db, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	l, err := ledger.Open(t.Context(), ledger.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	h := &house{t: t, db: db, ledger: l}
	h.budget("p", hard)
	return h
}

// reopen opens the ledger once more.
func (h *house) reopen() *ledger.Ledger {
	h.t.Helper()
	l, err := ledger.Open(h.t.Context(), ledger.Config{URL: h.db.Config().ConnString()})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(l.Close)
	return l
}

// budget stores a budget and tells the brokers, as a gate does.
func (h *house) budget(port string, hard int64) {
	h.t.Helper()
	h.store(port, budget.Budget{Enabled: true, HardCapTokens: &hard, Period: budget.Day})
}

func (h *house) store(port string, b budget.Budget) {
	h.t.Helper()
	_, err := h.ledger.StoreBudget(context.Background(), port, b, nil, func(b budget.Budget) error {
		rule := b.Rule()
		rule.Default = rule.Default || port == budget.DefaultPort
		h.rule.Store(rule)
		for _, o := range h.living() {
			o.Revoke(port, 0)
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) living() (list []*gate) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range h.all {
		if !b.dead.Load() {
			list = append(list, b)
		}
	}
	return list
}

// open starts a broker.
func (h *house) open(change ...func(*broker.Config)) *gate {
	b := &gate{house: h}
	cfg := broker.Config{
		Store: h.ledger.Reservations, LeaseFrom: hot, Timeout: 5 * time.Second, Now: time.Now,
		Port: func(_ string, now time.Time) (*budget.Rule, int64, time.Time, time.Time) {
			start, _ := budget.Day.Bounds(now)
			return h.rule.Load(), 0, start, now
		},
		Counts: func(string) budget.Counts {
			return func(*budget.Limit, string, time.Time) budget.Count { return budget.Count{} }
		},
		Withheld: func(string) error { return nil },
		Tell: func(standings []hold.Standing, revoke []string) {
			for _, o := range h.living() {
				o.Hear(standings)
				for _, port := range revoke {
					o.Revoke(port, broker.RevokedFor)
				}
			}
		},
		Took: func(time.Duration) {}, Log: slog.New(slog.DiscardHandler),
	}
	for _, c := range change {
		c(&cfg)
	}
	b.Broker = broker.NewBroker(cfg)
	stop := b.Start(context.Background())
	b.stop = sync.OnceFunc(func() { b.dead.Store(true); stop() })
	h.t.Cleanup(b.stop)
	h.mu.Lock()
	h.all = append(h.all, b)
	h.mu.Unlock()
	return b
}

func ask(tokens int64, change ...func(*events.ReserveRequest)) events.ReserveRequest {
	q := events.ReserveRequest{PortID: "p", Feature: "ocr", Service: "web", EstimatedTokens: tokens}
	for _, c := range change {
		c(&q)
	}
	return q
}

func lives(ttl time.Duration) func(*events.ReserveRequest) {
	return func(q *events.ReserveRequest) { q.TTLSeconds = int64(ttl / time.Second) }
}

func (b *gate) hold(q events.ReserveRequest) (v events.Verdict, err error) {
	answered := make(chan struct{})
	b.Hold(q, func(answer *events.Verdict, failed error) {
		if err = failed; err == nil {
			v = *answer
		}
		close(answered)
	})
	<-answered
	return v, err
}

// must is a hold that is granted.
func (b *gate) must(q events.ReserveRequest) events.Verdict {
	b.house.t.Helper()
	v, err := b.hold(q)
	if err != nil || !v.Allowed {
		b.house.t.Fatalf("%+v: %+v, %v; want it allowed", q, v, err)
	}
	return v
}

func (b *gate) release(id string, port ...string) (ok bool) {
	b.house.t.Helper()
	answered := make(chan struct{})
	b.Release(hold.ID{PortID: append(port, "p")[0], ReservationID: id}, func(released bool, err error) {
		if err != nil {
			b.house.t.Error(err)
		}
		ok = released
		close(answered)
	})
	<-answered
	return ok
}

// fromLease says whether a hold was made from a lease.
func fromLease(v events.Verdict) bool {
	return v.ReservationID != "" && uuid.Validate(v.ReservationID) != nil
}

// heat asks for holds like q, and releases them, until one comes from a lease.
func (b *gate) heat(q events.ReserveRequest) {
	b.house.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; {
		v := b.must(q)
		b.release(v.ReservationID, q.PortID)
		if fromLease(v) {
			return
		}
		if time.Now().After(end) {
			b.house.t.Fatal("no hold comes from a lease")
		}
	}
}

// held is what Postgres has as held of p, or of another port, and how many of its leases are
// still open.
func (h *house) held(port ...string) (held int64, open int) {
	h.t.Helper()
	err := h.db.QueryRow(context.Background(), `select (select coalesce(sum(tokens), 0) from ai_held_tokens where port_id = $1 and expires_at > clock_timestamp())::bigint,
		(select count(*) from ai_budget_slices where port_id = $1 and holds is null and expires_at > clock_timestamp())`, append(port, "p")[0]).Scan(&held, &open)
	if err != nil {
		h.t.Fatal(err)
	}
	return held, open
}

func (h *house) eventually(what string, within time.Duration, is func() bool) {
	h.t.Helper()
	for end := time.Now().Add(within); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("not within %s: %s", within, what)
		}
	}
}
