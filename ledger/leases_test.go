package ledger_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/reservation"
	"github.com/tidegate/tidegate/internal/reservation/hold"
	"github.com/tidegate/tidegate/ledger"
)

// lease is one with what its gate has made of it.
type lease struct {
	hold.Lease
	made hold.Returned
}

// hold makes one more hold. Like the ledger, it leaves it to the caller to stay
// within the lease.
func (l *lease) hold(tokens int64) (id string) {
	id = l.HoldID(l.made.Holds, -1, budget.Estimate{Tokens: tokens})
	l.made.Holds++
	l.made.Tokens += tokens
	return id
}

// ask is a want of 1,000 tokens.
func ask(port string, change ...func(*reservation.Want)) reservation.Want {
	w := reservation.Want{PortID: port, Kind: hold.Kind{Of: budget.Labels{Feature: "ocr"}, TTL: time.Minute}, For: time.Second, Tokens: 1000, Least: 1, Holds: 40}
	for _, c := range change {
		c(&w)
	}
	return w
}

// found is what Reserve finds used and held of a port: it asks for a hold of nothing, and
// gives it back.
func found(t testing.TB, l *ledger.Ledger, port string) (v events.Verdict, standing int64) {
	t.Helper()
	r, err := l.Reservations.Hold(t.Context(), []events.ReserveRequest{{PortID: port}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	v = r.Verdicts[0]
	if v.Allowed {
		if released, err := l.Reservations.Release(t.Context(), []hold.ID{{PortID: port, ReservationID: v.ReservationID}}); err != nil || !released[0] {
			t.Fatalf("a hold of nothing is given back: %v, %v", released, err)
		}
	}
	return v, r.Standings[0].Held
}

func (s store) reserve(t testing.TB, requests []events.ReserveRequest, wants ...reservation.Want) *reservation.Held {
	t.Helper()
	r, err := s.Reservations.Hold(t.Context(), requests, wants)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (s store) lease(t testing.TB, w reservation.Want) *lease {
	t.Helper()
	granted := s.reserve(t, nil, w).Leases
	if len(granted) != 1 {
		t.Fatalf("%d slices granted, want one", len(granted))
	}
	return &lease{granted[0], hold.Returned{PortID: w.PortID, ID: granted[0].ID, Service: "web", Feature: w.Of.Feature}}
}

// capped gives a port a hard cap.
func (s store) capped(t testing.TB, port string, hard int64) events.Budget {
	t.Helper()
	return s.set(t, port, events.Budget{Enabled: true, HardCapTokens: &hard, Period: events.PeriodMonth}, nil)
}

// settling is an event of 110 tokens, of now, that names a reservation.
func settling(port, id string) ledger.Entry {
	return call(port, time.Now(), func(u *events.Usage) { u.ReservationID = id })
}

func (s store) release(t testing.TB, port string, ids ...string) []bool {
	t.Helper()
	holds := make([]hold.ID, len(ids))
	for i, id := range ids {
		holds[i] = hold.ID{PortID: port, ReservationID: id}
	}
	released, err := s.Reservations.Release(t.Context(), holds)
	if err != nil {
		t.Fatal(err)
	}
	return released
}

// giveBack returns leases, and tells which of them are done with.
func (s store) giveBack(t testing.TB, leases ...*lease) []uuid.UUID {
	t.Helper()
	done, err := s.Reservations.Return(t.Context(), madeOf(leases))
	if err != nil {
		t.Fatal(err)
	}
	return idsOf(done)
}

func idsOf(done map[uuid.UUID]time.Time) (ids []uuid.UUID) {
	return slices.Collect(maps.Keys(done))
}

func madeOf(leases []*lease) (made []hold.Returned) {
	for _, l := range leases {
		made = append(made, l.made)
	}
	return made
}

var inAnyOrder = cmpopts.SortSlices(func(a, b uuid.UUID) bool { return a.String() < b.String() })

// wantIDs compares which slices a call returned, in whatever order.
func wantIDs(t testing.TB, what string, got []uuid.UUID, leases ...*lease) {
	t.Helper()
	var want []uuid.UUID
	for _, l := range leases {
		want = append(want, l.ID)
	}
	if diff := cmp.Diff(want, got, inAnyOrder, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// wantStands checks that everybody who asks hears the same of a port.
func (s store) wantStands(t testing.TB, port string, used, held int64) {
	t.Helper()
	want := map[string]int64{"used, by Reserve": used, "held, by Reserve": held, "held, by its standing": held, "held, by Standings": held,
		"used, by Spend": used, "held, by Spend": held, "held, by Holds": held, "held, by the view": held}
	got := map[string]int64{}
	v, standing := found(t, s.Ledger, port)
	got["used, by Reserve"], got["held, by Reserve"], got["held, by its standing"] = v.UsedTokens, v.HeldTokens, standing
	list, _, err := s.Reservations.Standings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got["held, by Standings"] = 0 // a port without holds is not listed
	for _, st := range list {
		if st.PortID == port {
			got["held, by Standings"] += st.Held
		}
	}
	start, end := events.PeriodMonth.Bounds(time.Now())
	spend, err := s.Spend(t.Context(), port, start, end)
	if err != nil {
		t.Fatal(err)
	}
	got["used, by Spend"], got["held, by Spend"] = spend.UsedTokens, spend.HeldTokens
	got["held, by Holds"] = 0
	for _, g := range s.live(t, port) {
		got["held, by Holds"] += g.Tokens
	}
	got["held, by the view"] = one[int64](t, s.db, "select coalesce(sum(tokens), 0)::bigint from ai_held_tokens where port_id = $1 and expires_at > clock_timestamp()", port)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", port, diff)
	}
}

func (s store) live(t testing.TB, port string) []ledger.HoldGroup {
	t.Helper()
	live, err := s.LiveHolds(t.Context(), port, nil, 100)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortStableFunc(live, func(a, b ledger.HoldGroup) int { return int(b.Tokens - a.Tokens) })
	return live
}

// wantLeases counts what is left in the table: rows that are of no use cost every reader.
func (s store) wantLeases(t testing.TB, want int) {
	t.Helper()
	if n := one[int](t, s.db, "select count(*)::int from ai_budget_slices"); n != want {
		t.Errorf("%d slices are left, want %d", n, want)
	}
}

func TestAGrantIsAnEighthOfWhatIsLeft(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	hard := func(n int64) *events.Budget {
		return &events.Budget{Enabled: true, HardCapTokens: &n, Period: events.PeriodMonth}
	}
	for port, c := range map[string]struct {
		budget     *events.Budget
		used, held int64
		least      int64
		want       int64 // 0: none
	}{
		"no-budget":       {nil, 50, 50, 1, 1000},
		"disabled":        {&events.Budget{HardCapTokens: tokens(8), Period: events.PeriodMonth}, 50, 50, 1, 1000},
		"no-cap":          {&events.Budget{Enabled: true, SoftCapTokens: tokens(8), Period: events.PeriodMonth}, 50, 50, 1, 1000},
		"an-eighth":       {hard(4000), 100, 300, 1, 450},
		"rounded-down":    {hard(807), 0, 0, 1, 100},
		"what-is-wanted":  {hard(100_000), 100, 300, 1, 1000},
		"just-the-least":  {hard(1200), 200, 200, 100, 100},
		"below-the-least": {hard(1199), 200, 200, 100, 0},
		"seven-left":      {hard(407), 200, 200, 1, 0},
		"cap-used-up":     {hard(400), 400, 0, 1, 0},
		"cap-held":        {hard(400), 0, 400, 1, 0},
		"cap-passed":      {hard(400), 4000, 300, 1, 0},
		"cap-of-0":        {hard(0), 0, 0, 1, 0},
	} {
		if c.used > 0 {
			s.book(t, call(port, time.Now(), func(u *events.Usage) {
				u.InputTokens, u.OutputTokens, u.Details = c.used, 0, events.Details{}
			}))
		}
		if c.held > 0 {
			s.reserve(t, []events.ReserveRequest{{PortID: port, EstimatedTokens: c.held}})
		}
		if c.budget != nil {
			s.set(t, port, *c.budget, nil)
		}
		granted := s.reserve(t, nil, ask(port, func(w *reservation.Want) { w.Least = c.least })).Leases
		var got int64
		for _, g := range granted {
			got += g.Tokens
		}
		if n := min(c.want, 1); got != c.want || int64(len(granted)) != n {
			t.Errorf("%s: %d slices of %d tokens, want %d of %d", port, len(granted), got, n, c.want)
		}
		s.wantStands(t, port, c.used, c.held+c.want)
	}
}

// What one call decides and grants it counts at once, requests before wants.
func TestAGrantCountsAtOnce(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	b := s.capped(t, "p1", 1000)
	s.capped(t, "p2", 1000)
	longer := func(w *reservation.Want) { w.TTL, w.Holds = time.Hour, 2*reservation.MaxLeaseHolds }
	r := s.reserve(t, []events.ReserveRequest{{PortID: "p1", EstimatedTokens: 200}, {PortID: "p2", EstimatedTokens: 1000}},
		ask("p1"), ask("p2"), ask("p3"), ask("p1", longer))
	if !r.Verdicts[0].Allowed || !r.Verdicts[1].Allowed {
		t.Fatalf("verdicts %+v", r.Verdicts)
	}
	type brief struct {
		Port    string
		Tokens  int64
		Holds   int
		TTL     time.Duration
		Version int64
	}
	var got []brief
	for _, g := range r.Leases {
		got = append(got, brief{g.PortID, g.Tokens, g.Holds, g.TTL, g.Version})
		if g.Created != r.Standings[0].At.UTC() || g.Until.Sub(g.Created) > time.Second || g.Expires.Sub(g.Until) != g.TTL {
			t.Errorf("a slice of %s, granted at %s: created %s, leased until %s, expires %s", g.TTL, r.Standings[0].At, g.Created, g.Until, g.Expires)
		}
	}
	want := []brief{
		{"p1", 100, 40, time.Minute, b.Version}, // of 800
		{"p3", 1000, 40, time.Minute, 0},
		{"p1", 87, reservation.MaxLeaseHolds, time.Hour, b.Version}, // of 700
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("granted (-want +got):\n%s", diff)
	}
	held := map[string]int64{}
	for _, st := range r.Standings {
		held[st.PortID] = st.Held
	}
	if diff := cmp.Diff(map[string]int64{"p1": 387, "p2": 1000, "p3": 1000}, held); diff != "" {
		t.Errorf("standings (-want +got):\n%s", diff)
	}
	s.wantStands(t, "p1", 0, 387)
	s.wantStands(t, "p2", 0, 1000)
	s.wantStands(t, "p3", 0, 1000)

	full := s.reserve(t, []events.ReserveRequest{{PortID: "p1", EstimatedTokens: 613}, {PortID: "p1", EstimatedTokens: 1}})
	if !full.Verdicts[0].Allowed || full.Verdicts[1].Allowed {
		t.Errorf("with 613 tokens left, 613 and then 1 are answered %+v", full.Verdicts)
	}
}

// Gates that ask at the same moment get what they would get one after the other.
func TestGrantsToManyGates(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.capped(t, "p1", 10_000)
	gates := []*ledger.Ledger{s.Ledger, open(t, s.url), open(t, s.url)}
	var mu sync.Mutex
	var got []int64
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			var r *reservation.Held
			for locked := true; locked; { // on a busy machine 40 do not get the port's lock within a second
				var err error
				r, err = gates[i%len(gates)].Reservations.Hold(t.Context(), nil, []reservation.Want{ask("p1", func(w *reservation.Want) { w.Tokens = 5000 })})
				var pg *pgconn.PgError
				if locked = errors.As(err, &pg) && pg.Code == "55P03"; err != nil && !locked {
					t.Error(err)
					return
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for _, g := range r.Leases {
				got = append(got, g.Tokens)
			}
		})
	}
	wg.Wait()
	var want []int64
	left := int64(10_000)
	for range 40 {
		if left/8 > 0 {
			want = append(want, left/8)
			left -= left / 8
		}
	}
	slices.SortFunc(got, func(a, b int64) int { return int(b - a) })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("slices (-one after the other +together):\n%s", diff)
	}
	s.wantStands(t, "p1", 0, 10_000-left)
}

// Whoever is refused is told whether a gate may have tokens to give back.
func TestLeasedIsWhatGatesMayGiveBack(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.capped(t, "p1", 1000)
	ask750 := []events.ReserveRequest{{PortID: "p1", EstimatedTokens: 750}}
	leased := func(what string, want bool) {
		t.Helper()
		if r := s.reserve(t, ask750); r.Verdicts[0].Allowed || r.Leased[0] != want {
			t.Errorf("%s: allowed %t, leased %t, want %t", what, r.Verdicts[0].Allowed, r.Leased[0], want)
		}
	}
	s.reserve(t, []events.ReserveRequest{{PortID: "p1", EstimatedTokens: 200}})
	l := s.lease(t, ask("p1")) // of 100 tokens: given back, they would do
	leased("a slice", true)
	if r := s.reserve(t, []events.ReserveRequest{{PortID: "p1", EstimatedTokens: 1}}); !r.Verdicts[0].Allowed || r.Leased[0] {
		t.Errorf("what is allowed need not be given back: %+v", r)
	}
	for ago, want := range map[time.Duration]bool{20 * time.Millisecond: true, 1200 * time.Millisecond: false} {
		until := one[time.Time](t, s.db, "update ai_budget_slices set leased_until = clock_timestamp() - $1::interval returning leased_until", ago)
		r := s.reserve(t, ask750)
		over := r.Standings[0].At.Sub(until)
		if r.Leased[0] != want && (!want || over < 200*time.Millisecond) { // its gate has a moment to seal it
			t.Errorf("a lease that ended %s ago: leased %t, want %t", over, r.Leased[0], want)
		}
	}
	exec(t, s.db, "update ai_budget_slices set leased_until = clock_timestamp() + interval '1 minute'")
	l.hold(100)
	wantIDs(t, "sealed", s.giveBack(t, l), l)
	leased("a sealed slice", false)
}

func TestReturningGivesBackWhatIsNoHold(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	odd := `we"b\ 🌊`
	l := s.lease(t, ask("p1", func(w *reservation.Want) { w.Of.Feature = odd }))
	l.made.Service = odd
	a, b, c, d := l.hold(100), l.hold(30), l.hold(70), l.hold(20)
	if !s.release(t, "p1", c)[0] {
		t.Fatal("not released")
	}
	wantLive := func(what string, want ...ledger.HoldGroup) {
		t.Helper()
		for i := range want {
			want[i].NextExpires = l.Expires
		}
		if diff := cmp.Diff(want, s.live(t, "p1"), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("live holds, %s (-want +got):\n%s", what, diff)
		}
	}
	wantLive("while it is leased", ledger.HoldGroup{Service: "(leased to a gate)", Tokens: 930})
	s.wantStands(t, "p1", 0, 930)
	for range 2 { // the answer to the first may be lost
		wantIDs(t, "returned", s.giveBack(t, l), l)
		wantLive("once it is returned", ledger.HoldGroup{Service: odd, Feature: odd, Holds: 3, Tokens: 150})
		s.wantStands(t, "p1", 0, 150)
	}
	s.book(t, settling("p1", a))
	if s.release(t, "p1", c)[0] {
		t.Error("released twice, before and after the return")
	}
	wantIDs(t, "returned", s.giveBack(t, l), l)
	wantLive("one hold fewer", ledger.HoldGroup{Service: odd, Feature: odd, Holds: 2, Tokens: 50})
	s.wantStands(t, "p1", 110, 50)
	s.book(t, settling("p1", b))
	s.wantLeases(t, 1)
	s.book(t, settling("p1", d))
	s.wantLeases(t, 0)
	wantLive("all ended")
	s.wantStands(t, "p1", 330, 0)
	wantIDs(t, "returned when it is gone", s.giveBack(t, l), l)
	s.wantLeases(t, 0)
}

// A gate of the version before listed the holds of a lease, under labels. Its leases may
// live for an hour after it was replaced.
func TestLeasesThatAnOlderGateReturned(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	l := s.lease(t, ask("p1"))
	ended := l.hold(10)
	l.hold(20)
	l.hold(30)
	exec(t, s.db, `update ai_budget_slices set tokens = 60, holds = '{"labels":[["web","ocr"],["job",""]],"holds":[[0,10],[1,20],[0,30]]}' where id = $1`, l.ID)
	s.release(t, "p1", ended)
	want := []ledger.HoldGroup{{Service: "web", Feature: "ocr", Holds: 2, Tokens: 50, NextExpires: l.Expires}}
	if diff := cmp.Diff(want, s.live(t, "p1")); diff != "" {
		t.Errorf("live (-want +got):\n%s", diff)
	}
	s.expire(t, 11*time.Second, l)
	found, err := s.SweepHolds(t.Context())
	if diff := cmp.Diff([]hold.Unsettled{{PortID: "p1", Holds: 2, Tokens: 50}}, found); err != nil || diff != "" {
		t.Errorf("%v, unsettled (-want +got):\n%s", err, diff)
	}
}

func TestReturningRemovesLeasesWhoseHoldsHaveEnded(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	var all []*lease
	for range 4 {
		all = append(all, s.lease(t, ask("p1")))
	}
	ended, half, unused, live := all[0], all[1], all[2], all[3]
	s.book(t, settling("p1", ended.hold(100)), settling("p1", ended.hold(200)), settling("p1", half.hold(100)))
	half.hold(200)
	live.hold(300)
	s.wantStands(t, "p1", 330, 700+900+1000+1000)
	wantIDs(t, "returned", s.giveBack(t, ended, unused), ended, unused)
	s.wantLeases(t, 2)
	s.wantStands(t, "p1", 330, 1900)
	wantIDs(t, "returned", s.giveBack(t, all...), all...)
	s.wantLeases(t, 2)
	s.wantStands(t, "p1", 330, 500)
}

// No gate waits for a booking: what that is busy with can be returned afterwards.
func TestReturningPassesOverWhatABookingHas(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	busy, free, over := s.lease(t, ask("p1")), s.lease(t, ask("p1")), s.lease(t, ask("p1"))
	id, ended := busy.hold(100), over.hold(100)
	busy.hold(50)
	s.release(t, "p1", ended)
	tx, err := s.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := s.BookTx(t.Context(), tx, []ledger.Entry{settling("p1", id), settling("p1", ended)}); err != nil {
		t.Fatal(err)
	}
	free.hold(10)
	wantIDs(t, "returned meanwhile", s.giveBack(t, busy, free), free)
	s.wantStands(t, "p1", 0, 1000+10+900)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantIDs(t, "returned afterwards", s.giveBack(t, busy, over), busy, over)
	s.wantStands(t, "p1", 220, 60)
	s.wantLeases(t, 2)
}

func TestLeasesOfADeletedPort(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.capped(t, "p1", 8000)
	l, kept := s.lease(t, ask("p1")), s.lease(t, ask("p2"))
	id := l.hold(100)
	kept.hold(100)
	if _, err := s.DeletePort(t.Context(), "p1", "ops"); err != nil {
		t.Fatal(err)
	}
	s.wantLeases(t, 1)
	wantIDs(t, "sealed", s.giveBack(t, l, kept), l, kept)
	if s.release(t, "p1", id)[0] {
		t.Error("a hold of a deleted port was released")
	}
	wantFates(t, s.book(t, settling("p1", id)), "booked") // as the first event of a new port
	s.wantStands(t, "p1", 110, 0)
}

func TestAwaitReturns(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	long := func(w *reservation.Want) { w.For = time.Minute }
	exec(t, s.db, "insert into ports (id) values ('p1')")
	s.lease(t, ask("p2", long))
	await := func(ctx context.Context, b events.Budget) (took time.Duration, err error) {
		start := time.Now()
		err = s.Reservations.AwaitReturns(ctx, "p1", b.UpdatedAt)
		return time.Since(start), err
	}
	atOnce := func(what string, b events.Budget) {
		t.Helper()
		if took, err := await(t.Context(), b); err != nil || took > 800*time.Millisecond {
			t.Errorf("%s: %v after %s", what, err, took)
		}
	}
	b := s.capped(t, "p1", 1_000_000)
	atOnce("no slice of the port", b)
	newer := s.lease(t, ask("p1", long))
	atOnce("a slice by the new budget", b)
	newer.hold(10)
	s.giveBack(t, newer)
	ended := s.lease(t, ask("p1", long))
	exec(t, s.db, "update ai_budget_slices set leased_until = clock_timestamp() where id = $1", ended.ID)
	old := s.lease(t, ask("p1", long))
	b = s.capped(t, "p1", 500)

	took, err := await(t.Context(), b)
	if !errors.Is(err, context.DeadlineExceeded) || took < 900*time.Millisecond || took > 3*time.Second {
		t.Errorf("a slice by the old budget that nobody seals: %v after %s, want an error after a second", err, took)
	}
	soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if took, err := await(soon, b); err == nil || took > 800*time.Millisecond {
		t.Errorf("a caller that waits for 50 ms: %v after %s", err, took)
	}

	const pause = 100 * time.Millisecond
	sealed := make(chan error)
	old.hold(10)
	go func() {
		time.Sleep(pause)
		_, err := s.Reservations.Return(t.Context(), []hold.Returned{old.made})
		sealed <- err
	}()
	if took, err := await(t.Context(), b); err != nil || took < pause {
		t.Errorf("a slice by the old budget that is sealed after %s: %v after %s", pause, err, took)
	}
	if err := <-sealed; err != nil {
		t.Fatal(err)
	}
	// Only sealed and old leases are left, and they are left: nothing above was awaited in vain.
	atOnce("sealed slices", b)
	if n := one[int](t, s.db, "select count(*)::int from ai_budget_slices where port_id = 'p1'"); n != 3 {
		t.Errorf("%d slices of the port, want 3", n)
	}
}

// The time of a budget parts the slices by the old one from those by the new one,
// however close they come: it is by that time that StoreBudget knows them.
func TestABudgetsTimePartsTheLeases(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	gates := []*ledger.Ledger{s.Ledger, open(t, s.url), open(t, s.url)}
	s.set(t, "p1", events.Budget{Period: events.PeriodMonth}, nil) // Version 1
	const changes = 60
	changed := map[int64]time.Time{}
	stop, seen := make(chan struct{}), make(chan int64, 1000)
	var mu sync.Mutex
	var granted []hold.Lease
	var wg sync.WaitGroup
	for _, gate := range gates {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				r, err := gate.Reservations.Hold(t.Context(), nil, []reservation.Want{ask("p1")})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				granted = append(granted, r.Leases...)
				mu.Unlock()
				select {
				case seen <- r.Leases[0].Version:
				default: // nobody waits for one
				}
			}
		})
	}
	for range changes {
		b, err := s.SetBudget(t.Context(), "p1", events.Budget{Period: events.PeriodMonth}, nil)
		if err != nil {
			t.Error(err)
			break
		}
		changed[b.Version] = b.UpdatedAt
		for deadline := time.After(10 * time.Second); ; { // the gates are at it again
			select {
			case version := <-seen:
				if version < b.Version {
					continue
				}
			case <-deadline:
				t.Error("no slice by the new version after 10 s: this test shows nothing")
			}
			break
		}
	}
	close(stop)
	wg.Wait()
	for _, g := range granted {
		if since := changed[g.Version]; !g.Created.After(since) {
			t.Errorf("a slice by version %d was created at %s, the version at %s", g.Version, g.Created, since)
		}
		if past, ok := changed[g.Version+1]; ok && !g.Created.Before(past) {
			t.Errorf("a slice by version %d was created at %s, the next version at %s", g.Version, g.Created, past)
		}
	}
}
