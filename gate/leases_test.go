package gate

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

const (
	short = 8 * time.Second // its lease is 1 s
	long  = 5 * time.Minute // its lease is the longest, 10 s
	hot   = 2
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// granted is a slice by a database whose clock is three hours behind: a gate must
// not compare it with its own.
func granted(port string, ttl time.Duration, tokens int64, holds int) ledger.Slice {
	created := noon.Add(-3 * time.Hour)
	until := created.Add(leaseOf(ttl))
	return ledger.Slice{
		PortID: port, ID: uuid.New(), TTL: ttl, Version: 1, Tokens: tokens, Holds: holds,
		Created: created, Until: until, Expires: until.Add(ttl),
	}
}

func install(s *leases, g ledger.Slice, asked time.Time) {
	s.install([]ledger.Slice{g}, asked, func(string) int64 { return 1 })
}

func take(s *leases, port string, ttl time.Duration, tokens int64, at time.Time) (hold, bool) {
	h, ok, _ := s.take(ask(port, ttl, tokens), 1, ledger.DayOf(noon), at)
	return h, ok
}

func ask(port string, ttl time.Duration, tokens int64) *events.ReserveRequest {
	return &events.ReserveRequest{PortID: port, TTLSeconds: int64(ttl / time.Second), EstimatedTokens: tokens, Service: "s", Feature: "f"}
}

// hurried reports, once, whether somebody was told that a slice is waited for.
func hurried(s *leases) bool {
	select {
	case <-s.urgent:
		return true
	default:
		return false
	}
}

func idsOf(list []ledger.Sealed) []uuid.UUID {
	ids := make([]uuid.UUID, len(list))
	for i := range list {
		ids[i] = list[i].ID
	}
	return ids
}

// expectTidy checks which slices tidy hands out, in the order of their retirement.
func expectTidy(t *testing.T, s *leases, at time.Time, finish, seal []ledger.Slice) {
	t.Helper()
	gotFinish, gotSeal := s.tidy(at)
	for _, c := range []struct {
		what string
		got  []ledger.Sealed
		want []ledger.Slice
	}{{"finish", gotFinish, finish}, {"seal", gotSeal, seal}} {
		var want []uuid.UUID
		for i := range c.want {
			want = append(want, c.want[i].ID)
		}
		if got := idsOf(c.got); !slices.Equal(got, want) {
			t.Errorf("%v after noon: %s %v, want %v", at.Sub(noon), c.what, got, want)
		}
	}
}

func TestLeasesTakeFromASlice(t *testing.T) {
	t.Parallel()
	g := granted("p", long, 100, 10)
	for _, c := range []struct {
		name    string
		port    string
		ttl     time.Duration
		tokens  int64
		version int64
		after   time.Duration
		ok      bool
		retired bool
	}{
		{name: "all of it", port: "p", ttl: long, tokens: 100, version: 1, ok: true},
		{name: "nothing: by its tokens nobody could tell that it has ended", port: "p", ttl: long, version: 1},
		{name: "one token more than granted", port: "p", ttl: long, tokens: 101, version: 1},
		{name: "another port", port: "q", ttl: long, tokens: 1, version: 1},
		{name: "a longer lifetime", port: "p", ttl: long + time.Second, tokens: 1, version: 1},
		{name: "a shorter lifetime", port: "p", ttl: short, tokens: 1, version: 1},
		{name: "in the lease's last moment", port: "p", ttl: long, tokens: 1, version: 1, after: maxLease - 1, ok: true},
		{name: "when the lease is over", port: "p", ttl: long, tokens: 1, version: 1, after: maxLease, retired: true},
		{name: "under a newer budget", port: "p", ttl: long, tokens: 1, version: 2, retired: true},
		{name: "while the gate has not heard of the budget yet", port: "p", ttl: long, tokens: 1, version: 0, ok: true},
	} {
		s := newLeases(hot)
		install(s, g, noon)
		h, ok, _ := s.take(ask(c.port, c.ttl, c.tokens), c.version, ledger.DayOf(noon), noon.Add(c.after))
		if ok != c.ok {
			t.Errorf("%s: %v", c.name, ok)
		}
		if ok && (h.id() != g.HoldID(0, c.tokens) || h.tokens != c.tokens || !h.slice.Expires.Equal(g.Expires)) {
			t.Errorf("%s: hold %d of %d tokens", c.name, h.n, h.tokens)
		}
		if retired := s.ports["p"].lines[0].slice == nil; retired != c.retired {
			t.Errorf("%s: retired %v", c.name, retired)
		}
		// A budget that changed is waited for, by whoever changed it; and the ledger takes
		// the gate of a slice that is over for dead before long.
		if hurried(s) != c.retired {
			t.Errorf("%s: urgent %v", c.name, !c.retired)
		}
	}
}

func TestLeasesTakeNoMoreThanGranted(t *testing.T) {
	t.Parallel()
	s := newLeases(hot)
	install(s, granted("p", long, 10, 3), noon)
	install(s, granted("p", short, 10, 32), noon)
	ids := map[string]bool{}
	for i, c := range []struct {
		ttl    time.Duration
		tokens int64
		ok     bool
	}{
		{long, 4, true}, {long, 7, false}, {long, 4, true}, {long, 0, false}, {long, 1, true},
		{long, 1, false},                   // there were to be three holds
		{short, 4, true}, {short, 4, true}, // the same numbers, of another slice
		{short, 3, false}, {short, 1, true},
		{short, 1, true}, {short, 1, false}, {short, 0, false},
	} {
		h, ok := take(s, "p", c.ttl, c.tokens, noon)
		if ok != c.ok {
			t.Errorf("%d: %v", i, ok)
		}
		if !ok {
			continue
		}
		if ids[h.id()] {
			t.Errorf("%d: the id of another hold", i)
		}
		ids[h.id()] = true
	}
	if got := s.spare("p", nothing); got != 1 {
		t.Errorf("%d to spare, want 1", got)
	}
}

func TestLeasesWantWhatIsAskedFor(t *testing.T) {
	t.Parallel()
	type request struct {
		after  time.Duration
		tokens int64
	}
	for _, c := range []struct {
		name     string
		ttl      time.Duration
		requests []request
		want     []ledger.Want
	}{
		{"never asked for", long, nil, nil},
		{"cold", long, []request{{0, 10}}, nil},
		{"once in every second", long, []request{{0, 10}, {time.Second, 10}, {2 * time.Second, 10}}, nil},
		{"for nothing", long, []request{{0, 0}, {0, 0}, {0, 0}}, nil},
		{
			"twice in a second", long,
			[]request{{0, 10}, {time.Second - 1, 20}},
			[]ledger.Want{{PortID: "p", TTL: long, Lease: 10 * time.Second, Tokens: 32 * 16, Least: 4 * 16, Holds: 32}},
		},
		{
			"for a short time", short,
			[]request{{0, 10}, {0, 20}},
			[]ledger.Want{{PortID: "p", TTL: short, Lease: time.Second, Tokens: 32 * 16, Least: 4 * 16, Holds: 32}},
		},
		{
			"often", long,
			slices.Repeat([]request{{0, 99}}, 50), // four times as many as in that second
			[]ledger.Want{{PortID: "p", TTL: long, Lease: 10 * time.Second, Tokens: 200 * 100, Least: 4 * 100, Holds: 200}},
		},
		{
			"as often as one slice serves", long,
			slices.Repeat([]request{{0, 99}}, ledger.MaxSliceHolds/4),
			[]ledger.Want{{
				PortID: "p", TTL: long, Lease: 10 * time.Second, Least: 4 * 100,
				Tokens: ledger.MaxSliceHolds * 100, Holds: ledger.MaxSliceHolds,
			}},
		},
		{
			"more often", long, // no more tokens are taken from others than its holds can use
			slices.Repeat([]request{{0, 99}}, ledger.MaxSliceHolds/4+1),
			[]ledger.Want{{
				PortID: "p", TTL: long, Lease: 10 * time.Second, Least: 4 * 100,
				Tokens: ledger.MaxSliceHolds * 100, Holds: ledger.MaxSliceHolds,
			}},
		},
		{
			"often, a second ago", long,
			append(slices.Repeat([]request{{0, 99}}, 50), request{time.Second, 99}),
			[]ledger.Want{{PortID: "p", TTL: long, Lease: 10 * time.Second, Tokens: 200 * 100, Least: 4 * 100, Holds: 200}},
		},
		{"often, long ago", long, append(slices.Repeat([]request{{0, 99}}, 50), request{2 * time.Second, 99}), nil},
	} {
		s, now := newLeases(hot), noon
		for _, r := range c.requests {
			now = noon.Add(r.after)
			take(s, "p", c.ttl, r.tokens, now)
		}
		if got := s.wants([]string{"other", "p"}, now); !slices.Equal(got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
		if got := s.wants([]string{"other"}, now); got != nil {
			t.Errorf("%s: %+v for a port that was not named", c.name, got)
		}
		s.recall("p", now, barFor)
		if got := s.wants([]string{"p"}, now.Add(barFor-1)); got != nil {
			t.Errorf("%s: %+v while barred", c.name, got)
		}

		s = newLeases(hot)
		for _, r := range c.requests {
			take(s, "p", c.ttl, r.tokens, noon.Add(r.after))
		}
		s.close(now)
		if got := s.wants([]string{"p"}, now); got != nil {
			t.Errorf("%s: %+v after close", c.name, got)
		}
	}
}

// A lifetime that is in demand does not make others hot.
func TestLeasesWantForEachLifetime(t *testing.T) {
	t.Parallel()
	s := newLeases(hot)
	for _, ttl := range []time.Duration{short, long, long} {
		take(s, "p", ttl, 7, noon)
	}
	got := s.wants([]string{"p"}, noon)
	if len(got) != 1 || got[0].TTL != long {
		t.Errorf("%+v, want one for %v", got, long)
	}
}

func TestLeasesHot(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		hot, requests int
		want          bool
	}{{1, 1, true}, {4, 3, false}, {4, 4, true}, {-1, 1, false}, {-1, 100, false}} {
		s := newLeases(c.hot)
		for range c.requests {
			take(s, "p", long, 7, noon)
		}
		if got := s.wants([]string{"p"}, noon); (len(got) == 1) != c.want {
			t.Errorf("%d requests, hot with %d: wants %v", c.requests, c.hot, got)
		}
	}
}

// Demand passes with time, even where nobody comes to say so: a lifetime that was hot
// once must not be leased again whenever its port is asked for another.
func TestLeasesForgetDemand(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		after time.Duration
		want  int
	}{{2*sliceFor - 1, 1}, {2 * sliceFor, 0}, {time.Hour, 0}} {
		s := newLeases(hot)
		take(s, "p", short, 7, noon)
		take(s, "p", short, 7, noon)
		later := noon.Add(c.after)
		take(s, "p", long, 7, later)
		if got := s.wants([]string{"p"}, later); len(got) != c.want {
			t.Errorf("%+v, for what was asked for %v ago", got, c.after)
		}
	}
}

// A port that is asked for always must not keep every lifetime it ever was asked for.
func TestLeasesForgetLifetimes(t *testing.T) {
	t.Parallel()
	s := newLeases(hot)
	take(s, "p", short, 1, noon)
	install(s, granted("p", time.Minute, 10, 9), noon)
	take(s, "p", long, 1, noon.Add(2*sliceFor))
	for _, c := range []struct {
		after time.Duration
		want  []time.Duration
	}{
		{0, []time.Duration{short, time.Minute, long}},
		{forgetAfter, []time.Duration{short, time.Minute, long}},
		{forgetAfter + 1, []time.Duration{long}}, // the idle slice is retired, too
		{forgetAfter + 2*sliceFor, []time.Duration{long}},
		{forgetAfter + 2*sliceFor + 1, nil},
	} {
		s.tidy(noon.Add(c.after))
		var got []time.Duration
		for _, l := range s.port("p").lines {
			got = append(got, l.ttl)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("after %v: %v, want %v", c.after, got, c.want)
		}
	}
}

// A want that is not granted, since little is left, costs every request of its port a
// look at it: it is not repeated at once.
func TestLeasesAskAgain(t *testing.T) {
	t.Parallel()
	s := newLeases(hot)
	for _, ttl := range []time.Duration{long, long, short} {
		take(s, "p", ttl, 7, noon)
	}
	wants := func(after time.Duration, want ...time.Duration) {
		t.Helper()
		var got []time.Duration
		for _, w := range s.wants([]string{"p"}, noon.Add(after)) {
			got = append(got, w.TTL)
		}
		if !slices.Equal(got, want) {
			t.Errorf("after %v: wants %v, want %v", after, got, want)
		}
	}
	wants(0, long)
	take(s, "p", short, 7, noon)
	wants(0, short) // each lifetime by itself
	wants(askAgain-1, nil...)
	wants(askAgain, long, short)
	at := noon.Add(askAgain)
	install(s, granted("p", long, 100, 40), at) // it was granted: the next is asked for when it is due
	take(s, "p", long, 80, at)
	wants(askAgain, long)
	wants(2*askAgain-1, nil...)
	wants(2*askAgain, long, short)
}

func TestLeasesAskBeforeASliceIsUsedUp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		tokens []int64 // of the holds, from a slice of 400 tokens and 40 holds
		after  time.Duration
		more   bool
	}{
		{"most of it is there", []int64{149, 149}, 0, false},
		{"just less than three quarters of the tokens", []int64{149, 150}, 0, false},
		{"three quarters of the tokens", []int64{150, 150}, 0, true},
		{"one hold less than three quarters", slices.Repeat([]int64{1}, 29), 0, false},
		{"three quarters of the holds", slices.Repeat([]int64{1}, 30), 0, true},
		{"three quarters of the time, to the moment", []int64{1, 1}, maxLease / 4 * 3, false},
		{"three quarters of the time", []int64{1, 1}, maxLease/4*3 + 1, true},
		{"cold: one is enough", []int64{400}, 0, false},
	} {
		s := newLeases(hot)
		install(s, granted("p", long, 400, 40), noon)
		now := noon.Add(c.after)
		for i, tokens := range c.tokens {
			_, ok, more := s.take(ask("p", long, tokens), 1, ledger.DayOf(noon), now)
			if last := i == len(c.tokens)-1; !ok || more != (last && c.more) {
				t.Errorf("%s, hold %d: %v, more %v", c.name, i, ok, more)
			}
		}
		if got := s.wants([]string{"p"}, now); (len(got) == 1) != c.more {
			t.Errorf("%s: wants %v", c.name, got)
		}
	}
}

// Every request that finds a slice nearly used up could ask for the next. One does,
// until that has come or was denied.
func TestLeasesAskOnce(t *testing.T) {
	t.Parallel()
	s := newLeases(hot)
	more := func(tokens int64, at time.Time) bool {
		_, _, more := s.take(ask("p", long, tokens), 1, ledger.DayOf(noon), at)
		return more
	}
	for range 2 {
		if more(1, noon) {
			t.Error("asked by those whom Postgres has to answer: they ask themselves")
		}
	}
	install(s, granted("p", long, 100, 40), noon)
	if first, second, third := more(80, noon), more(1, noon), more(1, noon); !first || second || third {
		t.Error("not asked exactly once")
	}
	again := noon.Add(askAgain)
	if len(s.wants([]string{"p"}, noon)) != 1 || more(1, again.Add(-1)) || !more(1, again) || more(1, again) {
		t.Error("not asked again, once and after a while, when the answer was: none")
	}
	s.wants([]string{"p"}, again)
	install(s, granted("p", long, 100, 40), noon)
	if more(1, noon) || !more(80, noon) {
		t.Error("asked for another one before, or not when, the next was used up too")
	}
	s.recall("p", noon, barFor)
	if more(1, noon) || more(1, noon.Add(barFor-1)) {
		t.Error("asked while barred")
	}
}

func TestLeasesInstall(t *testing.T) {
	t.Parallel()
	s := newLeases(hot)
	first, second, other := granted("p", long, 10, 9), granted("p", long, 20, 9), granted("p", short, 40, 9)
	install(s, first, noon)
	install(s, other, noon)
	take(s, "p", long, 3, noon)
	now := noon.Add(100 * time.Millisecond)
	install(s, second, now)
	if h, ok := take(s, "p", long, 3, now); !ok || h.id() != second.HoldID(0, 3) {
		t.Error("the new slice does not serve")
	}
	if h, ok := take(s, "p", short, 3, now); !ok || h.id() != other.HoldID(0, 3) {
		t.Error("the slice of another lifetime was replaced")
	}
	if got := s.spare("p", nothing); got != 7+17+37 {
		t.Errorf("%d to spare, want %d", got, 7+17+37)
	}
	if hurried(s) {
		t.Error("nobody waits for a slice that was replaced")
	}
	expectTidy(t, s, now.Add(sealAfter), nil, []ledger.Slice{first})
}

// A slice that was granted before its port was recalled, under a budget that has
// changed, or while the gate stopped, makes no hold and is given back at once.
func TestLeasesInstallTooLate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		before  func(s *leases)
		asked   time.Time
		current int64
		late    bool
	}{
		{"in time", func(*leases) {}, noon, 1, false},
		{"under the older budget", func(*leases) {}, noon, 2, true},
		{"before the gate heard of the budget", func(*leases) {}, noon, 0, false},
		{"before a recall that bars nothing", func(s *leases) { s.recall("p", noon.Add(1), 0) }, noon, 1, false}, // the version tells
		{"before the recall", func(s *leases) { s.recall("p", noon.Add(1), barFor) }, noon, 1, true},
		{"while barred", func(s *leases) { s.recall("p", noon, barFor) }, noon.Add(barFor - 1), 1, true},
		{"after the bar", func(s *leases) { s.recall("p", noon, barFor) }, noon.Add(barFor), 1, false},
		{"another port is barred", func(s *leases) { s.recall("q", noon, barFor) }, noon, 1, false},
		{"after close", func(s *leases) { s.close(noon) }, noon, 1, true},
	} {
		s := newLeases(hot)
		take(s, "p", long, 1, noon) // somebody asked, or there were no slice
		c.before(s)
		g := granted("p", long, 10, 9)
		s.install([]ledger.Slice{g}, c.asked, func(string) int64 { return c.current })
		if _, ok := take(s, "p", long, 1, c.asked); ok == c.late {
			t.Errorf("%s: made a hold: %v", c.name, ok)
		}
		if hurried(s) != c.late {
			t.Errorf("%s: urgent %v", c.name, !c.late)
		}
		var back []ledger.Slice
		if c.late {
			back = []ledger.Slice{g}
		}
		expectTidy(t, s, c.asked, nil, back)
	}
}

// A slice is over by the gate's clock as soon after it was asked for as its lease is
// long, however long the answer took, and whatever the database's clock says.
func TestLeasesLastSinceTheyWereAskedFor(t *testing.T) {
	t.Parallel()
	s := newLeases(hot)
	install(s, granted("p", short, 10, 9), noon)
	if _, ok := take(s, "p", short, 1, noon.Add(time.Second-1)); !ok {
		t.Error("over too early")
	}
	if _, ok := take(s, "p", short, 1, noon.Add(time.Second)); ok {
		t.Error("over too late")
	}
}

// A machine that was suspended has a monotonic clock that stood still: Postgres went by
// the other one meanwhile, and counts the gate as killed.
func TestLeasesAreOverByEitherClock(t *testing.T) {
	t.Parallel()
	now := time.Now()
	ahead := now // by its wall clock: time makes no such times, so its seconds, above the 30 bits of nanoseconds, are set
	*(*uint64)(unsafe.Pointer(&ahead)) += uint64(maxLease/time.Second) << 30
	if ahead.Sub(now) != 0 || ahead.Round(0).Sub(now.Round(0)) != maxLease {
		t.Fatal("no time's wall clock can be set: the layout of time.Time has changed")
	}
	for _, c := range []struct {
		name       string
		asked, now time.Time
		over       bool
	}{
		{"by neither", now, ahead.Add(-1), false},
		{"by the wall clock", now, ahead, true},
		{"by neither, the wall clock was set back", ahead, now.Add(maxLease - 1), false},
		{"by the monotonic clock", ahead, now.Add(maxLease), true},
	} {
		g := granted("p", long, 10, 9)
		var gone []ledger.Slice
		if c.over {
			gone = []ledger.Slice{g}
		}
		for _, way := range []string{"take", "tidy"} {
			s := newLeases(hot)
			install(s, g, c.asked)
			if way == "take" {
				if _, ok := take(s, "p", long, 1, c.now); ok == c.over {
					t.Errorf("%s: made a hold: %v", c.name, ok)
				}
			} else {
				s.ports["p"].lines[0].slice.used = c.now // or it is idle
			}
			expectTidy(t, s, c.now, nil, gone)
			if hurried(s) != c.over {
				t.Errorf("%s, %s: urgent %v", c.name, way, !c.over)
			}
		}
	}
}

func TestLeasesRecall(t *testing.T) {
	t.Parallel()
	s := newLeases(hot)
	old, a, b, other := granted("p", long, 10, 9), granted("p", long, 10, 9), granted("p", short, 10, 9), granted("q", long, 10, 9)
	otherOld := granted("q", long, 10, 9)
	for _, g := range []ledger.Slice{old, a, b, otherOld, other} { // a replaces old
		install(s, g, noon)
	}
	expectTidy(t, s, noon, nil, nil)
	s.recall("p", noon, barFor)
	if !hurried(s) {
		t.Error("nobody was told")
	}
	for _, ttl := range []time.Duration{long, short} {
		if _, ok := take(s, "p", ttl, 1, noon); ok {
			t.Error("made a hold after the recall")
		}
	}
	if h, ok := take(s, "q", long, 1, noon); !ok || h.id() != other.HoldID(0, 1) {
		t.Error("the recall of a port hit another")
	}
	expectTidy(t, s, noon, nil, []ledger.Slice{old, a, b})
	if got := s.spare("p", nothing); got != 30 {
		t.Errorf("%d to spare, want 30 until they are sealed", got)
	}

	if !s.barred("p", noon.Add(barFor-1)) || s.barred("p", noon.Add(barFor)) || s.barred("q", noon) {
		t.Error("the port, and no other, is to be left alone for as long as it is barred")
	}

	// It is retired slices alone that are in somebody's way here.
	s.recall("p", noon, barFor)
	if hurried(s) {
		t.Error("told twice of the same slices")
	}
	s.recall("q", noon, 0)
	s.recall("q", noon, 0)
	if !hurried(s) || hurried(s) {
		t.Error("not told once, however often it was recalled")
	}
}

func TestLeasesRecallWhatIsRetired(t *testing.T) {
	t.Parallel()
	s := newLeases(hot)
	g := granted("p", long, 10, 9)
	install(s, g, noon)
	idle := noon.Add(idleFor + 1)
	expectTidy(t, s, idle, nil, nil)
	if hurried(s) {
		t.Error("an idle slice is in nobody's way")
	}
	expectTidy(t, s, idle.Add(sealAfter/2), []ledger.Slice{g}, nil)
	s.recall("p", idle, 0)
	if !hurried(s) {
		t.Error("nobody was told")
	}
	expectTidy(t, s, idle, nil, []ledger.Slice{g})
}

// A recall reaches a gate that has nothing of the port yet, while it is about to get some.
func TestLeasesRecallOfAnUnknownPort(t *testing.T) {
	t.Parallel()
	s := newLeases(hot)
	s.recall("p", noon, barFor)
	for range 2 {
		take(s, "p", long, 1, noon)
	}
	if got := s.wants([]string{"p"}, noon.Add(barFor-1)); got != nil {
		t.Errorf("wants %v while barred", got)
	}
	if got := s.wants([]string{"p"}, noon.Add(barFor)); len(got) != 1 {
		t.Errorf("wants %v after the bar", got)
	}
	s.recall("q", noon, 0) // bars nothing: there is nothing to remember
	if s.ports["q"] != nil {
		t.Error("ports that nobody asked for pile up")
	}
}

// Whoever recalled a port waits for its turn, whatever else is told of the port meanwhile.
func TestLeasesKeepTheLongerBar(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		after time.Duration
		bar   time.Duration
		until time.Duration
	}{
		{"a budget changed", 1, 0, barFor},
		{"a shorter one", 1, barFor / 2, barFor},
		{"another one", barFor / 4, barFor, barFor / 4 * 5},
	} {
		s := newLeases(hot)
		take(s, "p", long, 1, noon)
		take(s, "p", long, 1, noon)
		s.recall("p", noon, barFor)
		s.recall("p", noon.Add(c.after), c.bar)
		if got := s.wants([]string{"p"}, noon.Add(c.until-1)); got != nil {
			t.Errorf("%s: wants %v while barred", c.name, got)
		}
		if got := s.wants([]string{"p"}, noon.Add(c.until)); len(got) != 1 {
			t.Errorf("%s: wants %v after the bar", c.name, got)
		}
	}
}

func TestLeasesClose(t *testing.T) {
	t.Parallel()
	s := newLeases(hot)
	a, b, c := granted("p", long, 10, 9), granted("p", short, 10, 9), granted("q", long, 10, 9)
	for _, g := range []ledger.Slice{a, b, c} {
		install(s, g, noon)
	}
	s.close(noon)
	for port, ttl := range map[string]time.Duration{"p": long, "q": long} {
		if _, ok := take(s, port, ttl, 1, noon); ok {
			t.Error("made a hold after close")
		}
	}
	_, seal := s.tidy(noon)
	ids := idsOf(seal)
	for _, g := range []ledger.Slice{a, b, c} {
		if !slices.Contains(ids, g.ID) {
			t.Errorf("the slice of %s for %v is not given back at once", g.PortID, g.TTL)
		}
	}
}

// A gate that stops looks through its slices once. What it leaves counts as held until
// it expires, and then as what a killed gate left.
func TestLeasesCloseWhatIsRetired(t *testing.T) {
	t.Parallel()
	s := newLeases(hot)
	old, g, maybe := granted("p", long, 10, 9), granted("p", long, 10, 9), granted("p", long, 10, 9)
	install(s, old, noon)
	install(s, g, noon) // replaces old
	s.doubt([]ledger.Slice{maybe}, noon)
	idle := noon.Add(idleFor + 1)
	expectTidy(t, s, idle.Add(-1), nil, []ledger.Slice{old, maybe})
	s.ended(map[uuid.UUID]bool{maybe.ID: true}, idle)
	expectTidy(t, s, idle, nil, []ledger.Slice{old})
	if s.ended(nil, idle) {
		t.Error("one is waited for")
	}
	s.close(idle)
	expectTidy(t, s, idle, nil, []ledger.Slice{old, g})
	if !s.ended(nil, idle) {
		t.Error("none is waited for")
	}
}

func TestLeasesTidyLeavesSlicesForAWhile(t *testing.T) {
	t.Parallel()
	s := newLeases(hot)
	g := granted("p", long, 100, 9)
	install(s, g, noon)
	for _, r := range []events.ReserveRequest{
		{Service: "s", Feature: "f", EstimatedTokens: 1},
		{Service: "s", Feature: "g", EstimatedTokens: 2},
		{Service: "s", Feature: "f", EstimatedTokens: 3},
		{EstimatedTokens: 4},
	} {
		r.PortID, r.TTLSeconds = "p", int64(long/time.Second)
		if _, ok, _ := s.take(&r, 1, ledger.DayOf(noon), noon); !ok {
			t.Fatal("not made")
		}
	}
	idle := noon.Add(idleFor + 1)
	one := []ledger.Slice{g}
	expectTidy(t, s, idle, nil, nil)
	expectTidy(t, s, idle.Add(sealAfter/2-1), nil, nil)
	expectTidy(t, s, idle.Add(sealAfter/2), one, nil)
	expectTidy(t, s, idle.Add(sealAfter-1), one, nil)
	expectTidy(t, s, idle.Add(sealAfter), nil, one)
	expectTidy(t, s, idle.Add(sealAfter), nil, one) // until it is done

	_, seal := s.tidy(idle.Add(sealAfter))
	got := seal[0]
	if got.PortID != "p" || got.Tokens != 10 ||
		!slices.Equal(got.Labels, [][2]string{{"s", "f"}, {"s", "g"}, {"", ""}}) ||
		!slices.Equal(got.Holds, []ledger.SlicedHold{{Label: 0, Tokens: 1}, {Label: 1, Tokens: 2}, {Label: 0, Tokens: 3}, {Label: 2, Tokens: 4}}) {
		t.Errorf("sealed as %+v", got)
	}
}

func TestLeasesRetireIdleSlices(t *testing.T) {
	t.Parallel()
	s := newLeases(hot)
	idle, busy, over := granted("idle", long, 10, 9), granted("busy", long, 10, 9), granted("over", short, 10, 9)
	for _, g := range []ledger.Slice{idle, busy, over} {
		install(s, g, noon)
	}
	expectTidy(t, s, noon, nil, nil)
	take(s, "over", short, 1, noon.Add(time.Second-1))
	expectTidy(t, s, noon.Add(time.Second-1), nil, nil)
	if hurried(s) {
		t.Error("one is waited for too early")
	}
	at := noon.Add(time.Second) // nobody asks for the port any more, to find its lease over
	expectTidy(t, s, at, nil, []ledger.Slice{over})
	if !hurried(s) {
		t.Error("nobody was told of the slice that is over")
	}
	s.ended(map[uuid.UUID]bool{over.ID: true}, at)
	take(s, "busy", long, 1, at)

	expectTidy(t, s, noon.Add(idleFor), nil, nil)
	if h, ok := take(s, "idle", long, 1, noon.Add(idleFor)); !ok || h.id() != idle.HoldID(0, 1) {
		t.Error("a slice was retired that was idle for no longer than it may be")
	}
	take(s, "busy", long, 1, noon.Add(idleFor+1))
	at = noon.Add(2*idleFor + 1)
	expectTidy(t, s, at.Add(-1), nil, nil)
	expectTidy(t, s, at, nil, nil) // a moment later it looks again
	if _, ok := take(s, "idle", long, 1, at); ok {
		t.Error("an idle slice was not retired")
	}
	if _, ok := take(s, "busy", long, 1, at); !ok {
		t.Error("a slice in use was retired")
	}
	expectTidy(t, s, at.Add(sealAfter/2), []ledger.Slice{idle}, nil)
	expectTidy(t, s, at.Add(sealAfter), nil, []ledger.Slice{idle})
	if hurried(s) {
		t.Error("nobody waits for any of them")
	}
}

func TestLeasesForgetIdlePorts(t *testing.T) {
	t.Parallel()
	s := newLeases(hot)
	take(s, "idle", long, 1, noon)
	take(s, "asked", long, 1, noon)
	install(s, granted("spare", short, 10, 9), noon)
	s.recall("barred", noon, time.Minute)
	known := func(at time.Time) []string {
		s.tidy(at)
		return slices.Sorted(maps.Keys(s.ports))
	}
	if got, want := known(noon.Add(forgetAfter)), []string{"asked", "barred", "idle", "spare"}; !slices.Equal(got, want) {
		t.Errorf("after 10 s: %v, want %v", got, want)
	}
	take(s, "asked", long, 1, noon.Add(11*time.Second))
	if got, want := known(noon.Add(11*time.Second)), []string{"asked", "barred", "spare"}; !slices.Equal(got, want) {
		t.Errorf("after 11 s: %v, want %v", got, want)
	}
	if got, want := known(noon.Add(time.Minute)), []string{"barred", "spare"}; !slices.Equal(got, want) {
		t.Errorf("after a minute: %v, want %v", got, want)
	}
	s.ended(nil, noon.Add(time.Minute)) // what spare had has expired
	if got, want := known(noon.Add(time.Hour)), []string{"spare"}; !slices.Equal(got, want) {
		t.Errorf("before what is held was read: %v, want %v", got, want)
	}
	s.read(noon.Add(time.Hour), all, nothing)
	if got := known(noon.Add(time.Hour)); len(got) > 0 {
		t.Errorf("after an hour: %v, want none", got)
	}
}

// However many ports there are, all are forgotten in time, though no look takes long.
func TestLeasesForgetManyPorts(t *testing.T) {
	t.Parallel()
	s := newLeases(hot)
	for i := range 5 * forgetAtOnce {
		take(s, fmt.Sprint(i), long, 1, noon)
	}
	at := noon.Add(forgetAfter + 1)
	s.tidy(at)
	if got := len(s.ports); got != 4*forgetAtOnce {
		t.Errorf("%d ports are left after one look, want %d", got, 4*forgetAtOnce)
	}
	for range 100 {
		s.tidy(at)
	}
	if got := len(s.ports); got != 0 {
		t.Errorf("%d ports are never forgotten", got)
	}
	busy := granted("busy", long, 10, 9)
	for i := range 5 * forgetAtOnce {
		take(s, fmt.Sprint(i), long, 1, at)
	}
	install(s, busy, at)
	s.tidy(at.Add(idleFor + 1)) // whatever else there is to look at
	if len(s.ending) != 1 || len(s.leased) != 0 {
		t.Errorf("%d retired, %d leased; want the idle one retired at the first look", len(s.ending), len(s.leased))
	}
}

func TestLeasesEnded(t *testing.T) {
	t.Parallel()
	s := newLeases(hot)
	done, stuck, other := granted("p", short, 10, 9), granted("p", short, 20, 9), granted("q", long, 40, 9)
	for _, g := range []ledger.Slice{done, stuck, other} { // stuck replaces done
		install(s, g, noon)
	}
	take(s, "p", short, 3, noon)
	ended := func(what string, at time.Time, urgent bool, p, q int64, ids ...uuid.UUID) {
		t.Helper()
		list := map[uuid.UUID]bool{}
		for _, id := range ids {
			list[id] = true
		}
		if got := s.ended(list, at); got != urgent {
			t.Errorf("%s: somebody waits: %v", what, got)
		}
		s.read(at.Add(1), all, nothing)
		if s.spare("p", nothing) != p || s.spare("q", nothing) != q {
			t.Errorf("%s: %d and %d to spare, want %d and %d", what, s.spare("p", nothing), s.spare("q", nothing), p, q)
		}
	}
	ended("none done", noon, false, 27, 40)
	ended("one is done", noon, false, 17, 40, done.ID)
	ended("it is told again", noon, false, 17, 40, done.ID)
	ended("one that is in use is not", noon, false, 17, 40, stuck.ID)

	over := noon.Add(time.Second)
	s.recall("q", over, 0)
	ended("recalled", over, true, 17, 40)
	take(s, "p", short, 1, over)
	ended("its holds live", over.Add(short-1), true, 17, 40)
	expectTidy(t, s, over.Add(short-1), nil, []ledger.Slice{other, stuck})
	ended("its holds have expired", over.Add(short), true, 0, 40)
	expectTidy(t, s, over.Add(short), nil, []ledger.Slice{other})
	ended("all done", over.Add(short), false, 0, 0, other.ID)
	expectTidy(t, s, over.Add(short), nil, nil)
}

func all(string) bool { return true }

func nothing() {}

// What is held counts a slice until it is given back, and checks know of that when they
// read what is held the next time: until then it is to spare.
func TestLeasesRead(t *testing.T) {
	t.Parallel()
	s := newLeases(hot)
	first, second, other := granted("p", long, 10, 9), granted("p", short, 20, 9), granted("q", long, 40, 9)
	for _, g := range []ledger.Slice{first, second, other} {
		install(s, g, noon)
	}
	take(s, "p", long, 3, noon)
	now := noon
	give := func(g ledger.Slice) {
		s.recall(g.PortID, now, 0)
		s.ended(map[uuid.UUID]bool{g.ID: true}, now)
	}
	check := func(what string, p, q int64) {
		t.Helper()
		if s.spare("p", nothing) != p || s.spare("q", nothing) != q {
			t.Errorf("%s: %d and %d to spare, want %d and %d", what, s.spare("p", nothing), s.spare("q", nothing), p, q)
		}
	}
	only := func(port string) func(string) bool { return func(p string) bool { return p == port } }
	s.read(now.Add(time.Hour), all, nothing)
	check("nothing is given back", 27, 40)
	give(first)
	check("given back", 27, 40)
	s.read(now.Add(-1), all, nothing)
	s.read(now, all, nothing)
	check("read, since before that", 27, 40)
	s.read(now.Add(1), only("q"), nothing)
	check("another port was read", 27, 40)
	give(other)
	now = now.Add(time.Second)
	give(second)
	check("all given back", 27, 40)
	s.read(now, only("p"), nothing)
	check("the first of two was", 20, 40)
	s.read(now, only("p"), nothing)
	check("it is read again", 20, 40)
	install(s, granted("p", long, 5, 9), now)
	s.read(now.Add(1), all, nothing)
	check("all are read", 5, 0)
	if len(s.given) != 0 {
		t.Error("what was read piles up")
	}
}

// Postgres did not answer a commit. If it came, the slice is in nobody's hands and has
// to be given back.
func TestLeasesDoubt(t *testing.T) {
	t.Parallel()
	s := newLeases(hot)
	g, other := granted("p", long, 100, 40), granted("q", short, 100, 40)
	for range 2 {
		take(s, "p", long, 7, noon)
	}
	s.doubt([]ledger.Slice{g, other}, noon)
	if got := s.wants([]string{"p"}, noon); len(got) != 1 {
		t.Errorf("wants %v, as if there were one", got)
	}
	if _, ok, more := s.take(ask("p", long, 1), 1, ledger.DayOf(noon), noon); ok || more {
		t.Errorf("made a hold: %v, more %v", ok, more)
	}
	if got := s.spare("p", nothing); got != 0 {
		t.Errorf("%d to spare", got)
	}
	if !hurried(s) || !s.ended(nil, noon) {
		t.Error("it is not given back at once")
	}
	at := noon
	expectTidy(t, s, at, nil, []ledger.Slice{g, other})
	_, seal := s.tidy(at)
	for i, c := range []ledger.Slice{g, other} {
		if got := seal[i]; got.PortID != c.PortID || got.Tokens != 0 || len(got.Holds) != 0 || !got.Doubtful {
			t.Errorf("sealed as %+v", got)
		}
	}
	s.ended(map[uuid.UUID]bool{g.ID: true}, at)
	s.read(at.Add(1), all, nothing)
	if p, q := s.spare("p", nothing), s.spare("q", nothing); p != 0 || q != 0 {
		t.Errorf("%d and %d to spare", p, q)
	}
	expectTidy(t, s, at, nil, []ledger.Slice{other})
	s.ended(nil, noon.Add(time.Second+short)) // by then it expired, if it was granted then
	expectTidy(t, s, at, nil, nil)
}

// Requests come from many goroutines, while others tidy, recall and replace slices.
func TestLeasesTogether(t *testing.T) {
	t.Parallel()
	s := newLeases(hot)
	const slicesOf, tokens = 20, 50
	var made atomic.Int64
	var ids sync.Map
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range slicesOf * tokens {
				if h, ok := take(s, "p", long, 1, noon); ok {
					made.Add(1)
					if _, twice := ids.LoadOrStore(h.id(), true); twice {
						t.Error("the id of another hold")
					}
				}
			}
		})
	}
	group.Go(func() {
		for range slicesOf {
			install(s, granted("p", long, tokens, tokens), noon)
			s.wants([]string{"p"}, noon)
			s.tidy(noon)
			s.read(noon, all, nothing)
		}
	})
	group.Wait()
	if got := made.Load() + s.spare("p", nothing); got != slicesOf*tokens {
		t.Errorf("%d tokens were made into holds or are to spare, of %d", got, slicesOf*tokens)
	}
	s.close(noon)
	_, seal := s.tidy(noon.Add(sealAfter))
	var sealed int64
	for i := range seal {
		sealed += seal[i].Tokens
	}
	if sealed != made.Load() {
		t.Errorf("%d tokens are sealed as holds, want %d", sealed, made.Load())
	}
}

// Whatever happens in whatever order: no slice gives more than it was granted, nor
// after its end, every hold is written down once, and the slack is exact.
func TestLeasesModel(t *testing.T) {
	t.Parallel()
	const maxSteps = 200
	var served, refused, sealed int
	rapid.Check(t, func(t *rapid.T) {
		m := newLeasesModel(t)
		closeAt := rapid.SampledFrom([]int{maxSteps, maxSteps, 20, 50, maxSteps, maxSteps}).Draw(t, "close at")
		for i := range rapid.SampledFrom([]int{25, 100, maxSteps}).Draw(t, "steps") {
			if i == closeAt { // once, and not early: nothing is made after it
				m.close()
			}
			m.step()
			m.checkSlack()
		}
		for _, c := range m.slices {
			served, refused = served+len(c.made), refused+c.refused
			if c.ended {
				sealed++
			}
		}
	})
	if served < 50 || refused < 50 || sealed < 50 {
		t.Errorf("%d holds, %d refusals, %d slices sealed: too few to mean anything", served, refused, sealed)
	}
}

// leasesModel knows what leases has to do, in the plainest way: it keeps all slices
// there ever were, and looks at each.
type leasesModel struct {
	t            *rapid.T
	s            *leases
	now          time.Time
	closed       bool
	barred       map[string]time.Time
	version      map[string]int64
	notBefore    map[lineKey]time.Time // for wants
	onTheirWay   []asked               // granted, and not installed
	slices       []*modelSlice
	ids          map[string]bool
	ports        []string
	lifetimes    []time.Duration
	jumps        []time.Duration
	whatToDoNext []string
}

type asked struct {
	slice ledger.Slice
	at    time.Time
}

type lineKey struct {
	port string
	ttl  time.Duration
}

type modelSlice struct {
	ledger.Slice
	until, used, retiredAt time.Time
	retired, urgent, ended bool
	doubtful               bool // whether it was granted; no holds are made then
	endedAt                time.Time
	read                   bool // what is held, since it ended
	made                   []modelHold
	refused                int
}

type modelHold struct {
	label  [2]string
	tokens int64
}

func (c *modelSlice) left() int64 {
	left := c.Tokens
	for _, h := range c.made {
		left -= h.tokens
	}
	return left
}

func (c *modelSlice) retire(at time.Time, urgent bool) {
	if !c.retired {
		c.retired, c.retiredAt, c.urgent = true, at, urgent
	}
}

func newLeasesModel(t *rapid.T) *leasesModel {
	return &leasesModel{
		t: t, s: newLeases(hot), now: noon,
		barred: map[string]time.Time{}, version: map[string]int64{}, ids: map[string]bool{}, notBefore: map[lineKey]time.Time{},
		ports: []string{"a", "b"}, lifetimes: []time.Duration{2 * time.Second, long},
		jumps: []time.Duration{
			1, time.Millisecond, 100 * time.Millisecond, sealAfter / 2, sealAfter, time.Second,
			idleFor, idleFor + 1, maxLease, maxLease + time.Second,
		},
		// rapid prefers the ends of a list
		whatToDoNext: slices.Concat(
			slices.Repeat([]string{"take"}, 16), slices.Repeat([]string{"tidy", "wait"}, 3), []string{"recall", "budget", "doubt", "read", "read"},
			slices.Repeat([]string{"install"}, 6), slices.Repeat([]string{"grant"}, 4), slices.Repeat([]string{"take"}, 4)),
	}
}

func (m *leasesModel) step() {
	port := rapid.SampledFrom(m.ports).Draw(m.t, "port")
	switch rapid.SampledFrom(m.whatToDoNext).Draw(m.t, "what") {
	case "wait":
		m.now = m.now.Add(rapid.SampledFrom(m.jumps).Draw(m.t, "jump"))
	case "take":
		ttl := rapid.SampledFrom(m.lifetimes).Draw(m.t, "ttl")
		if leased := m.leased(); len(leased) > 0 && rapid.IntRange(0, 4).Draw(m.t, "anywhere") > 0 {
			c := rapid.SampledFrom(leased).Draw(m.t, "from")
			port, ttl = c.PortID, c.TTL
		}
		for range rapid.IntRange(1, 5).Draw(m.t, "times") {
			m.take(port, ttl)
		}
	case "grant":
		m.grant(port)
	case "install":
		m.install()
	case "tidy":
		m.tidy()
	case "budget": // another gate is told first: this one has it with the next request
		m.version[port]++
	case "recall":
		bar := rapid.SampledFrom([]time.Duration{0, barFor / 2, barFor}).Draw(m.t, "bar")
		m.s.recall(port, m.now, bar)
		if until := m.now.Add(bar); bar > 0 && until.After(m.barred[port]) {
			m.barred[port] = until
		}
		for _, c := range m.slices {
			if c.PortID == port {
				c.retire(m.now, true)
				c.urgent = true
			}
		}
	case "doubt":
		if len(m.onTheirWay) > 0 {
			m.doubt(m.arrives())
		}
	case "read":
		m.read(port)
	}
}

func (m *leasesModel) close() {
	m.s.close(m.now)
	m.closed = true
	for _, c := range m.slices {
		c.retire(m.now, true)
		c.urgent = true
	}
}

// leased are the slices that may serve.
func (m *leasesModel) leased() (list []*modelSlice) {
	for _, c := range m.slices {
		if !c.retired {
			list = append(list, c)
		}
	}
	return list
}

func (m *leasesModel) current(port string, ttl time.Duration) *modelSlice {
	for _, c := range m.leased() {
		if c.PortID == port && c.TTL == ttl {
			return c
		}
	}
	return nil
}

func (m *leasesModel) take(port string, ttl time.Duration) {
	r := ask(port, ttl, rapid.Int64Range(0, 12).Draw(m.t, "tokens"))
	r.Service = rapid.SampledFrom([]string{"", "s"}).Draw(m.t, "service")
	r.Feature = rapid.SampledFrom([]string{"", "s", "f"}).Draw(m.t, "feature")
	c := m.current(port, ttl)
	if c != nil && (!m.now.Before(c.until) || c.Version < m.version[port]) {
		c.retire(m.now, true)
		c = nil
	}
	may := c != nil && !m.closed && len(c.made) < c.Holds && r.EstimatedTokens > 0 && c.left() >= r.EstimatedTokens
	h, ok, _ := m.s.take(r, m.version[port], ledger.DayOf(noon), m.now)
	if ok != may {
		m.t.Fatalf("a hold of %d tokens of %s for %v was made: %v; that may be: %v", r.EstimatedTokens, port, ttl, ok, may)
	}
	if !ok {
		if c != nil {
			c.refused++
		}
		return
	}
	if m.ids[h.id()] || h.id() != c.HoldID(len(c.made), r.EstimatedTokens) || !h.slice.Expires.Equal(c.Expires) {
		m.t.Fatalf("hold %d of %v: %+v", len(c.made), c.ID, h)
	}
	m.ids[h.id()] = true
	c.made, c.used = append(c.made, modelHold{[2]string{r.Service, r.Feature}, r.EstimatedTokens}), m.now
	if got, want := m.s.spare(port, nothing), m.slack(port); got != want {
		m.t.Fatalf("the port has %d to spare, want %d", got, want)
	}
}

// grant is what Postgres may answer to any want. A slice that nobody asked for is
// not granted, so there are requests first.
func (m *leasesModel) grant(port string) {
	ttl := rapid.SampledFrom(m.lifetimes).Draw(m.t, "ttl")
	m.take(port, ttl)
	m.take(port, ttl)
	for _, w := range m.s.wants(m.ports, m.now) {
		if m.closed || m.now.Before(m.barred[w.PortID]) {
			m.t.Fatalf("%+v, although that is barred", w)
		}
		key := lineKey{w.PortID, w.TTL}
		if m.now.Before(m.notBefore[key]) {
			m.t.Fatalf("%+v, although it was not granted a moment ago", w)
		}
		m.notBefore[key] = m.now.Add(askAgain)
	}
	g := granted(port, ttl, rapid.Int64Range(8, 100).Draw(m.t, "granted"), rapid.IntRange(4, 20).Draw(m.t, "holds"))
	g.Version = m.version[port] + rapid.Int64Range(0, 1).Draw(m.t, "newer") // Postgres may be ahead
	g.ID = uuid.UUID{}                                                      // the same in every run
	binary.BigEndian.PutUint64(g.ID[:], uint64(len(m.slices)+len(m.onTheirWay)+1))
	m.onTheirWay = append(m.onTheirWay, asked{g, m.now})
}

// arrives is what became of a grant, at last.
func (m *leasesModel) arrives() asked {
	i := rapid.IntRange(0, len(m.onTheirWay)-1).Draw(m.t, "which")
	a := m.onTheirWay[i]
	m.onTheirWay = slices.Delete(m.onTheirWay, i, i+1)
	return a
}

func (m *leasesModel) install() {
	if len(m.onTheirWay) == 0 {
		return
	}
	a := m.arrives()
	if m.now.Sub(a.at) > idleFor { // nobody waits that long
		m.doubt(a)
		return
	}
	c := &modelSlice{Slice: a.slice, until: a.at.Add(leaseOf(a.slice.TTL)), used: a.at}
	m.s.install([]ledger.Slice{a.slice}, a.at, func(port string) int64 { return m.version[port] })
	delete(m.notBefore, lineKey{c.PortID, c.TTL})
	if old := m.current(c.PortID, c.TTL); old != nil {
		old.retire(a.at, false)
	}
	if m.closed || a.at.Before(m.barred[c.PortID]) || c.Version < m.version[c.PortID] {
		c.retire(a.at, true)
	}
	m.slices = append(m.slices, c)
}

// doubt is what a gate has of a grant whose commit was not answered.
func (m *leasesModel) doubt(a asked) {
	m.s.doubt([]ledger.Slice{a.slice}, m.now)
	c := &modelSlice{Slice: a.slice, until: m.now.Add(leaseOf(a.slice.TTL)), doubtful: true}
	c.retire(m.now, true)
	m.slices = append(m.slices, c)
}

// read is a reading of what is held, of one port or of all, begun now or before.
func (m *leasesModel) read(port string) {
	begun := m.now.Add(-rapid.SampledFrom([]time.Duration{0, 1, time.Second}).Draw(m.t, "begun"))
	whole := rapid.Bool().Draw(m.t, "all")
	of := func(id string) bool { return whole || id == port }
	m.s.read(begun, of, nothing)
	for _, c := range m.slices {
		if c.ended && c.endedAt.Before(begun) && of(c.PortID) {
			c.read = true
		}
	}
}

// tidy is a round of the gate's: some of what it gives back is taken.
func (m *leasesModel) tidy() {
	for _, c := range m.slices {
		if over := !m.now.Before(c.until); over || m.now.Sub(c.used) > idleFor {
			c.retire(m.now, over)
		}
	}
	finish, seal := m.s.tidy(m.now)
	finished, sealed := m.written(finish), m.written(seal)
	done := map[uuid.UUID]bool{}
	for _, c := range m.slices {
		since, open := m.now.Sub(c.retiredAt), c.retired && !c.ended
		maySeal := open && (c.urgent || since >= sealAfter)
		mayFinish := open && !maySeal && since >= sealAfter/2
		if finished[c.ID] != mayFinish || sealed[c.ID] != maySeal {
			m.t.Fatalf("%v, retired %v for %v, urgent %v: finish %v, seal %v", c.ID, c.retired, since, c.urgent, finished[c.ID], sealed[c.ID])
		}
		if (mayFinish || maySeal) && rapid.Bool().Draw(m.t, "done") {
			done[c.ID] = true
		}
	}
	left := m.s.ended(done, m.now)
	urgent := false
	for _, c := range m.slices {
		if !c.ended && (done[c.ID] || c.retired && !m.now.Before(c.until.Add(c.TTL))) {
			c.ended, c.endedAt = true, m.now
		}
		urgent = urgent || c.urgent && !c.ended
	}
	if left != urgent {
		m.t.Fatalf("somebody waits for what is left: %v, want %v", left, urgent)
	}
}

// written checks that what is handed out lists exactly the holds that were made.
func (m *leasesModel) written(list []ledger.Sealed) map[uuid.UUID]bool {
	ids := map[uuid.UUID]bool{}
	for _, l := range list {
		i := slices.IndexFunc(m.slices, func(c *modelSlice) bool { return c.ID == l.ID && c.PortID == l.PortID })
		if i < 0 || ids[l.ID] {
			m.t.Fatalf("%v of %s is handed out twice, or there is none", l.ID, l.PortID)
		}
		c := m.slices[i]
		ids[l.ID] = true
		var made []modelHold
		for _, h := range l.Holds {
			made = append(made, modelHold{l.Labels[h.Label], h.Tokens})
		}
		if used := c.Tokens - c.left(); !slices.Equal(made, c.made) || l.Tokens != used || used > c.Tokens || len(made) > c.Holds {
			m.t.Fatalf("%+v, want %d of %d tokens in %v", l, used, c.Tokens, c.made)
		}
	}
	return ids
}

func (m *leasesModel) slack(port string) (sum int64) {
	for _, c := range m.slices {
		if c.PortID == port && !c.doubtful && !c.read {
			sum += c.left()
		}
	}
	return sum
}

func (m *leasesModel) checkSlack() {
	for _, port := range m.ports {
		if got, want := m.s.spare(port, nothing), m.slack(port); got != want {
			m.t.Fatalf("%s has %d to spare, want %d", port, got, want)
		}
	}
}
