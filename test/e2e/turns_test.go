package e2e

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/admin/ops"
	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/gate"
	"github.com/tidegate/tidegate/internal/testenv"
)

// stuckAt is how many wait for a lock of a table of this system. Postgres' list of locks has those
// of every database, other tests' too.
func (s *system) stuckAt(table string) (n int) {
	s.t.Helper()
	if err := s.db.QueryRow(s.t.Context(), `select count(*) from pg_locks where not granted and relation = $1::regclass
		and database = (select oid from pg_database where datname = current_database())`, table).Scan(&n); err != nil {
		s.t.Fatal(err)
	}
	return n
}

// More callers than a gate serves at once wait for their turn. None is refused.
func TestCallersWaitForTheirTurn(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	patient := testenv.Must(events.NewClient(s.nc, events.ClientConfig{WhenUnavailable: events.FailClosed, Timeout: time.Minute}))
	hard := int64(1000)
	set := func(port string) error {
		_, err := patient.Set(t.Context(), events.SetRequest{PortID: port, Enabled: true, HardCapTokens: &hard})
		return err
	}
	usage := func(port string) error {
		_, err := patient.Usage(t.Context(), events.ReportRequest{PortID: port})
		return err
	}
	for _, c := range []struct {
		what    string
		ask     func(port string) error
		callers int
	}{{"set", set, 18}, {"set", set, 100}, {"usage", usage, 100}} {
		requests := int64(testenv.Times(200))
		var asked, refused atomic.Int64
		var group sync.WaitGroup
		for range c.callers {
			group.Go(func() {
				for n := asked.Add(1); n <= requests; n = asked.Add(1) {
					if err := c.ask(fmt.Sprintf("p%d", n%50)); err != nil && refused.Add(1) == 1 {
						t.Errorf("%s: %v", c.what, err)
					}
				}
			})
		}
		group.Wait()
		if n := refused.Load(); n > 0 {
			t.Errorf("%s: %d of %d requests of %d callers were refused", c.what, n, requests, c.callers)
		}
	}
}

// Reports that get stuck keep no budget from being stored, and end when their callers
// give up.
func TestSlowReportsDelayNoChange(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.setBudget("p1", -1, 100, events.PeriodMonth)
	stuck := testenv.Must(s.db.Begin(t.Context()))
	defer func() { _ = stuck.Rollback(t.Context()) }()
	if _, err := stuck.Exec(t.Context(), "lock table ai_usage_totals in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	hasty := testenv.Must(events.NewClient(s.nc, events.ClientConfig{WhenUnavailable: events.FailClosed, Timeout: 4 * time.Second}))
	var reports sync.WaitGroup
	var gaveUp atomic.Int64 // the last caller, Unix ns
	for range 64 {
		reports.Go(func() {
			defer func() { gaveUp.Store(time.Now().UnixNano()) }()
			if _, err := hasty.Usage(t.Context(), events.ReportRequest{PortID: "p1"}); !errors.Is(err, events.ErrUnavailable) {
				t.Errorf("a report that cannot be made: %v", err)
			}
		})
	}
	testenv.Eventually(s.t, "reports are stuck", func() bool { return s.stuckAt("ai_usage_totals") > 0 })
	s.setBudget("p1", -1, 200, events.PeriodMonth)
	if _, err := s.client.Set(t.Context(), events.SetRequest{PortID: "p1", Enabled: true, Limits: []budget.Limit{{
		Name: "each-user", Per: "user_id", Window: budget.Hour, Hard: new(int64(1000))}}}); err != nil {
		t.Errorf("a limit that counts what was booked: %v", err)
	}
	if s.stuckAt("ai_usage_totals") == 0 {
		t.Error("the budget was stored once the reports had ended, not beside them")
	}
	reports.Wait()
	testenv.Eventually(s.t, "Postgres is rid of the reports", func() bool { return s.stuckAt("ai_usage_totals") == 0 })
	if took := time.Since(time.Unix(0, gaveUp.Load())); took > 5*time.Second { // they may take 10 s, of which their callers waited for 4
		t.Errorf("reports were worked on for %s after their callers had given up", took)
	}
}

// Lists that get stuck keep operators from no change.
func TestSlowListsDelayNoChange(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	stuck := testenv.Must(s.db.Begin(t.Context()))
	defer func() { _ = stuck.Rollback(t.Context()) }()
	if _, err := stuck.Exec(t.Context(), "lock table ai_unsettled_holds in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	var lists sync.WaitGroup
	for range 64 {
		lists.Go(func() {
			if _, err := s.ops.Holds(t.Context(), "p1"); err != nil {
				t.Errorf("a list that had to wait: %v", err)
			}
		})
	}
	testenv.Eventually(s.t, "lists are stuck", func() bool { return s.stuckAt("ai_unsettled_holds") > 1 })
	if _, err := ops.NewClient(s.nc, 10*time.Second).EraseUser(t.Context(), "u1"); err != nil {
		t.Errorf("a user is erased while lists are stuck: %v", err)
	}
	s.setBudget("p1", -1, 100, events.PeriodMonth)
	_ = stuck.Rollback(t.Context())
	lists.Wait()
}

// A gate that stops sends those away that wait for their turn, and answers the others.
func TestAStoppingGateSendsWaitersAway(t *testing.T) {
	t.Parallel()
	s := start(t, options{gates: -1})
	g := testenv.Must(gate.New(gate.Config{Conn: testenv.Connect(t, s.nats), Ledger: s.ledger}))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	testenv.Await(t, "the gate is ready", g.Ready())
	stuck := testenv.Must(s.db.Begin(t.Context()))
	defer func() { _ = stuck.Rollback(t.Context()) }()
	if _, err := stuck.Exec(t.Context(), "lock table ai_usage_totals in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	const callers, atOnce = 20, 4
	away, answered := make(chan *nats.Msg, callers), make(chan *nats.Msg, callers)
	for range callers {
		go func() {
			msg, err := s.nc.Request("ai.budget.usage.p1", nil, 9*time.Second)
			switch {
			case err != nil:
				t.Error(err)
			case msg.Header.Get(events.TryAgainHeader) == "true":
				away <- msg
			default:
				answered <- msg
			}
		}()
	}
	testenv.Eventually(s.t, "as many work as may", func() bool { return s.stuckAt("ai_usage_totals") == atOnce })
	stop()
	testenv.Eventually(s.t, "those who wait are sent away", func() bool { return len(away) == callers-atOnce })
	if err := stuck.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(s.t, "the others are answered", func() bool { return len(answered) == atOnce })
	if err := testenv.Await(t, "the gate ends", ended); err != nil {
		t.Error(err)
	}
}
