package ledger_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

// limit is one with a hard cap that nothing reaches.
func limit(name string, window budget.Period, change ...func(*budget.Limit)) budget.Limit {
	l := budget.Limit{Name: name, Window: window, Hard: new(int64(1 << 50))}
	for _, c := range change {
		c(&l)
	}
	return l
}

func per(d budget.Per) func(*budget.Limit) { return func(l *budget.Limit) { l.Per = d } }

func matching(m budget.Match) func(*budget.Limit) { return func(l *budget.Limit) { l.Match = m } }

func weighted(cacheRead, output int64) func(*budget.Limit) {
	return func(l *budget.Limit) {
		l.Unit, l.Weights = budget.Weighted, budget.Weights{CacheRead: new(budget.Weight(cacheRead)), Output: new(budget.Weight(output))}
	}
}

// limited stores limits and returns them as they are stored.
func (s store) limited(t testing.TB, port string, limits ...budget.Limit) []budget.Limit {
	t.Helper()
	if limits == nil {
		limits = []budget.Limit{}
	}
	b, err := s.SetBudget(t.Context(), port, budget.Budget{Enabled: true, Period: budget.Month, Limits: limits}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b.Limits
}

// used is what the counters of a limit say, by value and start.
func (s store) used(t testing.TB, port string, l budget.Limit) map[string]int64 {
	t.Helper()
	used := map[string]int64{}
	err := s.Counters(t.Context(), port, []budget.Limit{l}, func(c ledger.Counter) { used[c.Value] += c.Used })
	if err != nil {
		t.Fatal(err)
	}
	return used
}

func (s store) wantCounted(t testing.TB, port string, l budget.Limit, want map[string]int64) {
	t.Helper()
	if diff := cmp.Diff(want, s.used(t, port, l)); diff != "" {
		t.Errorf("limit %s (-want +got):\n%s", l.Name, diff)
	}
}

// A limit counts what the ledger has of its present window, and every booking from then on,
// in its unit, by value; and nothing else.
func TestALimitThatIsAddedCountsWhatThereIs(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	now := time.Now()
	month, _ := budget.Month.Bounds(now)
	before := month.AddDate(0, -1, 0).Add(-time.Hour) // not a month ago: on the 31st that is this month, and a month that has just ended is counted, too
	model := func(m string) func(*events.Usage) { return func(u *events.Usage) { u.Model = m } }
	s.book(t, call("p1", now), call("p1", now, by("")), call("p1", now, by("u2"), model("gpt-5-mini")), call("p2", now),
		call("p1", before))
	limits := s.limited(t, "p1",
		limit("all", budget.Total),
		limit("user", budget.Month, per(budget.PerUser)),
		limit("gpt", budget.Week, matching(budget.Match{Model: "gpt-5*"})),
		limit("calls", budget.Day, func(l *budget.Limit) { l.Unit = budget.Requests }),
		limit("weighted", budget.Day, weighted(100, 4000)),
		limit("named", budget.Day, matching(budget.Match{UserID: "*"})))
	each := int64(60*1000 + 40*100 + 10*4000)
	s.wantCounted(t, "p1", limits[0], map[string]int64{"": 440})
	s.wantCounted(t, "p1", limits[1], map[string]int64{"u1": 110, "": 110, "u2": 110})
	s.wantCounted(t, "p1", limits[2], map[string]int64{"": 110})
	s.wantCounted(t, "p1", limits[3], map[string]int64{"": 3})
	s.wantCounted(t, "p1", limits[4], map[string]int64{"": 3 * each})
	s.wantCounted(t, "p1", limits[5], map[string]int64{"": 220})

	late := call("p1", now)
	booking := s.book(t, late, call("p1", before), call("p2", now))
	s.wantCounted(t, "p1", limits[0], map[string]int64{"": 660})
	s.wantCounted(t, "p1", limits[1], map[string]int64{"u1": 220, "": 110, "u2": 110})
	told := map[string]int64{}
	for _, c := range booking.Counters {
		told[fmt.Sprint(c.PortID, " ", c.Counter, " ", c.Value)] = c.Used
	}
	if want := (map[string]int64{
		fmt.Sprint("p1 ", limits[0].Counter, " "): 660, fmt.Sprint("p1 ", limits[1].Counter, " u1"): 220,
		fmt.Sprint("p1 ", limits[3].Counter, " "): 4, fmt.Sprint("p1 ", limits[4].Counter, " "): 4 * each, fmt.Sprint("p1 ", limits[5].Counter, " "): 330,
	}); !cmp.Equal(want, told) {
		t.Errorf("told (-want +got):\n%s", cmp.Diff(want, told))
	}
	// A duplicate counts nothing, and tells what there is.
	if again := s.book(t, late); !cmp.Equal(again.Counters, booking.Counters) {
		t.Errorf("a duplicate tells (-first +again):\n%s", cmp.Diff(booking.Counters, again.Counters))
	}
	s.wantCounted(t, "p1", limits[0], map[string]int64{"": 660})
	s.wantVerified(t)
}

// What counts the same goes on with its counter; what counts something new gets another one,
// from the ledger; a counter that no limit has goes.
func TestChangesOfLimits(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	now := time.Now()
	s.book(t, call("p1", now))
	before := s.limited(t, "p1", limit("a", budget.Day), limit("b", budget.Day, weighted(0, 1000)))
	after := s.limited(t, "p1", limit("b", budget.Day, weighted(1000, 0)), limit("renamed", budget.Day, func(l *budget.Limit) { l.Hard, l.Soft = nil, new(int64(5)) }))
	if after[1].Counter != before[0].Counter || after[0].Counter == before[1].Counter {
		t.Errorf("counters before %d and %d, after %d and %d", before[0].Counter, before[1].Counter, after[0].Counter, after[1].Counter)
	}
	s.book(t, call("p1", now))
	s.wantCounted(t, "p1", after[1], map[string]int64{"": 220})
	s.wantCounted(t, "p1", after[0], map[string]int64{"": 2 * (60 + 40) * 1000})
	kept, err := s.SetBudget(t.Context(), "p1", budget.Budget{Enabled: true, Period: budget.Day}, nil)
	if err != nil || !cmp.Equal(kept.Limits, after) {
		t.Errorf("without limits: %+v, %v", kept.Limits, err)
	}
	if err := s.Maintain(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	if left := one[int](t, s.db, "select count(distinct counter)::int from ai_limit_counters"); left != 2 {
		t.Errorf("%d counters are left", left)
	}
	if left := s.limited(t, "p1"); len(left) != 0 {
		t.Errorf("an empty list leaves %+v", left)
	}
	s.book(t, call("p1", now))
	s.wantVerified(t)
}

// keepBooking books in two other processes, twice at once in each, until the function that it
// returns is called: what entries returns for a process and its batch i.
func (s store) keepBooking(t *testing.T, entries func(random *rand.Rand, process, i int) []ledger.Entry) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for n, l := range []*ledger.Ledger{open(t, s.url), open(t, s.url)} {
		for range 2 {
			group.Go(func() {
				random := rand.New(rand.NewPCG(uint64(n), 1))
				for i := 0; ctx.Err() == nil; i++ {
					if _, err := l.Book(context.Background(), entries(random, n, i)); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	return func() {
		cancel()
		group.Wait()
	}
}

// someOf are some of the limits, in any order, or none.
func someOf(random *rand.Rand, limits []budget.Limit) []budget.Limit {
	some := []budget.Limit{}
	for _, i := range random.Perm(len(limits))[:random.IntN(len(limits)+1)] {
		some = append(some, limits[i])
	}
	return some
}

// However bookings and changes of limits meet, each row counts once in each limit.
func TestLimitsThatChangeWhileCallsAreBooked(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	var booked atomic.Int64
	stop := s.keepBooking(t, func(random *rand.Rand, _, _ int) (entries []ledger.Entry) {
		for range 1 + random.IntN(20) {
			entries = append(entries, call("p1", time.Now(), by(fmt.Sprint("u", random.IntN(3)))))
		}
		booked.Add(int64(len(entries)))
		return entries
	})
	defer stop()
	kinds := []budget.Limit{limit("a", budget.Hour), limit("b", budget.Total, per(budget.PerUser)), limit("c", budget.Week, weighted(100, 4000)), limit("d", budget.Day, matching(budget.Match{UserID: "u1"}))}
	random := rand.New(rand.NewPCG(1, 2))
	for range testenv.Times(8) {
		s.limited(t, "p1", someOf(random, kinds)...)
		s.wantVerified(t)
	}
	limits := s.limited(t, "p1", kinds...)
	stop()
	s.wantVerified(t)
	if used := s.used(t, "p1", limits[1]); used["u0"]+used["u1"]+used["u2"] != 110*booked.Load() {
		t.Errorf("%d calls of 110 tokens are booked, and %v counted", booked.Load(), used)
	}
}

// An erased user's calls count as nobody's.
func TestEraseUser_Limits(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	now := time.Now()
	limits := s.limited(t, "p1", limit("user", budget.Day, per(budget.PerUser)), limit("anna", budget.Day, matching(budget.Match{UserID: "anna"})),
		limit("run", budget.Day, per(budget.PerRun), matching(budget.Match{UserID: "*"})))
	s.book(t, call("p1", now, by("anna")), call("p1", now, by("ben")), call("p1", now, by("")))
	s.erase(t, "anna", 1)
	s.wantCounted(t, "p1", limits[0], map[string]int64{"ben": 110, "": 220})
	s.wantCounted(t, "p1", limits[1], map[string]int64{"": 0})
	s.wantCounted(t, "p1", limits[2], map[string]int64{"run-1": 110})
	s.book(t, call("p1", now, by("anna")))
	s.wantCounted(t, "p1", limits[0], map[string]int64{"ben": 110, "": 330})
	s.wantVerified(t)
}

// A port that was deleted takes its limits along, for processes that knew them too.
func TestADeletedPortHasNoLimits(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	now := time.Now()
	s.limited(t, "p1", limit("a", budget.Day))
	s.book(t, call("p1", now))
	if _, err := s.DeletePort(t.Context(), "p1", "test"); err != nil {
		t.Fatal(err)
	}
	s.book(t, call("p1", now))
	if b := testenv.Must(s.Budget(t.Context(), "p1")); len(b.Limits) != 0 {
		t.Errorf("the budget is %+v", b)
	}
	s.wantVerified(t)
	limits := s.limited(t, "p1", limit("a", budget.Day))
	s.book(t, call("p1", now))
	s.wantCounted(t, "p1", limits[0], map[string]int64{"": 220})
	s.wantVerified(t)
}

// Late calls count until a day after the end of their window, and counters go a day later.
func TestLateCallsOfLimits(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	now := time.Now()
	limits := s.limited(t, "p1", limit("day", budget.Day), limit("total", budget.Total))
	// As if the limit had been there for long.
	exec(t, s.db, `update ai_limited_ports set version = version + 100, limits = (select jsonb_agg(l || case l->>'window' when 'day' then '{"since":"2020-01-01T00:00:00Z"}' else '{}' end::jsonb) from jsonb_array_elements(limits) l)`)
	s.book(t, call("p1", now.AddDate(0, 0, -1)), call("p1", now.AddDate(0, 0, -3)))
	s.wantCounted(t, "p1", limits[1], map[string]int64{"": 220})
	starts := query[struct{ Start time.Time }](t, s.db, "select start from ai_limit_counters where counter = $1", int64(limits[0].Counter))
	if yesterday, _ := budget.Day.Bounds(now.AddDate(0, 0, -1)); len(starts) != 1 || !starts[0].Start.Equal(yesterday) {
		t.Errorf("days are counted that begin at %v, want %s", starts, yesterday)
	}
	s.wantVerified(t)

	for _, c := range []struct{ hours, want int }{{47, 2}, {49, 1}} {
		exec(t, s.db, "update ai_limit_counters set ends = now() - make_interval(hours => $1) where counter = $2", c.hours, int64(limits[0].Counter))
		if err := s.Maintain(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		if left := one[int](t, s.db, "select count(*)::int from ai_limit_counters"); left != c.want {
			t.Errorf("%d hours after the end of a window %d counters are left, want %d", c.hours, left, c.want)
		}
	}
}
