package broker_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/reservation/broker"
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
	users := min(testenv.Times(6), 12) // each decision reads all holds that there are: a third more users cost twice as much
	for name, weighted := range map[string]int64{"the users' bind": 100_000, "the weighted one binds": int64(750 * users)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testLimitsBind(t, users, weighted)
		})
	}
}

func testLimitsBind(t *testing.T, users int, weighted int64) {
	const tokens, requests = 600, 250
	h := newHouse(t, 1<<40)
	h.limited(1<<40,
		budget.Limit{Name: "user", Per: budget.PerUser, Window: budget.Day, Hard: new(int64(tokens))},
		budget.Limit{Name: "requests", Match: budget.Match{Feature: "ocr"}, Per: budget.PerUser, Window: budget.Total, Unit: budget.Requests, Hard: new(int64(requests))},
		budget.Limit{Name: "weighted", Window: budget.Week, Unit: budget.Weighted, Weights: budget.Weights{Output: new(budget.Weight(4000))}, Hard: &weighted},
	)
	gates := []*gate{h.open(), h.open()}
	var mu sync.Mutex
	used, calls, weight := map[string]int64{}, map[string]int{}, int64(0)
	var group sync.WaitGroup
	for caller := range 16 {
		group.Go(func() {
			for i, refused := caller, 0; refused < 2*users; i++ {
				in, out := int64(1+i%5), int64(i/users%3)
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
	if n := gates[0].FromLeases.Load() + gates[1].FromLeases.Load(); n < int64(8*users) {
		t.Errorf("%d holds came from leases: too few to mean anything", n)
	}
}

// A lease is for any user, also for one who never asked before. It counts for each with what one may
// have of it, and not at all for those who are near their cap: they are decided in Postgres, to the token.
func TestALeaseIsForAnyUserWithRoom(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 1<<40)
	const hard = 1600
	h.limited(1<<40,
		budget.Limit{Name: "user", Per: budget.PerUser, Window: budget.Day, Hard: new(int64(hard))},
		budget.Limit{Name: "calls", Per: budget.PerUser, Window: budget.Day, Unit: budget.Requests, Soft: new(int64(400)), Hard: new(int64(1_000_000))},
	)
	limits := h.rule.Load().Limits()
	uses := func(limit int, user string, used int64) {
		start, end := budget.Day.Bounds(time.Now())
		if _, err := h.db.Exec(t.Context(), "insert into ai_limit_counters (port_id, counter, value, start, ends, used) values ('p', $1, $2, $3, $4, $5)", limits[limit].Counter, user, start, end, used); err != nil {
			t.Fatal(err)
		}
	}
	uses(0, "used", hard*3/4+1)
	uses(0, "used less", hard*3/4)
	uses(1, "near a warning", 301)
	uses(1, "warned", 400)
	b := h.open()
	b.must(ask(hard/4, by("holds", "")))
	b.heat(ask(10, by("u1", "")))
	for user, leased := range map[string]bool{"u2": true, "": true, "used less": true, "warned": true, "used": false, "near a warning": false, "holds": false} {
		if v := b.must(ask(1, by(user, ""))); fromLease(v) != leased {
			t.Errorf("%q: %+v; want from a lease: %v", user, v, leased)
		}
	}
	allowance := int64(hard / 16)
	var got int64
	for range 20 {
		if v := b.must(ask(10, by("u3", ""))); fromLease(v) {
			got += 10
		}
	}
	if got == 0 || got%allowance > 0 && got > allowance*(b.Granted.Load()) {
		t.Errorf("u3 had %d tokens of %d leases, of each of which one user may have %d", got, b.Granted.Load(), allowance)
	}
	// Nobody is refused for what others lease, and nobody passes the cap.
	for user, left := range map[string]int64{"used": hard/4 - 1 - 1, "used less": hard/4 - 1, "holds": hard - hard/4 - 1, "u3": hard - 200, "u4": hard} {
		if v, err := b.hold(ask(left+1, by(user, ""))); err != nil || v.Allowed || v.Limit != "user" || v.LimitValue != user {
			t.Errorf("%+v, %v; want it refused by the limit of %s", v, err, user)
		}
		b.must(ask(left, by(user, "")))
	}
}

// A limit that has counted very many values, or under which many are near the cap, is not looked
// through for a lease: its calls are decided in Postgres.
func TestALimitOfVeryManyIsNotLeased(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ values, used int }{"values": {4_096, 0}, "near the cap": {300, 990}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, 1<<40)
			h.limited(1<<40, budget.Limit{Name: "run", Per: budget.PerRun, Window: budget.Total, Hard: new(int64(1000))})
			counter := h.rule.Load().Limits()[0].Counter
			fill := func(values int) {
				if _, err := h.db.Exec(t.Context(), "delete from ai_limit_counters"); err != nil {
					t.Fatal(err)
				}
				if _, err := h.db.Exec(t.Context(), `insert into ai_limit_counters (port_id, counter, value, start, ends, used)
					select 'p', $1, 'run-' || n, limit_window('total', now()), 'infinity', $2 from generate_series(1, $3::int) n`, counter, c.used, values); err != nil {
					t.Fatal(err)
				}
			}
			fill(c.values)
			b := h.open()
			for i := range 100 {
				b.must(ask(1, by("", fmt.Sprint("new-", i))))
			}
			if n := b.Granted.Load(); n != 0 {
				t.Errorf("%d leases were granted", n)
			}
			fill(256)
			b.heat(ask(1, by("", "new")))
		})
	}
}

// A lease is for calls of one model, where a limit looks at that.
func TestALeaseIsForOneModel(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 1<<40)
	h.limited(1<<40,
		budget.Limit{Name: "user", Per: budget.PerUser, Window: budget.Day, Hard: new(int64(100_000))},
		budget.Limit{Name: "m", Match: budget.Match{Model: "m*"}, Window: budget.Day, Hard: new(int64(1000))},
	)
	b := h.open()
	model := func(name string) func(*events.ReserveRequest) {
		return func(q *events.ReserveRequest) { q.UserID, q.Model = "u1", name }
	}
	b.heat(ask(1, model("n")))
	if v := b.must(ask(1, model("m1"))); fromLease(v) {
		t.Errorf("%+v: m1 is served by a lease for calls of n", v)
	}
	if v := b.must(ask(999, model("m1"))); v.Limit != "m" || v.HeldTokens != 1000 {
		t.Errorf("%+v, want that m1 holds 1,000, and the lease nothing", v)
	}
	if v, err := b.hold(ask(1, model("m2"))); err != nil || v.Allowed || v.Limit != "m" {
		t.Errorf("%+v, %v; want it refused by the limit of m", v, err)
	}
}

// A gate that has not heard of a limit yet makes no holds for calls that its lease is not for.
func TestALeaseOfABudgetThatItsGateDoesNotKnow(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 1<<40)
	h.limited(1<<40, budget.Limit{Name: "user", Per: budget.PerUser, Window: budget.Day, Hard: new(int64(100_000))})
	b := h.open()
	b.must(ask(1, by("u1", "")))
	later := budget.Budget{Enabled: true, Period: budget.Day, Limits: []budget.Limit{{Name: "m", Match: budget.Match{Model: "m*"}, Window: budget.Day, Hard: new(int64(1000))}}}
	if _, err := h.ledger.StoreBudget(t.Context(), "p", later, nil, func(budget.Budget) error { return nil }); err != nil {
		t.Fatal(err)
	}
	b.heat(ask(1))
	for range 20 {
		if v := b.must(ask(1, func(q *events.ReserveRequest) { q.Model = "m1" })); fromLease(v) {
			t.Fatalf("%+v: m1 is served by a lease for calls of no model", v)
		}
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
	b := h.open(func(c *broker.Config) {
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

// Calls that have a run each, where a limit counts runs, are served from leases of any run. Once such
// a lease is sealed, it says which runs have what of it.
func TestCallsOfARunEachAreLeased(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 1<<40)
	h.limited(1<<40, budget.Limit{Name: "run", Per: budget.PerRun, Window: budget.Total, Hard: new(int64(1000))})
	b := h.open()
	for i := range 100 {
		b.must(ask(10, by("u1", fmt.Sprint("run-", i))))
	}
	if n := b.FromLeases.Load(); n < 50 {
		t.Errorf("%d holds of 100 came from leases", n)
	}
	b.Revoke("p", time.Hour)
	h.eventually("the leases are sealed", 5*time.Second, func() bool { _, open := h.held(); return open == 0 })
	for i := range 100 {
		run := fmt.Sprint("run-", i)
		if v, err := b.hold(ask(991, by("", run))); err != nil || v.Allowed || v.Limit != "run" || v.LimitValue != run || v.HeldTokens != 10 {
			t.Fatalf("%+v, %v; want it refused by the limit of %s, which holds 10", v, err, run)
		}
	}
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

// Erasing a user leaves no name in leases, and what they hold binds as before.
func TestErasedUsersAreNotNamedByLeases(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 1<<40)
	h.limited(1<<40, budget.Limit{Name: "user", Per: budget.PerUser, Window: budget.Day, Hard: new(int64(1000))})
	b := h.open()
	b.must(ask(250, by("u3", ""))) // holds much, so that the lease names u3
	b.heat(ask(10, by("u1", "")))
	kept := b.must(ask(10, by("u1", "")))
	if _, err := h.ledger.EraseUser(t.Context(), "u1"); err != nil {
		t.Fatal(err)
	}
	b.Revoke("p", 0) // it is sealed, with whose calls there were
	h.eventually("the lease is sealed", 5*time.Second, func() bool { _, open := h.held(); return open == 0 })
	var named int
	if err := h.db.QueryRow(t.Context(), "select count(*) from ai_budget_slices where calls::text like '%u1%'").Scan(&named); err != nil || named != 0 {
		t.Errorf("%d leases name an erased user, %v", named, err)
	}
	if !fromLease(kept) {
		t.Errorf("%+v", kept)
	}
	b.must(ask(990, by("u2", ""))) // the hold counts for anybody now
}

// Limits that count the same are counted once, and each has its own cap: who is near the lower one has
// nothing of a lease, whichever comes first in the budget.
func TestALeaseKeepsToEachOfLimitsThatCountTheSame(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 1<<40)
	h.limited(1<<40,
		budget.Limit{Name: "wide", Per: budget.PerUser, Window: budget.Day, Hard: new(int64(1_000_000))},
		budget.Limit{Name: "narrow", Per: budget.PerUser, Window: budget.Day, Hard: new(int64(1000))},
	)
	limits := h.rule.Load().Limits()
	if limits[0].Counter != limits[1].Counter {
		t.Fatalf("%d and %d are two counters, so this tests nothing", limits[0].Counter, limits[1].Counter)
	}
	start, end := budget.Day.Bounds(time.Now())
	if _, err := h.db.Exec(t.Context(), "insert into ai_limit_counters (port_id, counter, value, start, ends, used) values ('p', $1, 'near', $2, $3, 990)", limits[0].Counter, start, end); err != nil {
		t.Fatal(err)
	}
	b := h.open()
	b.heat(ask(1, by("u1", "")))
	if v, err := b.hold(ask(11, by("near", ""))); err != nil || v.Allowed || v.Limit != "narrow" {
		t.Errorf("%+v, %v; want it refused by the narrow limit, of which 10 are left", v, err)
	}
}
