package gate

import (
	"sync"
	"time"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

const (
	maxLease = 10 * time.Second // for how long holds are made from a slice, at most
	// A slice is for four times as much as a port was asked for in sliceFor, or for
	// minHolds: a gate that is killed leaves no more than that behind.
	sliceFor = time.Second
	minHolds = 32
	idleFor  = 2 * time.Second // then a slice is given back
	// forgetAfter ends what is known of a port's demand. forgetAtOnce bounds how many
	// ports are looked at, while nobody can reserve or check.
	forgetAfter  = 10 * time.Second
	forgetAtOnce = 1000
	// askAgain is how long a port is left in peace that was not granted a slice.
	askAgain = 250 * time.Millisecond
	// barFor keeps a port that was recalled from being leased again at once: whoever
	// recalled it has to get its turn.
	barFor = time.Second
	// sealAfter leaves a slice open for a while when it has given out its last hold:
	// calls that are short end by then, and a slice of which all have ended is removed
	// without writing its holds down.
	sealAfter = 500 * time.Millisecond
)

// leaseOf is for how long holds of a lifetime are made from one slice. They all
// expire with it, so none may live for much longer than was asked.
func leaseOf(ttl time.Duration) time.Duration { return min(maxLease, ttl/8) }

// leases are the slices of ports' headroom that this gate has leased. It makes holds
// from them without asking anybody. Nothing comes back to a slice: a hold that ends is
// between the ledger and whoever ends it.
type leases struct {
	hot    int // requests in sliceFor that make a port worth a slice; negative: none is
	mu     sync.Mutex
	closed bool // nothing is leased any more
	ports  map[string]*slicedPort
	leased map[*line]struct{} // those with a slice
	ending []*slice           // no holds are made from them any more; not sealed yet
	given  []giving           // back, but Postgres was not read since
	urgent chan struct{}      // somebody waits for one of those
}

type slicedPort struct {
	lines  []*line   // one for each lifetime that is asked for
	barred time.Time // until then nothing is leased
	slack  int64     // tokens of its slices that are not holds, but count as held in what was last read
}

// line is the demand for holds of one lifetime, and the slice that serves it.
type line struct {
	ttl         time.Duration
	since       time.Time
	now, before demand    // since then, and in the time before
	slice       *slice    // nil: none
	asked       bool      // for the next one
	notBefore   time.Time // the time to ask again, when none was granted
}

type demand struct {
	holds  int
	tokens int64
}

type slice struct {
	ledger.Slice
	until   time.Time // the end of its lease, by this process's clock
	used    time.Time // when the last hold was made
	left    int64
	sealed  ledger.Sealed // what it has been made into so far
	labels  map[[2]string]int
	retired time.Time
	urgent  bool
}

// over: the lease has ended, also by the wall clock, since the other one stands still
// while the machine is suspended.
func (c *slice) over(now time.Time) bool {
	return !now.Before(c.until) || !now.Round(0).Before(c.until.Round(0))
}

// giving is what was left of a slice that is sealed.
type giving struct {
	port   string
	tokens int64
	at     time.Time
}

func newLeases(hot int) *leases {
	return &leases{hot: hot, ports: map[string]*slicedPort{}, leased: map[*line]struct{}{}, urgent: make(chan struct{}, 1)}
}

// hold is what take made: the nth of a slice.
type hold struct {
	slice  *slice
	n      int
	tokens int64
}

// id signs, so it is for whoever holds no lock.
func (h *hold) id() string { return h.slice.HoldID(h.n, h.tokens) }

// take makes a hold for r, if there is a slice for it that was granted under the
// budget of that version, on that day by the database's clock: a hold counts in the
// period of its slice, whatever is answered. more asks the caller to get the next slice
// of r's port.
func (s *leases) take(r *events.ReserveRequest, version int64, today ledger.Day, now time.Time) (h hold, ok, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.port(r.PortID)
	l := p.line(r.TTL(), now)
	l.count(r.EstimatedTokens, now)
	c := l.slice
	if c == nil {
		return h, false, false
	}
	if c.over(now) || c.Version < version {
		s.retire(l, now, true)
		return h, false, false
	}
	if ledger.DayOf(c.Created) != today { // midnight is now: Postgres knows what comes first
		return h, false, false
	}
	// A hold of nothing is Postgres's: by its tokens nobody could tell that it has ended.
	if r.EstimatedTokens == 0 || c.left < r.EstimatedTokens || len(c.sealed.Holds) == c.Holds {
		return h, false, false
	}
	n := len(c.sealed.Holds)
	label := [2]string{r.Service, r.Feature}
	at, known := c.labels[label]
	if !known {
		at = len(c.sealed.Labels)
		c.labels[label], c.sealed.Labels = at, append(c.sealed.Labels, label)
	}
	c.sealed.Holds = append(c.sealed.Holds, ledger.SlicedHold{Label: at, Tokens: r.EstimatedTokens})
	c.sealed.Tokens += r.EstimatedTokens
	c.left, c.used = c.left-r.EstimatedTokens, now
	p.slack -= r.EstimatedTokens
	if more = !l.asked && s.wanting(l, now); more {
		l.asked = true
	}
	return hold{c, n, r.EstimatedTokens}, true, more
}

func (s *leases) port(id string) *slicedPort {
	p := s.ports[id]
	if p == nil {
		p = &slicedPort{}
		s.ports[id] = p
	}
	return p
}

func (p *slicedPort) line(ttl time.Duration, now time.Time) *line {
	for _, l := range p.lines {
		if l.ttl == ttl {
			return l
		}
	}
	l := &line{ttl: ttl, since: now}
	p.lines = append(p.lines, l)
	return l
}

func (l *line) count(tokens int64, now time.Time) {
	if gone := now.Sub(l.since); gone >= sliceFor {
		l.before, l.now, l.since = l.now, demand{}, now
		if gone >= 2*sliceFor {
			l.before = demand{}
		}
	}
	l.now.holds++
	l.now.tokens = saturatingAdd(l.now.tokens, tokens)
}

// peak is the most that was asked for lately.
func (l *line) peak(now time.Time) demand {
	if now.Sub(l.since) >= 2*sliceFor {
		return demand{}
	}
	return demand{max(l.now.holds, l.before.holds), max(l.now.tokens, l.before.tokens)}
}

// wanting: the line is in demand, and three quarters of its slice are used up, of
// its tokens, its holds or its time.
func (s *leases) wanting(l *line, now time.Time) bool {
	if peak := l.peak(now); s.hot < 0 || peak.holds < s.hot || peak.tokens == 0 || now.Before(l.notBefore) {
		return false
	}
	c := l.slice
	return c == nil || c.left <= c.Tokens/4 || len(c.sealed.Holds) >= c.Holds/4*3 || c.until.Sub(now) < leaseOf(l.ttl)/4
}

// wants lists the slices to ask for on behalf of ports.
func (s *leases) wants(ports []string, now time.Time) (list []ledger.Want) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	for _, id := range ports {
		p := s.ports[id]
		if p == nil || now.Before(p.barred) {
			continue
		}
		for _, l := range p.lines {
			l.asked = false
			if !s.wanting(l, now) {
				continue
			}
			l.notBefore = now.Add(askAgain)
			peak := l.peak(now)
			each := peak.tokens/int64(peak.holds) + 1
			holds := min(max(4*peak.holds, minHolds), ledger.MaxSliceHolds)
			list = append(list, ledger.Want{
				PortID: id, TTL: l.ttl, Lease: leaseOf(l.ttl), Tokens: each * int64(holds), Least: 4 * each, Holds: holds,
			})
		}
	}
	return list
}

// install takes over slices that were asked for at the given time. current tells
// the version of a port's budget, as far as this gate knows.
func (s *leases) install(granted []ledger.Slice, asked time.Time, current func(port string) int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range granted {
		g := &granted[i]
		c := &slice{Slice: *g, left: g.Tokens, used: asked, labels: map[[2]string]int{}, sealed: ledger.Sealed{PortID: g.PortID, ID: g.ID},
			until: asked.Add(g.Until.Sub(g.Created))} // not after that, whatever the clocks say: it was created later
		p := s.port(g.PortID)
		p.slack += g.Tokens
		l := p.line(g.TTL, asked)
		s.retire(l, asked, false)
		l.slice, l.notBefore = c, time.Time{}
		s.leased[l] = struct{}{}
		if s.closed || asked.Before(p.barred) || g.Version < current(g.PortID) {
			s.retire(l, asked, true) // recalled before it came
		}
	}
}
