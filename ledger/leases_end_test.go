package ledger_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/reservation"
	"github.com/tidegate/tidegate/internal/reservation/hold"
	"github.com/tidegate/tidegate/ledger"
)

// In whatever way a hold ends, it ends once: no way after that frees anything.
func TestAHoldOfALeaseEndsOnce(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	wantReleased := func(got []bool, want ...bool) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("released (-want +got):\n%s", diff)
		}
	}
	// Each returns what it adds to the used tokens; live: it is the first to end the hold.
	ways := []func(port, id string, live bool) int64{
		func(port, id string, _ bool) int64 {
			wantFates(t, s.book(t, settling(port, id)), "booked")
			return 110
		},
		func(port, id string, _ bool) int64 { // the same event again
			e := settling(port, id)
			wantFates(t, s.book(t, e), "booked")
			wantFates(t, s.book(t, e, settling(port, "")), "duplicate", "booked")
			return 220
		},
		func(port, id string, _ bool) int64 { // two events in a batch, one of them twice
			e := settling(port, id)
			wantFates(t, s.book(t, e, e, settling(port, id)), "booked", "duplicate", "booked")
			return 220
		},
		func(port, id string, _ bool) int64 { // two bookings in a transaction: the second must know what the first has ended
			err := s.inTx(t, func(tx pgx.Tx) error {
				_, err := s.BookTx(t.Context(), tx, []ledger.Entry{settling(port, id)})
				if err == nil {
					_, err = s.BookTx(t.Context(), tx, []ledger.Entry{settling(port, id)})
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return 220
		},
		func(port, id string, live bool) int64 { wantReleased(s.release(t, port, id), live); return 0 },
		func(port, id string, live bool) int64 {
			wantReleased(s.release(t, port, id, id), live, false)
			return 0
		},
	}
	for first, end := range ways {
		port := fmt.Sprintf("first-by-%d", first)
		l := s.lease(t, ask(port))
		id, last := l.hold(40), l.hold(60)
		// An event that is not booked ends nothing, whatever it names.
		e := settling(port, "")
		s.book(t, e)
		wantFates(t, s.book(t, settling(port, ""), altered(e, func(u *events.Usage) { u.ReservationID = id }),
			altered(e, func(u *events.Usage) { u.ReservationID, u.OutputTokens = id, 0 })), "booked", "duplicate", "id_conflict")
		s.wantStands(t, port, 220, 1000)

		used := 220 + end(port, id, true)
		s.wantStands(t, port, used, 960)
		for _, again := range ways {
			used += again(port, id, false)
		}
		s.wantStands(t, port, used, 960)
		wantIDs(t, "sealed", s.giveBack(t, l), l)
		for _, again := range ways {
			used += again(port, id, false)
		}
		s.wantStands(t, port, used, 60)
		wantReleased(s.release(t, port, id, last, last, id), false, true, false, false)
		s.wantStands(t, port, used, 0)
	}
	s.wantLeases(t, 0)
}

// What a call was held for turns into what it used at once: nobody sees it twice
// or not at all, and a booking that is rolled back has ended nothing.
func TestHeldTurnsIntoUsedAtOnce(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	const calls = 40
	l := s.lease(t, ask("p1", func(w *reservation.Want) { w.Tokens = calls * 110 }))
	var ids []string
	for range calls {
		ids = append(ids, l.hold(110))
	}
	tx, err := s.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := s.BookTx(t.Context(), tx, []ledger.Entry{settling("p1", ids[0])}); err != nil {
		t.Fatal(err)
	}
	s.wantStands(t, "p1", 0, calls*110)
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	booked := make(chan struct{})
	go func() {
		defer close(booked)
		for _, id := range ids {
			if _, err := s.Book(t.Context(), []ledger.Entry{settling("p1", id)}); err != nil {
				t.Error(err)
			}
		}
	}()
	for done := false; !done; {
		select {
		case <-booked:
			done = true
		default:
		}
		if v, _ := found(t, s.Ledger, "p1"); v.UsedTokens+v.HeldTokens != calls*110 {
			t.Errorf("%d used and %d held, together not %d", v.UsedTokens, v.HeldTokens, calls*110)
			<-booked
			done = true
		}
	}
	s.wantStands(t, "p1", calls*110, 0)
}

// Consumers and gates end holds of the same slices in every order, each hold four
// times, while the slices are being sealed.
func TestManyEndTheSameHolds(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	ledgers := []*ledger.Ledger{s.Ledger, open(t, s.url), open(t, s.url)}
	type attempt struct {
		port, id string
		release  bool
	}
	var leases []*lease
	var attempts []attempt
	var rest []hold.ID
	want := map[string]struct{ used, held int64 }{}
	for i, port := range []string{"p1", "p2", "p1", "p2", "p1", "p2"} {
		l := s.lease(t, ask(port, func(w *reservation.Want) { w.TTL += time.Duration(i) * time.Second; w.Tokens = 10_000 }))
		leases = append(leases, l)
		w := want[port]
		for n := range 40 {
			size := int64(100 + n)
			id := l.hold(size)
			if n%4 == 0 { // these live on: what is freed twice is missing from them
				w.held += size
				rest = append(rest, hold.ID{PortID: port, ReservationID: id})
				continue
			}
			w.used += 220
			attempts = append(attempts, attempt{port, id, false}, attempt{port, id, false}, attempt{port, id, true}, attempt{port, id, true})
		}
		want[port] = w
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(attempts), func(i, j int) { attempts[i], attempts[j] = attempts[j], attempts[i] })

	var mu sync.Mutex
	releases := map[string]int{}
	var wg sync.WaitGroup
	const writers = 12
	for w := range writers {
		wg.Go(func() {
			for batch := range slices.Chunk(attempts[w*len(attempts)/writers:(w+1)*len(attempts)/writers], 12) {
				var entries []ledger.Entry
				var holds []hold.ID
				for _, a := range batch {
					if a.release {
						holds = append(holds, hold.ID{PortID: a.port, ReservationID: a.id})
					} else {
						entries = append(entries, settling(a.port, a.id))
					}
				}
				if _, err := ledgers[w%len(ledgers)].Book(t.Context(), entries); err != nil {
					t.Error(err)
				}
				released, err := ledgers[w%len(ledgers)].Reservations.Release(t.Context(), holds)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				for i, ok := range released {
					if ok {
						releases[holds[i].ReservationID]++
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Go(func() {
		for done := map[uuid.UUID]bool{}; len(done) < len(leases); time.Sleep(2 * time.Millisecond) {
			some, err := s.Reservations.Return(t.Context(), madeOf(leases))
			if err != nil {
				t.Error(err)
				return
			}
			for _, id := range idsOf(some) {
				done[id] = true
			}
		}
	})
	wg.Wait()
	for id, n := range releases {
		if n != 1 {
			t.Errorf("%s was released %d times", id, n)
		}
	}
	if len(releases) == 0 || len(releases) == len(attempts)/4 {
		t.Errorf("%d of %d holds were released: this test shows nothing", len(releases), len(attempts)/4)
	}
	for port, w := range want {
		s.wantStands(t, port, w.used, w.held)
	}
	s.wantNoDeadlocks(t)
	s.wantLeases(t, len(leases))
	released, err := s.Reservations.Release(t.Context(), rest)
	if err != nil || slices.Contains(released, false) {
		t.Errorf("the other holds: released %v, %v", released, err)
	}
	s.wantLeases(t, 0)
}

// Nothing but the id that was given, of the port that it was given to, ends a hold.
func TestForgedIDsFreeNothing(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	mine, other := s.lease(t, ask("p1")), s.lease(t, ask("p1", func(w *reservation.Want) { w.TTL = time.Hour }))
	foreign := s.lease(t, ask("p2"))
	id := mine.hold(700)    // two bytes as a uvarint
	short := mine.hold(100) // one, so that the base64 ends in unused bits
	mine.hold(200)
	other.hold(700)
	foreignID := foreign.hold(700)
	raw, err := base64.RawURLEncoding.DecodeString(id)
	if err != nil {
		t.Fatal(err)
	}
	change := func(f func([]byte) []byte) string { return base64.RawURLEncoding.EncodeToString(f(slices.Clone(raw))) }
	flip := func(i int) string { return change(func(b []byte) []byte { b[i] ^= 1; return b }) }
	var secretless hold.Lease // knows all but the secret
	secretless.ID = mine.ID
	forged := map[string]string{
		"another version":       flip(0),
		"another number":        flip(18),
		"other tokens":          flip(19),
		"more tokens":           change(func(b []byte) []byte { b[20] = 7; return b }),
		"a longer uvarint":      change(func(b []byte) []byte { b[20] |= 0x80; return slices.Insert(b, 21, 0) }),
		"no end of the uvarint": change(func(b []byte) []byte { b[20] |= 0x80; return b }),
		"tokens beyond int64": change(func(b []byte) []byte {
			return slices.Replace(b, 19, 21, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1)
		}),
		"another slice":     change(func(b []byte) []byte { copy(b[1:17], other.ID[:]); return b }),
		"an unknown slice":  flip(16),
		"another signature": flip(len(raw) - 1),
		"the signature of another": change(func(b []byte) []byte {
			theirs, _ := base64.RawURLEncoding.DecodeString(other.HoldID(0, -1, budget.Estimate{Tokens: 700}))
			copy(b[len(b)-12:], theirs[len(theirs)-12:])
			return b
		}),
		"no signature":              change(func(b []byte) []byte { return b[:len(b)-12] }),
		"a signature of zeros":      change(func(b []byte) []byte { clear(b[len(b)-12:]); return b }),
		"truncated":                 id[:len(id)-1],
		"longer":                    id + "A",
		"padded":                    id + "=",
		"signed without the secret": secretless.HoldID(0, -1, budget.Estimate{Tokens: 700}),
		"a hold beyond the slice's": mine.HoldID(4000, -1, budget.Estimate{Tokens: 700}),
		"the slice's own id":        mine.ID.String(),
		"the foreign port's":        foreignID,
		"garbage":                   "garbage",
		"NUL":                       "\x00",
		"not UTF-8":                 "\xff\xfe",
	}
	for what, f := range forged {
		if s.release(t, "p1", f)[0] {
			t.Errorf("%s: a release freed something", what)
		}
		s.book(t, settling("p1", f))
	}
	// The real id, but not from the port that has it.
	if s.release(t, "p2", id)[0] {
		t.Error("another port released the hold")
	}
	s.book(t, settling("p2", id), settling("p3", id))
	used := 110 * int64(len(forged))
	s.wantStands(t, "p1", used, 2000)
	s.wantStands(t, "p2", 110, 1000)

	for _, id := range []string{id, short} {
		// Any one byte of it replaced by any other.
		var all []string
		for i := range id {
			for c := range 256 {
				if b := []byte(id); b[i] != byte(c) {
					b[i] = byte(c)
					all = append(all, string(b))
				}
			}
		}
		if n := slices.Index(s.release(t, "p1", all...), true); n >= 0 {
			t.Errorf("%q was released as %q", id, all[n])
		}
	}
	s.wantStands(t, "p1", used, 2000)
	if !slices.Equal(s.release(t, "p1", id, short), []bool{true, true}) {
		t.Error("the true ids were not released after all that")
	}
	s.wantStands(t, "p1", used, 1200)
}

// expire moves the end of a slice's holds into the past.
func (s store) expire(t testing.TB, ago time.Duration, leases ...*lease) {
	t.Helper()
	for _, l := range leases {
		if exec(t, s.db, "update ai_budget_slices set expires_at = clock_timestamp() - $2::interval where id = $1", l.ID, ago) != 1 {
			t.Fatal("the slice is gone")
		}
	}
}

func TestAnExpiredLeaseHoldsNothing(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	short := func(w *reservation.Want) { w.For, w.TTL = 100*time.Millisecond, 1200*time.Millisecond }
	s.capped(t, "p1", 8000)
	sealed, leased := s.lease(t, ask("p1", short)), s.lease(t, ask("p1", short))
	late, released := sealed.hold(100), leased.hold(100)
	wantIDs(t, "sealed", s.giveBack(t, sealed), sealed)
	s.wantStands(t, "p1", 0, 100+875)
	time.Sleep(time.Until(leased.Expires) + 20*time.Millisecond)
	s.wantStands(t, "p1", 0, 0)
	if len(s.live(t, "p1")) != 0 {
		t.Errorf("live: %+v", s.live(t, "p1"))
	}
	wantFates(t, s.book(t, settling("p1", late)), "booked")
	s.release(t, "p1", released)
	s.wantStands(t, "p1", 110, 0)
	if r := s.reserve(t, []events.ReserveRequest{{PortID: "p1", EstimatedTokens: 7890}}); !r.Verdicts[0].Allowed {
		t.Errorf("what has expired is not free: %+v", r.Verdicts[0])
	}
}

func TestSweepCountsWhatLeasesLeave(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	exec(t, s.db, "insert into ports (id) values ('p1'), ('p2')")
	sealed, killed, done, fresh, lost := s.lease(t, ask("p1")), s.lease(t, ask("p1")), s.lease(t, ask("p1")), s.lease(t, ask("p1")), s.lease(t, ask("p2"))
	var unsettled, late, swept, settled string
	unsettled, settled = sealed.hold(100), sealed.hold(1)
	sealed.hold(30)
	sealed.hold(70)
	late, swept = sealed.hold(2), killed.hold(300)
	_ = killed.hold(400)
	fresh.hold(500)
	s.book(t, settling("p1", settled), settling("p1", swept), settling("p1", done.hold(1000)))
	wantIDs(t, "sealed", s.giveBack(t, sealed, fresh), sealed, fresh)
	sweep := func(want ...hold.Unsettled) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // it waits for nobody
		defer cancel()
		got, err := s.SweepHolds(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("swept (-want +got):\n%s", diff)
		}
	}
	wantUnsettled := func(port string, want ...ledger.UnsettledGroup) {
		t.Helper()
		got, err := s.UnsettledHolds(t.Context(), port, ledger.UnsettledGroup{}, 100)
		if err != nil {
			t.Fatal(err)
		}
		slices.SortStableFunc(got, func(a, b ledger.UnsettledGroup) int { return int(b.Tokens - a.Tokens) })
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(ledger.UnsettledGroup{}, "Day")); diff != "" {
			t.Errorf("unsettled of %s (-want +got):\n%s", port, diff)
		}
	}
	s.expire(t, 9*time.Second, sealed, killed, done, lost) // the events may be on their way
	sweep()
	s.wantLeases(t, 5)
	s.book(t, settling("p1", late)) // this one was

	// A booking that is not through yet settles its hold: the sweep leaves it alone.
	s.expire(t, 11*time.Second, sealed)
	tx, err := s.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := s.BookTx(t.Context(), tx, []ledger.Entry{settling("p1", unsettled)}); err != nil {
		t.Fatal(err)
	}
	sweep()
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	sweep(hold.Unsettled{PortID: "p1", Holds: 3, Tokens: 200})
	groups := []ledger.UnsettledGroup{{Service: "web", Feature: "ocr", Holds: 3, Tokens: 200}}
	wantUnsettled("p1", groups...)

	s.expire(t, 11*time.Second, killed, done, lost)
	sweep() // nobody knows whether those were calls
	groups = slices.Insert(groups, 0, ledger.UnsettledGroup{Service: "(killed gate)", Tokens: 700})
	wantUnsettled("p1", groups...)
	wantUnsettled("p2", ledger.UnsettledGroup{Service: "(killed gate)", Tokens: 1000})
	s.wantLeases(t, 1)
	sweep()
	wantFates(t, s.book(t, settling("p1", unsettled), settling("p1", swept)), "booked", "booked")
	wantIDs(t, "sealed when it is swept", s.giveBack(t, killed), killed)
	wantUnsettled("p1", groups...)
	s.wantStands(t, "p1", 6*110, 500)
}

// leaseModel is a port with slices that anybody can see to be right.
type leaseModel struct {
	cap, used int64
	slices    []*modelLease
	holds     []*modelHold
}

type modelLease struct {
	lease
	retired, sealed, gone bool
	closed                int64
}

type modelHold struct {
	id     string
	tokens int64
	slice  *modelLease // nil: a hold of its own
	ended  bool
}

func (m *leaseModel) held() (sum int64) {
	for _, c := range m.slices {
		switch {
		case c.gone:
		case c.sealed:
			sum += c.made.Tokens - c.closed
		default:
			sum += c.Tokens - c.closed
		}
	}
	for _, h := range m.holds {
		if h.slice == nil && !h.ended {
			sum += h.tokens
		}
	}
	return sum
}

// end reports whether the hold was live.
func (m *leaseModel) end(h *modelHold) bool {
	if h.ended || h.slice != nil && h.slice.gone {
		return false
	}
	h.ended = true
	if c := h.slice; c != nil {
		c.closed += h.tokens
		c.gone = c.sealed && c.closed == c.made.Tokens
	}
	return true
}

func (m *leaseModel) some(rt *rapid.T) (some []*modelHold) {
	for range min(len(m.holds), rapid.IntRange(1, 4).Draw(rt, "holds")) {
		some = append(some, rapid.SampledFrom(m.holds).Draw(rt, "hold"))
	}
	return some
}

// Whatever gates and consumers do, in any order and more than once, what is used
// and held is what the model has, and never more than the cap.
func TestLeasesAreTheModel(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	ledgers := []*ledger.Ledger{s.Ledger, open(t, s.url)}
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		port := fmt.Sprintf("run%d", run)
		m := leaseModel{cap: rapid.Int64Range(50, 5000).Draw(rt, "cap")}
		raise := func() {
			if _, err := s.SetBudget(t.Context(), port, events.Budget{Enabled: true, HardCapTokens: &m.cap, Period: events.PeriodMonth}, nil); err != nil {
				rt.Fatal(err)
			}
		}
		raise()
		for range rapid.IntRange(5, 20).Draw(rt, "steps") {
			l := rapid.SampledFrom(ledgers).Draw(rt, "process")
			switch step := rapid.SampledFrom([]string{"grant", "make", "make", "hold", "settle", "settle", "release", "end", "expire", "raise"}).Draw(rt, "step"); step {
			case "raise":
				m.cap += rapid.Int64Range(1, 2000).Draw(rt, "more")
				raise()
			case "hold":
				n := rapid.Int64Range(1, 300).Draw(rt, "estimate")
				r, err := l.Reservations.Hold(t.Context(), []events.ReserveRequest{{PortID: port, EstimatedTokens: n}}, nil)
				if err != nil {
					rt.Fatal(err)
				}
				if v := r.Verdicts[0]; v.Allowed != (m.used+m.held()+n <= m.cap) {
					rt.Fatalf("%d used, %d held, cap %d, asked for %d: %+v", m.used, m.held(), m.cap, n, v)
				} else if v.Allowed {
					m.holds = append(m.holds, &modelHold{id: v.ReservationID, tokens: n})
				}
			case "grant":
				m.grant(t, rt, l, port)
			case "make":
				m.make(rt)
			case "settle":
				var entries []ledger.Entry
				for _, h := range m.some(rt) {
					e := settling(port, h.id)
					e.Usage.OutputTokens, e.Usage.Details, e.Usage.InputTokens = 0, events.Details{}, 0
					if m.end(h) { // no call uses more than it held
						e.Usage.InputTokens = rapid.Int64Range(0, h.tokens).Draw(rt, "actual")
					}
					m.used += e.Usage.InputTokens
					entries = append(entries, e)
				}
				for range rapid.IntRange(1, 2).Draw(rt, "times") {
					if _, err := l.Book(t.Context(), entries); err != nil {
						rt.Fatal(err)
					}
				}
			case "release":
				var holds []hold.ID
				var want []bool
				for _, h := range m.some(rt) {
					holds, want = append(holds, hold.ID{PortID: port, ReservationID: h.id}), append(want, m.end(h))
				}
				if got, err := l.Reservations.Release(t.Context(), holds); err != nil || !slices.Equal(got, want) {
					rt.Fatalf("released %v, %v, want %v", got, err, want)
				}
			case "end":
				m.giveBack(t, rt, l)
			case "expire":
				m.expire(t, rt, s, port)
			}
			if v, _ := found(t, l, port); v.UsedTokens != m.used || v.HeldTokens != m.held() || v.UsedTokens+v.HeldTokens > m.cap {
				rt.Fatalf("%d used and %d held of %d, the model has %d and %d", v.UsedTokens, v.HeldTokens, m.cap, m.used, m.held())
			}
		}
		s.wantStands(t, port, m.used, m.held())
	})
	s.wantSums(t)
}

func (m *leaseModel) grant(t *testing.T, rt *rapid.T, l *ledger.Ledger, port string) {
	w := ask(port, func(w *reservation.Want) {
		w.Tokens, w.Least = rapid.Int64Range(1, 600).Draw(rt, "wanted"), rapid.Int64Range(1, 40).Draw(rt, "least")
		w.Holds, w.TTL = rapid.IntRange(1, 20).Draw(rt, "room"), time.Hour
	})
	r, err := l.Reservations.Hold(t.Context(), nil, []reservation.Want{w})
	if err != nil {
		rt.Fatal(err)
	}
	want := min(w.Tokens, (m.cap-m.used-m.held())/8)
	if want < w.Least {
		want = 0
	}
	var got int64
	for _, g := range r.Leases {
		got += g.Tokens
		m.slices = append(m.slices, &modelLease{lease: lease{g, hold.Returned{PortID: port, ID: g.ID}}})
	}
	if got != want || len(r.Leases) != int(min(want, 1)) {
		rt.Fatalf("%d slices of %d tokens, want %d", len(r.Leases), got, want)
	}
}

// make makes holds from the newest slice, as a gate does.
func (m *leaseModel) make(rt *rapid.T) {
	if len(m.slices) == 0 || m.slices[len(m.slices)-1].retired {
		return
	}
	c := m.slices[len(m.slices)-1]
	for range rapid.IntRange(1, 5).Draw(rt, "more holds") {
		if left := c.Tokens - c.made.Tokens; left > 0 && c.made.Holds < c.Holds {
			n := rapid.Int64Range(1, left).Draw(rt, "tokens")
			m.holds = append(m.holds, &modelHold{id: c.hold(n), tokens: n, slice: c})
		}
	}
}

// giveBack does what a gate does with leases that it does not use any more.
func (m *leaseModel) giveBack(t *testing.T, rt *rapid.T, l *ledger.Ledger) {
	if len(m.slices) == 0 {
		return
	}
	some := rapid.SliceOfNDistinct(rapid.SampledFrom(m.slices), 1, min(3, len(m.slices)), func(c *modelLease) uuid.UUID { return c.ID }).Draw(rt, "leases")
	var made []hold.Returned
	var all []uuid.UUID
	for _, c := range some {
		made, all = append(made, c.made), append(all, c.ID)
		c.retired, c.sealed = true, true
		c.gone = c.gone || c.closed == c.made.Tokens // if not gone, then of no account
	}
	done, err := l.Reservations.Return(t.Context(), made)
	if diff := cmp.Diff(all, idsOf(done), inAnyOrder, cmpopts.EquateEmpty()); err != nil || diff != "" {
		rt.Fatalf("returned: %v (-want +got):\n%s", err, diff)
	}
}

// expire lets one slice expire and be swept.
func (m *leaseModel) expire(t *testing.T, rt *rapid.T, s store, port string) {
	if len(m.slices) == 0 {
		return
	}
	c := rapid.SampledFrom(m.slices).Draw(rt, "expired")
	if c.gone {
		return
	}
	s.expire(t, 11*time.Second, &c.lease)
	c.gone, c.retired = true, true
	var want []hold.Unsettled
	u := hold.Unsettled{PortID: port}
	for _, h := range m.holds {
		if h.slice == c && !h.ended {
			u.Holds++
			u.Tokens += h.tokens
		}
	}
	if u.Holds > 0 && c.sealed {
		want = append(want, u)
	}
	got, err := s.SweepHolds(t.Context())
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); err != nil || diff != "" {
		rt.Fatalf("swept: %v (-want +got):\n%s", err, diff)
	}
}
