package reservation_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/reservation"
	"github.com/tidegate/tidegate/internal/testenv"
)

// limited stores a budget of p with limits. The brokers of these tests know of no count in
// a limit, so that what keeps it is what Postgres granted.
func (h *house) limited(hard int64, limits ...budget.Limit) {
	h.t.Helper()
	h.store("p", budget.Budget{Enabled: true, HardCapTokens: &hard, Period: budget.Day, Limits: limits})
}

func by(user, run string) func(*events.ReserveRequest) {
	return func(q *events.ReserveRequest) { q.UserID, q.RunID = user, run }
}

// However many callers ask two gates at once, no limit is passed, and each is used up: nobody
// is refused for what others lease.
func TestLeasesGiveNoMoreThanEachLimit(t *testing.T) {
	t.Parallel()
	for name, weighted := range map[string]int64{"the users' bind": 100_000, "the weighted one binds": 9_000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testLimitsBind(t, weighted)
		})
	}
}

func testLimitsBind(t *testing.T, weighted int64) {
	const users, tokens, requests = 12, 600, 250
	h := newHouse(t, 1<<40)
	h.limited(1<<40,
		budget.Limit{Name: "user", Per: budget.PerUser, Window: budget.Day, Hard: new(int64(tokens))},
		budget.Limit{Name: "requests", Match: budget.Match{Feature: "ocr"}, Per: budget.PerUser, Window: budget.Total, Unit: budget.Requests, Hard: new(int64(requests))},
		budget.Limit{Name: "weighted", Window: budget.Week, Unit: budget.Weighted, Weights: budget.Weights{Output: new(budget.Weight(4000))}, Hard: &weighted},
	)
	gates := []*broker{h.open(), h.open()}
	var mu sync.Mutex
	used, calls, weight := map[string]int64{}, map[string]int{}, int64(0)
	var group sync.WaitGroup
	for caller := range 16 {
		group.Go(func() {
			for i, refused := caller, 0; refused < 3*users; i++ {
				in, out := int64(1+i%5), int64(i%3)
				user := fmt.Sprint("u", i*7%users)
				q := ask(in+out, by(user, ""), func(q *events.ReserveRequest) { q.EstimatedInputTokens, q.EstimatedOutputTokens = in, out })
				switch v, err := gates[i%2].hold(q); {
				case err != nil:
					t.Error(err)
					return
				case !v.Allowed:
					refused++
				default:
					refused = 0
					mu.Lock()
					used[user], weight = used[user]+in+out, weight+in+4*out
					calls[user]++
					mu.Unlock()
				}
			}
		})
	}
	group.Wait()
	for user, n := range used {
		if n > tokens || calls[user] > requests {
			t.Errorf("%s holds %d tokens in %d calls, want at most %d and %d", user, n, calls[user], tokens, requests)
		}
		if n < tokens-7 && calls[user] < requests && weight < weighted-4*7 {
			t.Errorf("%s holds %d tokens in %d calls and is refused, want %d or %d", user, n, calls[user], tokens, requests)
		}
	}
	if weight > weighted || len(used) != users {
		t.Errorf("%d users hold %d weighted tokens of at most %d", len(used), weight, weighted)
	}
	if n := gates[0].FromLeases.Load() + gates[1].FromLeases.Load(); n < 100 {
		t.Errorf("%d holds came from leases: too few to mean anything", n)
	}
}

// A lease counts for the users whose calls it is for, and binds no other. It is for those who
// have room for it.
func TestALeaseIsForSomeUsers(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 1<<40)
	h.limited(1<<40, budget.Limit{Name: "user", Per: budget.PerUser, Window: budget.Hour, Hard: new(int64(1000))})
	b := h.open()
	full := b.must(ask(950, by("full", ""))) // asks the most often, and has no room
	for range 5 {
		b.must(ask(1, by("full", "")))
	}
	b.heat(ask(10, by("u1", "")))
	if v := b.must(ask(10, by("u2", ""))); fromLease(v) {
		t.Errorf("%+v: u2 is served by a lease that was granted before u2 was there", v)
	}
	if v := b.must(ask(990, by("u2", ""))); fromLease(v) {
		t.Errorf("%+v", v)
	}
	if v := b.must(ask(45, by("full", ""))); fromLease(v) || v.LimitValue != "full" || v.HeldTokens != 1000 {
		t.Errorf("%+v, want that full holds 1,000", v)
	}
	if !b.release(full.ReservationID) {
		t.Error("a hold cannot be released")
	}
	// What u1 leases is not lost to u1.
	held := int64(0)
	if err := h.db.QueryRow(t.Context(), "select coalesce(sum(tokens), 0) from ai_budget_holds where call->>'user_id' = 'u1'").Scan(&held); err != nil {
		t.Fatal(err)
	}
	b.must(ask(1000-held, by("u1", "")))
	if v, err := b.hold(ask(1, by("u1", ""))); err != nil || v.Allowed || v.Limit != "user" || v.LimitValue != "u1" {
		t.Errorf("%+v, %v; want it refused by the limit of u1", v, err)
	}
}

// Once a lease is sealed, what ends of it is no longer held of the user whose call it was, whatever
// of others' calls is still under way.
func TestWhatEndsOfALeaseIsItsUsers(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 1<<40)
	h.limited(1<<40,
		budget.Limit{Name: "user", Per: budget.PerUser, Window: budget.Day, Hard: new(int64(10_000))},
		budget.Limit{Name: "weighted", Match: budget.Match{UserID: "u1"}, Window: budget.Day, Unit: budget.Weighted, Weights: budget.Weights{Output: new(budget.Weight(3000))}, Hard: new(int64(20_000))},
	)
	b := h.open()
	parts := func(q *events.ReserveRequest) { q.EstimatedInputTokens, q.EstimatedOutputTokens = 6, 4 }
	for _, user := range []string{"u1", "u2", "u1", "u2"} { // both are known to ask
		v := b.must(ask(10, by(user, ""), parts))
		b.release(v.ReservationID)
	}
	b.heat(ask(10, by("u1", ""), parts))
	var mine, others []string
	for range 8 {
		v, other := b.must(ask(10, by("u1", ""), parts)), b.must(ask(10, by("u2", "")))
		if !fromLease(v) || !fromLease(other) {
			t.Fatal("a hold is from no lease")
		}
		mine, others = append(mine, v.ReservationID), append(others, other.ReservationID)
	}
	held := func(user string, left int64) {
		t.Helper()
		q := ask(left, by(user, ""))
		v := b.must(q)
		if v.HeldTokens != 10_000 {
			t.Errorf("%+v, want 10,000 held", v)
		}
		b.release(v.ReservationID)
		if v, err := b.hold(ask(left+1, by(user, ""))); err != nil || v.Allowed || v.Limit != "user" {
			t.Errorf("%+v, %v; want it refused by the limit of %s", v, err, user)
		}
	}
	held("u1", 10_000-80) // the lease is given back for it
	held("u2", 10_000-80)
	for _, id := range mine[:5] {
		b.release(id)
	}
	held("u1", 10_000-30)
	held("u2", 10_000-80)
	b.release(others[0])
	held("u1", 10_000-30)
	held("u2", 10_000-70)
	v := b.must(ask(5_000, by("u1", ""), func(q *events.ReserveRequest) { q.EstimatedOutputTokens = 5_000 }))
	if v.Limit != "weighted" || v.HeldTokens != 3*(6+3*4)+3*5_000 {
		t.Errorf("%+v, want what is under way of u1, by its weights", v)
	}
}

// A verdict from a lease has the figures of the limit with the least left, the hold among them.
func TestAVerdictFromALeaseOfALimitedPort(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 1<<40)
	h.limited(1<<40, budget.Limit{Name: "user", Per: budget.PerUser, Window: budget.Day, Soft: new(int64(20_400)), Hard: new(int64(100_000))})
	b := h.open(func(c *reservation.Config) {
		c.Counts = func(string) budget.Counts {
			return func(*budget.Limit, string, time.Time) budget.Count { return budget.Count{Used: 20_000, Held: 300} }
		}
	})
	b.heat(ask(10, by("u1", "")))
	v := b.must(ask(50, by("u1", "")))
	if !fromLease(v) || v.Limit != "user" || v.LimitValue != "u1" || v.HeldTokens != 350 || *v.RemainingTokens != 79_650 || v.SoftCapWarning || v.GrantedTokens != 50 {
		t.Errorf("%+v", v)
	}
	if v := b.must(ask(100, by("u1", ""))); !fromLease(v) || !v.SoftCapWarning {
		t.Errorf("%+v, want a warning: 20,400 are reached", v)
	}
	if v := b.must(ask(10, by("u1", ""), func(q *events.ReserveRequest) { q.Explain = true })); fromLease(v) || len(v.Limits) != 2 {
		t.Errorf("%+v, want what both limits say", v)
	}
}

// Calls that have a run each, where a limit counts runs, are not worth a lease.
func TestCallsOfARunEachAreNotLeased(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 1<<40)
	h.limited(1<<40, budget.Limit{Name: "run", Per: budget.PerRun, Window: budget.Total, Hard: new(int64(1000))})
	b := h.open()
	for i := range 100 {
		b.must(ask(10, by("u1", fmt.Sprint("run-", i))))
	}
	if n, granted := b.FromLeases.Load(), b.Granted.Load(); n != 0 || granted != 0 {
		t.Errorf("%d holds came from %d leases", n, granted)
	}
	b.heat(ask(10, by("u1", "run-1")))
}

// What is read of a lease that is open is what was made of it, for each of its callers, as far as
// its own gate knows; and once it is sealed, what was made for each and has not ended.
func TestCallsUnderWayOfALease(t *testing.T) {
	t.Parallel()
	for name, budgetOf := range map[string]string{"limits of its own": "q", "limits of the default budget": budget.DefaultPort} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testCallsUnderWay(t, budgetOf)
		})
	}
}

func testCallsUnderWay(t *testing.T, budgetOf string) {
	h := newHouse(t, 1<<40)
	limits := []budget.Limit{
		{Name: "user", Per: budget.PerUser, Window: budget.Day, Hard: new(int64(10_000))},
		{Name: "calls", Per: budget.PerUser, Window: budget.Day, Unit: budget.Requests, Hard: new(int64(10_000))},
	}
	h.store(budgetOf, budget.Budget{Enabled: true, Period: budget.Day, Limits: limits})
	ask := func(tokens int64, user string) events.ReserveRequest {
		return ask(tokens, by(user, ""), func(q *events.ReserveRequest) { q.PortID = "q" })
	}
	b := h.open()
	for range 2 {
		for _, user := range []string{"u1", "u2"} {
			b.release(b.must(ask(10, user)).ReservationID, "q")
		}
	}
	b.heat(ask(10, "u1"))
	var mine []string
	for range 3 {
		mine = append(mine, b.must(ask(10, "u1")).ReservationID)
	}
	b.must(ask(20, "u2"))
	start, _ := budget.Day.Bounds(time.Now())
	held := func(what string, want [4]int64) {
		t.Helper()
		var got [4]int64
		h.eventually(what, 5*time.Second, func() bool {
			list, err := h.ledger.Reservations.UnderWay(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			b.WithoutSpare(list)
			tally := budget.NewTally(limits, time.Now())
			for i := range list {
				list[i].AddTo(tally)
			}
			for i, user := range []string{"u1", "u2"} {
				got[2*i], got[2*i+1] = tally.Held(&limits[0], user, start), tally.Held(&limits[1], user, start)
			}
			return got == want
		})
	}
	held("each may have made all of it", [4]int64{50, 4, 50, 4})
	held("the same, of what was read before", [4]int64{50, 4, 50, 4})
	b.Revoke("q", 0)
	held("sealed", [4]int64{30, 3, 20, 1})
	b.release(mine[0], "q")
	held("one of them has ended", [4]int64{20, 2, 20, 1})
	if of := testenv.Must(h.ledger.Held(t.Context(), "q", limits, time.Now())); of(&limits[0], "u1", start) != 20 || of(&limits[1], "u1", start) != 2 || of(&limits[0], "u2", start) != 20 || of(&limits[0], "u3", start) != 0 {
		t.Errorf("asked of the port alone, it holds otherwise: %d, %d, %d", of(&limits[0], "u1", start), of(&limits[1], "u1", start), of(&limits[0], "u2", start))
	}
}

// However many users ask, a lease names a bounded number of them.
func TestALeaseNamesSoManyUsers(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 1<<40)
	h.limited(1<<40, budget.Limit{Name: "user", Per: budget.PerUser, Window: budget.Day, Hard: new(int64(1_000_000))})
	b := h.open()
	for i := range 600 {
		b.must(ask(10, by(fmt.Sprint("u", i%100), "")))
	}
	var most, leases int
	if err := h.db.QueryRow(t.Context(), "select coalesce(max(jsonb_array_length(calls->'of')), 0), count(*) from ai_budget_slices").Scan(&most, &leases); err != nil || most > 64 || most < 32 {
		t.Errorf("%d leases name up to %d users, %v; want some of at most 64", leases, most, err)
	}
}

// Erasing a user leaves no name in leases, and what they hold binds as before.
func TestErasedUsersAreNotNamedByLeases(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 1<<40)
	h.limited(1<<40, budget.Limit{Name: "user", Per: budget.PerUser, Window: budget.Day, Hard: new(int64(1000))})
	b := h.open()
	b.heat(ask(10, by("u1", "")))
	if _, err := h.ledger.EraseUser(t.Context(), "u1"); err != nil {
		t.Fatal(err)
	}
	var named int
	if err := h.db.QueryRow(t.Context(), "select count(*) from ai_budget_slices where calls::text like '%u1%'").Scan(&named); err != nil || named != 0 {
		t.Errorf("%d leases name an erased user, %v", named, err)
	}
	b.must(ask(1000, by("u2", ""))) // the lease, of anybody now, is given back for it
}
