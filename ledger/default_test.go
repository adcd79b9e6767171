package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/internal/reservation/hold"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

// standard stores the default budget.
func (s store) standard(t testing.TB, b budget.Budget) budget.Budget {
	t.Helper()
	b.Enabled, b.Period = true, budget.Month
	b, err := s.SetBudget(t.Context(), budget.DefaultPort, b, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// unset gives a port back to the default budget.
func (s store) unset(t testing.TB, port string) {
	t.Helper()
	if _, err := s.SetBudget(t.Context(), port, budget.Budget{Default: true, Period: budget.Month}, nil); err != nil {
		t.Error(err)
	}
}

// A port's budget is its own, also one that is not enabled; without one it is the default one,
// until the port has one again. Each has its versions, and the audit log has all.
func TestDefaultBudget(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	if b, err := s.Budget(t.Context(), "p1"); err != nil || b.Default || b.Version != 0 {
		t.Errorf("before there is a default budget: %+v, %v", b, err)
	}
	s.standard(t, budget.Budget{HardCapTokens: new(int64(7))})
	want := func(port string, byDefault bool, hard, version int64) {
		t.Helper()
		b, err := s.Budget(t.Context(), port)
		if err != nil || b.Default != byDefault || b.Version != version || b.HardCapTokens == nil && hard >= 0 || b.HardCapTokens != nil && *b.HardCapTokens != hard {
			t.Errorf("%s: %+v, %v", port, b, err)
		}
	}
	want(budget.DefaultPort, false, 7, 1)
	want("p1", true, 7, 0)
	if _, err := s.SetBudget(t.Context(), "p1", budget.Budget{Period: budget.Month}, new(int64(0))); err != nil {
		t.Fatal(err)
	}
	want("p1", false, -1, 1) // it opts out
	s.unset(t, "p1")
	want("p1", true, 7, 2)
	ports, err := s.Ports(t.Context(), ledger.PortQuery{Limit: 10}, time.Now())
	if err != nil || len(ports) != 1 || !ports[0].Budget.Default || ports[0].Budget.Version != 2 || *ports[0].Budget.HardCapTokens != 7 {
		t.Errorf("the list of ports: %+v, %v", ports, err)
	}
	if _, err := s.SetBudget(t.Context(), "p1", budget.Budget{Period: budget.Day}, new(int64(1))); !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("a change of what was given back meanwhile: %v", err)
	}
	if _, err := s.DeletePort(t.Context(), "p1", "test"); err != nil {
		t.Fatal(err)
	}
	s.book(t, call("p1", time.Now()))
	want("p1", true, 7, 0)
	for _, bad := range []budget.Budget{{Period: budget.Month, HardCapTokens: new(int64(7)), ExtraTokens: new(int64(1)), ExtraUntil: time.Now()}, {Period: budget.Month, Default: true}} {
		var wrong *budget.FieldError
		if _, err := s.SetBudget(t.Context(), budget.DefaultPort, bad, nil); !errors.As(err, &wrong) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	changes, err := s.Audit(t.Context(), budget.DefaultPort, 0, 10)
	if err != nil || len(changes) != 1 || changes[0].Version != 1 {
		t.Errorf("the default budget's log: %+v, %v", changes, err)
	}
}

// Limits of the default budget count for each port that goes by it what its window has, also
// for those that come later, come back to it, or are deleted and come again; and for no others.
func TestLimitsOfTheDefaultBudget(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	other := open(t, s.url)
	now := time.Now()
	s.limited(t, "own", limit("x", budget.Day))
	s.limited(t, "bare")
	s.book(t, call("p1", now), call("own", now), call("bare", now))
	limits := s.standard(t, budget.Budget{Limits: []budget.Limit{limit("day", budget.Day), limit("user", budget.Total, per(budget.PerUser))}}).Limits
	want := func(port string, calls int64) {
		t.Helper()
		for i, value := range []string{"", "u1"} {
			used := map[string]int64{}
			if calls > 0 {
				used[value] = 110 * calls
			}
			if got := s.used(t, port, limits[i]); !cmp.Equal(got, used) {
				t.Errorf("limit %s of %s has %v, want %v", limits[i].Name, port, got, used)
			}
		}
		s.wantVerified(t)
	}
	want("p1", 1)
	want("own", 0)
	s.book(t, call("p1", now), call("new", now), call("own", now), call("bare", now))
	want("p1", 2)
	want("new", 1)
	want("own", 0)
	want("bare", 0)
	if _, err := other.Book(t.Context(), []ledger.Entry{call("own", now)}); err != nil {
		t.Fatal(err)
	}
	s.unset(t, "own")
	want("own", 3)
	if _, err := other.Book(t.Context(), []ledger.Entry{call("own", now)}); err != nil {
		t.Fatal(err)
	}
	want("own", 4)
	s.limited(t, "own", limit("x", budget.Day))
	s.book(t, call("own", now))
	s.unset(t, "own")
	want("own", 5)
	if _, err := s.DeletePort(t.Context(), "bare", "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Book(t.Context(), []ledger.Entry{call("bare", now)}); err != nil {
		t.Fatal(err)
	}
	want("bare", 1)
	more := s.standard(t, budget.Budget{Limits: append(limits, limit("more", budget.Week))}).Limits
	s.wantCounted(t, "bare", more[2], map[string]int64{"": 110})
	if more[0].Counter != limits[0].Counter {
		t.Error("a limit that stays begins anew")
	}
	// Each port's counts are compared with its own calls: one too many, none, those of a user who made none.
	day, user := int64(limits[0].Counter), int64(limits[1].Counter)
	for _, lie := range []struct {
		told, mended string
		counter      int64
		want         []string
	}{
		{"update ai_limit_counters set used = used + 1 where port_id = 'p1' and counter = $1", "update ai_limit_counters set used = used - 1 where port_id = 'p1' and counter = $1", day, []string{"p1 day  220 221"}},
		{"update ai_limit_counters set counter = -1 where port_id = 'own' and counter = $1", "update ai_limit_counters set counter = $1 where counter = -1", day, []string{"own day  550 0"}},
		{"update ai_limit_counters set value = 'u9' where port_id = 'new' and counter = $1", "update ai_limit_counters set value = 'u1' where port_id = 'new' and counter = $1", user, []string{"new user u1 110 0", "new user u9 0 110"}},
	} {
		exec(t, s.db, lie.told, lie.counter)
		v, err := s.Verify(t.Context(), noon, nil)
		var got []string
		for _, d := range v.Differences {
			key := append(strings.Split(d.Key, " "), "") // port, limit, start, value
			got = append(got, fmt.Sprint(key[0], " ", key[1], " ", key[3], " ", d.Want, " ", d.Got))
		}
		if diff := cmp.Diff(lie.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v, differences (-want +got):\n%s", lie.told, err, diff)
		}
		exec(t, s.db, lie.mended, lie.counter)
	}
	if _, err := s.EraseUser(t.Context(), "u1"); err != nil {
		t.Fatal(err)
	}
	s.wantCounted(t, "p1", limits[1], map[string]int64{"": 220})
	if err := s.Maintain(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	s.wantCounted(t, "p1", limits[0], map[string]int64{"": 220})
	s.standard(t, budget.Budget{Limits: []budget.Limit{}})
	s.wantVerified(t)
}

// However bookings meet changes of the default budget, of who goes by it, and deletions, each
// row counts once in each limit.
func TestTheDefaultBudgetChangesWhileCallsAreBooked(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	stop := s.keepBooking(t, func(random *rand.Rand, process, i int) (entries []ledger.Entry) {
		for range 1 + random.IntN(20) {
			entries = append(entries, call(fmt.Sprint("p", random.IntN(4)), time.Now(), by(fmt.Sprint("u", random.IntN(3)))))
		}
		return append(entries, call(fmt.Sprint("new", process, "-", min(i/5, 20)), time.Now()))
	})
	defer stop()
	kinds := []budget.Limit{limit("a", budget.Hour), limit("b", budget.Total, per(budget.PerUser)), limit("c", budget.Week, weighted(100, 4000))}
	random := rand.New(rand.NewPCG(1, 2))
	for range testenv.Times(4) {
		var changes sync.WaitGroup
		limits, own := someOf(random, kinds), someOf(random, kinds)
		changes.Go(func() { s.standard(t, budget.Budget{Limits: limits}) })
		changes.Go(func() { s.unset(t, "p0") })
		changes.Go(func() { s.unset(t, "p0") }) // twice at once
		changes.Go(func() { s.limited(t, "p1", own...) })
		if random.IntN(3) == 0 {
			changes.Go(func() {
				if _, err := s.DeletePort(context.Background(), "p2", "test"); err != nil && !errors.Is(err, ledger.ErrUnknownPort) {
					t.Error(err)
				}
			})
		}
		changes.Wait()
		s.wantVerified(t)
		s.limited(t, "p0", own...)
		s.unset(t, "p1")
		s.wantVerified(t)
	}
}

// Who stores the default budget waits for the reservations that may have read the one before, and
// tells the gates only then: they take back what those were granted.
func TestTheDefaultBudgetWaitsForReservationsUnderWay(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.standard(t, budget.Budget{HardCapTokens: new(int64(1000))})
	tx, err := s.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), "select pg_advisory_xact_lock($1)", hold.PortLocks("p1")[0]); err != nil {
		t.Fatal(err)
	}
	var ended atomic.Bool
	var stored sync.WaitGroup
	stored.Go(func() {
		none := budget.Budget{Enabled: true, Period: budget.Month, HardCapTokens: new(int64)}
		_, err := s.StoreBudget(context.Background(), budget.DefaultPort, none, nil, func(budget.Budget) error {
			if !ended.Load() {
				t.Error("the gates are told while a reservation is under way that may go by the old budget")
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	testenv.Eventually(t, "the budget is stored", func() bool {
		b, err := s.Budget(t.Context(), budget.DefaultPort)
		return err == nil && b.Version == 2
	})
	time.Sleep(50 * time.Millisecond) // in which they would be told
	ended.Store(true)
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	stored.Wait()
}

// A port is not deleted while what its calls count in a new limit is added up: it would come back with
// that, and without the calls.
func TestADeletionWaitsForALimitThatBegins(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.book(t, call("p1", time.Now()))
	tx, err := s.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	// Whoever adds up takes this lock (limitsLock), once nobody can delete the port any more.
	if _, err := tx.Exec(t.Context(), "select pg_advisory_xact_lock(x'71de6a80'::int, hashtext('p1'))"); err != nil {
		t.Fatal(err)
	}
	waiting := func(n int) func() bool {
		return func() (all bool) {
			if err := s.db.QueryRow(t.Context(), "select count(*) = $1 from pg_locks where not granted and database = (select oid from pg_database where datname = current_database())", n).Scan(&all); err != nil {
				t.Fatal(err)
			}
			return all
		}
	}
	var group sync.WaitGroup
	group.Go(func() { s.limited(t, "p1", limit("day", budget.Day)) })
	testenv.Eventually(t, "the limit is about to count", waiting(1))
	var deleted atomic.Bool
	group.Go(func() {
		if _, err := s.DeletePort(context.Background(), "p1", "test"); err != nil {
			t.Error(err)
		}
		deleted.Store(true)
	})
	time.Sleep(200 * time.Millisecond)
	if deleted.Load() {
		t.Error("the port was deleted while its calls were added up")
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	group.Wait()
	s.wantVerified(t)
}
