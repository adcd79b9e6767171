package broker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/intake"
	"github.com/tidegate/tidegate/internal/reservation"
	"github.com/tidegate/tidegate/internal/reservation/broker"
	"github.com/tidegate/tidegate/internal/reservation/hold"
	"github.com/tidegate/tidegate/internal/testenv"
)

// What makes holds come from a lease, and what does not.
func TestWhatIsServedFromLeases(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		first, then events.ReserveRequest // two of the first make it hot
		change      func(*broker.Config)
		want        bool
	}{
		"the same again":                       {first: ask(10), then: ask(10), want: true},
		"another service":                      {first: ask(10), then: ask(10, func(q *events.ReserveRequest) { q.Service = "job" }), want: true},
		"another feature":                      {first: ask(10), then: ask(10, func(q *events.ReserveRequest) { q.Feature = "chat" })},
		"another lifetime":                     {first: ask(10), then: ask(10, lives(time.Minute))},
		"another port":                         {first: ask(10), then: ask(10, func(q *events.ReserveRequest) { q.PortID = "q" })},
		"with a key, another gate may know it": {first: ask(10), then: ask(10, func(q *events.ReserveRequest) { q.IdempotencyKey = "k" })},
		"nothing, which nobody could settle":   {first: ask(10), then: ask(0)},
		"more than is leased":                  {first: ask(10), then: ask(5000)},
		"cold":                                 {first: ask(10), then: ask(10), change: func(c *broker.Config) { c.LeaseFrom = 4 }},
		"never":                                {first: ask(10), then: ask(10), change: func(c *broker.Config) { c.LeaseFrom = -1 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, 100_000)
			if c.change == nil {
				c.change = func(*broker.Config) {}
			}
			b := h.open(c.change)
			b.must(c.first)
			b.must(c.first)
			if v := b.must(c.then); fromLease(v) != c.want {
				t.Errorf("%+v: from a lease %v, want %v", c.then, fromLease(v), c.want)
			}
			if b.FromLeases.Load() > 0 != c.want {
				t.Errorf("%d are counted as made from leases", b.FromLeases.Load())
			}
		})
	}
}

// Whoever asks less than once a second gets a lease, unless it would be over by the next call.
func TestWhoAsksSeldomIsServedFromLeases(t *testing.T) {
	t.Parallel()
	for ttl, want := range map[time.Duration]bool{time.Minute: true, 8 * time.Second: false} {
		t.Run(ttl.String(), func(t *testing.T) {
			t.Parallel()
			b := newHouse(t, 100_000).open(func(c *broker.Config) { c.LeaseFrom = 3 })
			for range 3 {
				b.must(ask(10, lives(ttl)))
				time.Sleep(1100 * time.Millisecond)
			}
			if v := b.must(ask(10, lives(ttl))); fromLease(v) != want || b.Granted.Load() > 0 != want {
				t.Errorf("from a lease: %v, %d were granted; want %v", fromLease(v), b.Granted.Load(), want)
			}
		})
	}
}

// A short lease is followed by the next one, whatever was asked for since the latest second began.
func TestAShortLeaseIsFollowedByTheNext(t *testing.T) {
	t.Parallel()
	b := newHouse(t, 1<<40).open(func(c *broker.Config) { c.LeaseFrom = 3 })
	for try := range 10 {
		q := ask(10, lives(8*time.Second), func(q *events.ReserveRequest) { q.Feature = fmt.Sprint("f", try) })
		begun := time.Now()
		for range 3 {
			b.must(q)
		}
		time.Sleep(1050 * time.Millisecond) // the lease is over
		first, second := b.must(q), b.must(q)
		if time.Since(begun) > 1900*time.Millisecond || fromLease(first) {
			continue // a machine that is too busy to tell
		}
		if !fromLease(second) {
			t.Error("no lease followed the one that was over")
		}
		return
	}
	t.Error("no try was fast enough")
}

// However many callers ask two gates at once, no id is given out twice, the cap holds, and
// what was answered is what is held once the gates have stopped.
func TestLeasesGiveNoMoreThanTheCap(t *testing.T) {
	t.Parallel()
	const hard = 3_000
	h := newHouse(t, hard)
	gates := []*gate{h.open(), h.open()}
	var held, refused atomic.Int64
	var ids sync.Map
	var group sync.WaitGroup
	for caller := range 16 {
		group.Go(func() {
			for i := range 100 {
				n := int64(1 + (caller+i)%7)
				switch v, err := gates[i%2].hold(ask(n)); {
				case err != nil:
					t.Error(err)
				case !v.Allowed:
					refused.Add(1)
				default:
					held.Add(n)
					if _, twice := ids.LoadOrStore(v.ReservationID, true); twice {
						t.Errorf("%s was given out twice", v.ReservationID)
					}
				}
			}
		})
	}
	group.Wait()
	if held.Load() > hard || held.Load() < hard-6 || refused.Load() == 0 {
		t.Errorf("%d of %d tokens were held and %d calls refused", held.Load(), hard, refused.Load())
	}
	if gates[0].FromLeases.Load() < 50 || gates[1].FromLeases.Load() < 50 {
		t.Errorf("%d and %d holds came from leases: too few to mean anything", gates[0].FromLeases.Load(), gates[1].FromLeases.Load())
	}
	for _, b := range gates {
		b.stop()
	}
	if got, open := h.held(); got != held.Load() || open != 0 {
		t.Errorf("%d tokens are held and %d leases open, want %d and none", got, open, held.Load())
	}
}

// Extra tokens can be held until their end, however many callers ask two gates, and then no
// more: not from a lease either, of before or of then.
func TestExtraTokensAreHeldUntilTheirEnd(t *testing.T) {
	t.Parallel()
	const hard, extra = 2_000, 1_000
	h := newHouse(t, hard)
	clock := testenv.NewClock(t, h.db.Config().ConnString())
	h.ledger = h.reopen()
	byClock := func(c *broker.Config) { c.Now = clock.Now }
	gates := []*gate{h.open(byClock), h.open(byClock)}
	var mu sync.Mutex
	held, live := int64(0), map[string]int64{}
	askUntilRefused := func() {
		var group sync.WaitGroup
		for caller := range 16 {
			group.Go(func() {
				for refused := 0; refused < 3; {
					n := int64(1 + caller%7)
					v, err := gates[caller%2].hold(ask(n))
					if err != nil {
						t.Error(err)
						return
					}
					if !v.Allowed {
						refused++
						continue
					}
					mu.Lock()
					held += n
					live[v.ReservationID] = n
					mu.Unlock()
				}
			})
		}
		group.Wait()
	}
	release := func(left int64) {
		for id, n := range live {
			if held <= left {
				return
			}
			if !gates[0].release(id, "p") {
				t.Errorf("%s cannot be released", id)
			}
			delete(live, id)
			held -= n
		}
	}
	want := func(when string, cap int64) {
		t.Helper()
		if held > cap || held < cap-6 {
			t.Errorf("%s %d tokens are held of %d", when, held, cap)
		}
	}

	for range 40 { // leases of before, with much left
		if v := gates[0].must(ask(1)); v.Allowed {
			held, live[v.ReservationID] = held+1, 1
		}
	}
	leased := gates[0].FromLeases.Load()
	if leased == 0 {
		t.Fatal("no hold came from a lease, so this tests nothing")
	}
	until := clock.Now().Add(time.Minute) // while holds live for five
	h.store("p", budget.Budget{Enabled: true, HardCapTokens: new(int64(hard)), Period: budget.Day, ExtraTokens: new(int64(extra)), ExtraUntil: until})
	askUntilRefused()
	want("with extra tokens", hard+extra)
	if n := gates[0].FromLeases.Load() + gates[1].FromLeases.Load(); n != leased {
		t.Errorf("%d holds came from leases, which may be left when the extra tokens end", n-leased)
	}
	clock.Start(until)
	askUntilRefused()
	want("at their end", hard+extra) // nothing more
	release(hard / 2)
	leased = gates[0].FromLeases.Load() + gates[1].FromLeases.Load()
	askUntilRefused()
	want("after their end", hard)
	if gates[0].FromLeases.Load()+gates[1].FromLeases.Load() == leased {
		t.Error("no hold comes from a lease any more")
	}
}

// What gates have leased is theirs to use, not a reason to refuse.
func TestNothingIsRefusedForWhatIsLeased(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 10_000)
	a, b := h.open(), h.open()
	a.heat(ask(10))
	b.heat(ask(10))
	if held, open := h.held(); held < 300 || open < 2 {
		t.Fatalf("%d tokens in %d leases: too few for this test", held, open)
	}
	a.must(ask(10_000))
	if v, err := b.hold(ask(1)); err != nil || v.Allowed {
		t.Errorf("one more: %+v, %v; want it refused", v, err)
	}
}

// A gate that was killed keeps what it had leased, whole, and nobody waits for it for long.
func TestAKilledGateIsNotWaitedForLong(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 10_000)
	a, b := h.open(func(c *broker.Config) { c.Store = &unreachable{Backend: c.Store} }), h.open()
	a.heat(ask(10))
	a.dead.Store(true)
	begun := time.Now()
	v, err := b.hold(ask(10_000))
	if took := time.Since(begun); err != nil || v.Allowed || took < 300*time.Millisecond || took > 3*time.Second {
		t.Errorf("everything: %+v, %v after %s; want it refused after some 400 ms", v, err, took)
	}
}

// unreachable is a store whose leases cannot be returned.
type unreachable struct{ broker.Backend }

func (*unreachable) Return(context.Context, []hold.Returned) (map[uuid.UUID]time.Time, error) {
	return nil, errors.New("Postgres is away")
}

func TestAStoppedGateReturnsItsLeases(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 10_000)
	b := h.open()
	b.heat(ask(10))
	one := b.must(ask(10))
	b.stop()
	if held, open := h.held(); held != 10 || open != 0 {
		t.Errorf("%d tokens in %d leases are held, want 10 in none", held, open)
	}
	if v, err := b.hold(ask(10)); !errors.Is(err, intake.ErrStopping) {
		t.Errorf("after the stop: %+v, %v", v, err)
	}
	if !h.open().release(one.ReservationID) {
		t.Error("the hold that was made is gone")
	}
	if held, _ := h.held(); held != 0 {
		t.Errorf("%d tokens are held", held)
	}
}

// A lease is returned when nobody uses it, and at its end, whoever goes on asking.
func TestLeasesEnd(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 10_000)
	b := h.open()
	b.heat(ask(10))
	begun := time.Now()
	h.eventually("an idle lease is returned", 10*time.Second, func() bool { _, open := h.held(); return open == 0 })
	if took := time.Since(begun); took < 1500*time.Millisecond {
		t.Errorf("returned after %s, as if it were idle", took)
	}
	// Holds for 8 s come from leases of a second. No other can be had.
	cut := &cutOff{Backend: h.ledger.Reservations}
	c := h.open(func(c *broker.Config) { c.Store = cut })
	short := ask(10, lives(8*time.Second))
	c.heat(short)
	cut.off.Store(true)
	begun = time.Now()
	for {
		v, err := c.hold(short)
		if err != nil {
			break
		}
		if took := time.Since(begun); took > 1100*time.Millisecond {
			t.Fatalf("%+v from a lease of a second that was granted at least %s ago", v, took)
		}
		if left := time.Until(v.ExpiresAt); left < 7900*time.Millisecond || left > 9100*time.Millisecond {
			t.Fatalf("a hold for 8 s expires in %s", left)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// cutOff is a store that can go away.
type cutOff struct {
	broker.Backend
	off atomic.Bool
}

func (c *cutOff) Hold(ctx context.Context, requests []events.ReserveRequest, wants []reservation.Want) (*reservation.Held, error) {
	if c.off.Load() {
		return nil, errors.New("Postgres is away")
	}
	return c.Backend.Hold(ctx, requests, wants)
}

// Whoever needs the tokens of a port has them, before it is leased again.
func TestARevokedPortIsNotLeasedForAWhile(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 10_000)
	h.store("p", budget.Budget{Default: true, Period: budget.Month})
	h.budget(budget.DefaultPort, 10_000)
	b := h.open()
	b.heat(ask(10))
	for name, revoke := range map[string]func(){
		"the port": func() { b.Revoke("p", broker.RevokedFor) }, "all ports": b.RevokeAll, "those of the default budget": b.RevokeDefault,
	} {
		revoked := time.Now()
		revoke()
		h.eventually("its lease is returned", 800*time.Millisecond, func() bool { _, open := h.held(); return open == 0 })
		for time.Since(revoked) < broker.RevokedFor-50*time.Millisecond {
			if v := b.must(ask(1)); fromLease(v) && time.Since(revoked) < broker.RevokedFor {
				t.Fatalf("%s: leased again %s after it was revoked", name, time.Since(revoked))
			}
		}
		b.heat(ask(10))
	}
}

// Whoever waits for what is leased waits for a transaction, not for the time at which a gate looks after its leases.
func TestWhatIsRevokedIsReturnedAtOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 10_000)
	b := h.open()
	var ports []string
	for i := range 10 {
		port := fmt.Sprint("r", i)
		h.budget(port, 10_000)
		b.heat(ask(10, func(q *events.ReserveRequest) { q.PortID = port }))
		ports = append(ports, port)
	}
	begun := time.Now()
	for _, port := range ports {
		if _, open := h.held(port); open == 0 {
			t.Fatalf("%s is not leased", port)
		}
		b.Revoke(port, 0)
		h.eventually("its lease is returned", 800*time.Millisecond, func() bool { _, open := h.held(port); return open == 0 })
	}
	if took := time.Since(begun); took > 1200*time.Millisecond { // by the look at all leases alone, 250 ms each
		t.Errorf("10 leases were returned one after the other in %s", took)
	}
}

// No hold is made from a lease that was granted under a budget before the one that is known.
func TestABudgetEndsOlderLeases(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 10_000)
	b := h.open()
	b.heat(ask(10))
	next := *h.rule.Load()
	next.Version++
	h.rule.Store(&next) // it heard of the budget, and not yet of the change
	if v := b.must(ask(10)); fromLease(v) {
		t.Error("a hold under the older budget")
	}
	h.eventually("the lease is returned", 800*time.Millisecond, func() bool { _, open := h.held(); return open == 0 })
	begun := time.Now()
	h.budget("p", 0)
	if took := time.Since(begun); took > 900*time.Millisecond {
		t.Errorf("the change took %s: leases are left", took)
	}
	if v, err := b.hold(ask(1)); err != nil || v.Allowed {
		t.Errorf("%+v, %v; want it refused", v, err)
	}
}

// Postgres did not answer a commit. If it came, the lease is in nobody's hands: it is returned,
// and no hold is made from it.
func TestALeaseInDoubtIsReturned(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 10_000)
	lost := &unheard{Backend: h.ledger.Reservations}
	b := h.open(func(c *broker.Config) { c.Store = lost })
	lost.on.Store(true)
	for range 3 {
		if v, err := b.hold(ask(10)); err == nil {
			t.Errorf("%+v, although nobody knows whether it is held", v)
		}
	}
	if lost.leases.Load() == 0 {
		t.Fatal("no lease was in doubt")
	}
	h.eventually("the lease is returned", 800*time.Millisecond, func() bool { _, open := h.held(); return open == 0 })
	if held, _ := h.held(); held != 30 {
		t.Errorf("%d held, want the three holds that nobody knows", held)
	}
	if b.FromLeases.Load() != 0 {
		t.Error("holds were made from it")
	}
}

// unheard is a store whose answers are lost.
type unheard struct {
	broker.Backend
	on     atomic.Bool
	leases atomic.Int64
}

func (u *unheard) Hold(ctx context.Context, requests []events.ReserveRequest, wants []reservation.Want) (*reservation.Held, error) {
	held, err := u.Backend.Hold(ctx, requests, wants)
	if err != nil || !u.on.Load() {
		return held, err
	}
	u.leases.Add(int64(len(held.Leases)))
	return &reservation.Held{Leases: held.Leases}, errors.New("the connection broke")
}

// A hold counts in the period of its lease: none is made from a lease of another day.
func TestNoHoldIsMadeFromALeaseOfAnotherDay(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 10_000)
	var ahead atomic.Int64
	b := h.open(func(c *broker.Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	b.heat(ask(10))
	for days, want := range map[time.Duration]bool{-1: false, 0: true, 1: false} {
		ahead.Store(int64(days * 24 * time.Hour))
		if v := b.must(ask(1)); fromLease(v) != want {
			t.Errorf("%d days on: from a lease %v", days, !want)
		}
	}
}

// While leases come, are used and are returned, nobody is told of fewer held tokens than
// there are. Once all is quiet, what is leased and no hold counts as held no more.
func TestNobodyIsToldOfTooFewHeldTokens(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 1_000_000)
	b := h.open()
	var made atomic.Int64
	var done atomic.Bool
	var group sync.WaitGroup
	defer group.Wait()
	known := func() int64 {
		_, count, _ := b.Known("p", time.Now())
		return count.Held
	}
	group.Go(func() {
		for !done.Load() {
			before := made.Load()
			if held := known(); held < before {
				t.Errorf("%d are told to be held, and there were %d", held, before)
				return
			}
		}
	})
	for i := range 3_000 {
		v := b.must(ask(10))
		if before := made.Add(10); v.HeldTokens < before {
			t.Errorf("a hold is told that %d are held, and there were %d with it", v.HeldTokens, before)
			break
		}
		if i%100 == 99 {
			b.Revoke("p", 0)
		}
	}
	done.Store(true)
	if b.FromLeases.Load() < 1000 {
		t.Errorf("%d holds came from leases: too few to mean anything", b.FromLeases.Load())
	}
	if _, err := b.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 100 { // also while its last lease is returned
		if held := known(); held != made.Load() {
			t.Fatalf("%d are told to be held, want %d", held, made.Load())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A reading of Postgres does not see what commits while it is read, but its time may be later.
func TestAReadingThatMissedAHoldDoesNotHideIt(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		when func(m *missing, read, hold func())
	}{
		{"told while it is read", func(m *missing, read, hold func()) { m.reading = hold; read() }},
		{"told when it is read", func(m *missing, read, hold func()) { m.holding = read; hold() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t, 1000)
			m := &missing{Backend: h.ledger.Reservations}
			b := h.open(func(c *broker.Config) { c.Store, c.LeaseFrom = m, -1 })
			b.must(ask(10))
			read := func() {
				if _, err := b.Read(t.Context()); err != nil {
					t.Error(err)
				}
			}
			c.when(m, read, func() { b.must(ask(5)) })
			for _, what := range []string{"then", "when it is read again"} {
				if _, count, _ := b.Known("p", time.Now()); count.Held != 15 {
					t.Errorf("%s, %d are told to be held, want 15", what, count.Held)
				}
				read()
			}
		})
	}
}

// missing reads what is held before something happens, and the time after it.
type missing struct {
	broker.Backend
	reading func() // once: after what is held was read, before the time is
	holding func() // once: when a hold is committed and nobody heard of it; readings miss it
	before  []hold.Standing
}

func (m *missing) Hold(ctx context.Context, q []events.ReserveRequest, w []reservation.Want) (*reservation.Held, error) {
	if m.holding == nil {
		return m.Backend.Hold(ctx, q, w)
	}
	m.before, _, _ = m.Backend.Standings(ctx)
	held, err := m.Backend.Hold(ctx, q, w)
	m.holding()
	m.holding, m.before = nil, nil
	return held, err
}

func (m *missing) Standings(ctx context.Context) ([]hold.Standing, time.Time, error) {
	list, at, err := m.Backend.Standings(ctx)
	if m.before != nil {
		list = m.before
	}
	if m.reading != nil {
		m.reading()
		m.reading, at = nil, time.Now()
	}
	return list, at, err
}

// The answer to a return is lost, and the port's next hold comes before the return is tried
// again: what is left of the lease must not be taken off twice.
func TestALeaseThatMayHaveBeenReturned(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 100_000)
	m := &mute{Backend: h.ledger.Reservations, asked: make(chan bool), answer: make(chan bool)}
	b := h.open(func(c *broker.Config) { c.Store = m })
	b.heat(ask(10))
	known := func() int64 {
		_, count, _ := b.Known("p", time.Now())
		return count.Held
	}
	m.lost.Store(1)
	b.Revoke("p", time.Minute)
	<-m.asked
	b.must(ask(10))
	m.answer <- true
	for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); {
		if held := known(); held < 10 {
			t.Fatalf("%d are told to be held, and there are 10", held)
		}
	}
	if _, err := b.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	if held := known(); held != 10 {
		t.Errorf("%d are told to be held once that is read, want 10", held)
	}
	if n := m.returns.Load(); n < 2 {
		t.Errorf("the return was tried %d times", n)
	}
}

// mute returns leases, the next lost ones without saying so.
type mute struct {
	broker.Backend
	lost, returns atomic.Int64
	asked, answer chan bool
}

func (m *mute) Return(ctx context.Context, list []hold.Returned) (map[uuid.UUID]time.Time, error) {
	done, err := m.Backend.Return(ctx, list)
	if m.lost.Load() > 0 {
		m.lost.Add(-1)
		m.asked <- true
		<-m.answer
		done, err = nil, errors.New("the answer is lost")
	}
	m.returns.Add(1)
	return done, err
}

// News of holds come in any order, and readings between them.
func TestTheLatestNewsOfHoldsCounts(t *testing.T) {
	t.Parallel()
	at := time.Now()
	list := readings{{at, []hold.Standing{{PortID: "p", Held: 10, At: at}}}, {at.Add(1), nil}, {at.Add(3), nil}}
	b := newHouse(t, 100).open(func(c *broker.Config) { c.Store = &list })
	hear := func(held int64, after time.Duration) {
		b.Hear([]hold.Standing{{PortID: "p", Held: held, At: at.Add(after)}})
	}
	read := func() {
		if _, err := b.Read(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	want := func(what string, want int64) {
		t.Helper()
		if _, count, _ := b.Known("p", at); count.Held != want {
			t.Errorf("%s: %d held, want %d", what, count.Held, want)
		}
	}
	read()
	want("read", 10)
	hear(30, 2)
	hear(20, 1)
	want("told late", 30)
	read()
	want("a reading from before the last news", 30)
	read()
	want("all are settled", 0)
	hear(40, 3)
	want("told late, after a reading", 0)
}

type readings []struct {
	at   time.Time
	list []hold.Standing
}

func (r *readings) Hold(context.Context, []events.ReserveRequest, []reservation.Want) (*reservation.Held, error) {
	return nil, errors.ErrUnsupported
}

func (r *readings) Release(context.Context, []hold.ID) ([]bool, error) {
	return nil, errors.ErrUnsupported
}

func (r *readings) Return(context.Context, []hold.Returned) (map[uuid.UUID]time.Time, error) {
	return nil, errors.ErrUnsupported
}

func (r *readings) Standings(context.Context) ([]hold.Standing, time.Time, error) {
	next := (*r)[0]
	*r = (*r)[1:]
	return next.list, next.at, nil
}

// Tokens that are withheld, or that nobody waits for any more, are not held.
func TestWhatIsNotHeld(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 10_000)
	var withheld atomic.Bool
	why := errors.New("what this port has used is not known")
	b := h.open(func(c *broker.Config) {
		c.Withheld = func(string) error {
			if withheld.Load() {
				return why
			}
			return nil
		}
	})
	b.heat(ask(10))
	withheld.Store(true)
	if v, err := b.hold(ask(10)); !errors.Is(err, why) {
		t.Errorf("%+v, %v; want it withheld", v, err)
	}
	late := h.open(func(c *broker.Config) { c.Timeout = time.Nanosecond })
	if v, err := late.hold(ask(10)); !errors.Is(err, intake.ErrBusy) {
		t.Errorf("%+v, %v; want it refused as too late", v, err)
	}
}

// Nothing is leased of what is withheld, also where that was asked for before.
func TestWithheldTokensAreNotLeased(t *testing.T) {
	t.Parallel()
	for range 20 { // until this machine is quick enough
		h := newHouse(t, 100_000)
		var withheld atomic.Bool
		b := h.open(func(c *broker.Config) {
			c.Withheld = func(string) error {
				if withheld.Load() {
					return errors.New("withheld")
				}
				return nil
			}
		})
		b.heat(ask(10))
		begin := time.Now()
		for range 28 { // the next lease is asked for, in 25 ms
			b.must(ask(10))
		}
		withheld.Store(true)
		if time.Since(begin) > 20*time.Millisecond {
			continue
		}
		time.Sleep(200 * time.Millisecond)
		if n := b.Granted.Load(); n != 1 {
			t.Errorf("%d leases were granted, want the first only", n)
		}
		return
	}
	t.Error("28 holds took longer than 20 ms, 20 times")
}

// Around midnight leases are granted until it comes, by the database's clock, and expire
// a lifetime after it.
func TestALeaseEndsWithItsDay(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 10_000)
	clock := testenv.NewClock(t, h.db.Config().ConnString())
	clock.Stop(time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC).Add(-6 * time.Second))
	l := h.reopen()
	r, err := l.Reservations.Hold(t.Context(), nil, []reservation.Want{
		{PortID: "p", Kind: hold.Kind{TTL: time.Minute}, For: 5 * time.Second, Tokens: 10, Least: 1, Holds: 1},
		{PortID: "p", Kind: hold.Kind{TTL: time.Minute}, For: 10 * time.Second, Tokens: 10, Least: 1, Holds: 1},
		{PortID: "p", Kind: hold.Kind{TTL: time.Minute}, For: 25 * time.Second, Tokens: 10, Least: 1, Holds: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	var lasts []time.Duration
	for _, g := range r.Leases {
		lasts = append(lasts, g.Until.Sub(g.Created))
		if g.Expires.Sub(g.Until) != time.Minute {
			t.Errorf("holds until %s expire at %s", g.Until, g.Expires)
		}
	}
	if !slices.Equal(lasts, []time.Duration{5 * time.Second, 6 * time.Second}) {
		t.Errorf("leases for %v, want 5 s and 6 s, and none where too little of the day is left", lasts)
	}
}

// Whatever is asked of whichever gate, while gates come, stop and are killed: what is
// answered is held, no more than the cap is, and nothing is refused for which there is room.
func TestBrokersAreTheModel(t *testing.T) {
	t.Parallel()
	const hard = 2_000
	h := newHouse(t, hard)
	var leased int64
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		port := fmt.Sprintf("run-%d", run)
		h.budget(port, hard)
		gates := []*gate{h.open(), h.open()}
		live := map[string]int64{}
		var ids []string
		var held int64
		for range rapid.IntRange(10, 60).Draw(rt, "steps") {
			i := rapid.IntRange(0, 1).Draw(rt, "gate")
			switch rapid.SampledFrom([]string{"hold", "hold", "hold", "hold", "release", "revoke", "stop", "wait"}).Draw(rt, "step") {
			case "hold":
				for range rapid.IntRange(1, 6).Draw(rt, "times") {
					n := rapid.Int64Range(1, 60).Draw(rt, "tokens")
					v, err := gates[i].hold(ask(n, func(q *events.ReserveRequest) { q.PortID = port }))
					if err != nil || v.Allowed != (held+n <= hard) {
						rt.Fatalf("%d tokens beside %d of %d: %+v, %v", n, held, hard, v, err)
					}
					if v.Allowed {
						if live[v.ReservationID] != 0 {
							rt.Fatalf("%s was given out twice", v.ReservationID)
						}
						live[v.ReservationID], held, ids = n, held+n, append(ids, v.ReservationID)
					}
				}
			case "release":
				if len(ids) > 0 {
					id := rapid.SampledFrom(ids).Draw(rt, "id")
					if got := gates[i].release(id, port); got != (live[id] > 0) {
						rt.Fatalf("%s was released: %v, and held %d", id, got, live[id])
					}
					held -= live[id]
					live[id] = 0
				}
			case "revoke":
				gates[i].Revoke(port, 0)
			case "stop":
				leased += gates[i].FromLeases.Load()
				gates[i].stop()
				gates[i] = h.open()
			case "wait":
				time.Sleep(time.Duration(rapid.IntRange(1, 30).Draw(rt, "ms")) * time.Millisecond)
			}
		}
		for _, b := range gates {
			leased += b.FromLeases.Load()
			b.stop()
		}
		if got, open := h.held(port); got != held || open != 0 {
			rt.Fatalf("%d are held and %d leases open, want %d and none", got, open, held)
		}
	})
	if leased < 100 {
		t.Errorf("%d holds came from leases: too few to mean anything", leased)
	}
}

// A port with thousands of requests on their way does not delay its neighbour's.
func TestPortsTakeTurns(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 1_000_000)
	gate := &turnstile{began: make(chan struct{}), open: make(chan struct{})}
	b := h.open(func(c *broker.Config) {
		gate.Backend, c.Store, c.LeaseFrom, c.Timeout = c.Store, gate, -1, time.Minute
	})
	neighbour := "n"
	for n := 0; (hold.PortLocks(neighbour)[0]^hold.PortLocks("p")[0])&1 != 0; n++ { // else each has a queue
		neighbour = fmt.Sprint("n", n)
	}
	hold := func(port string, answered func()) {
		b.Hold(ask(1, func(q *events.ReserveRequest) { q.PortID = port }), func(v *events.Verdict, err error) {
			if err != nil || !v.Allowed {
				t.Errorf("%s: %v, %v", port, v, err)
			}
			answered()
		})
	}
	var busy, theirs sync.WaitGroup
	var ofBusy, before atomic.Int64
	add := func() {
		busy.Add(1)
		hold("p", func() { ofBusy.Add(1); busy.Done() })
	}
	add()
	<-gate.began
	for range 3_000 {
		add()
	}
	for range 20 {
		theirs.Add(1)
		hold(neighbour, func() { before.Store(ofBusy.Load()); theirs.Done() })
	}
	close(gate.open)
	theirs.Wait()
	if n := before.Load(); n > 256 {
		t.Errorf("%d requests of another port were answered before the neighbour's last", n)
	}
	busy.Wait()
}

// turnstile lets nothing through until it is open.
type turnstile struct {
	broker.Backend
	first       sync.Once
	began, open chan struct{}
}

func (s *turnstile) Hold(ctx context.Context, q []events.ReserveRequest, w []reservation.Want) (*reservation.Held, error) {
	s.first.Do(func() { close(s.began) })
	<-s.open
	return s.Backend.Hold(ctx, q, w)
}
