package gate

import (
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

const (
	maxLease = 10 * time.Second // for how long holds are made from a slice, at most
	// A slice is for as much as a port was asked for in sliceFor, four times; a gate that is
	// killed leaves no more than that behind.
	sliceFor = time.Second
	// hotHolds in that time make a port worth a slice. Others are decided in Postgres,
	// one by one.
	hotHolds    = 2
	idleFor     = 2 * time.Second  // then a slice is given back
	forgetAfter = 10 * time.Second // then a port's demand is
	// barFor keeps a port that was recalled from being leased again at once: whoever
	// recalled it has to get its turn.
	barFor = time.Second
	// sealAfter leaves a slice open for a while when it has given out its last hold:
	// calls that are short end by then, and a slice of which all have ended is removed
	// without writing its holds down.
	sealAfter = 500 * time.Millisecond
	minHolds  = 32
	doubtFor  = 6 * time.Second // longer than Postgres lets a reservation's statement run
	askAgain  = 250 * time.Millisecond
)

// leaseOf is for how long holds of a lifetime are made from one slice. They all
// expire with it, so none may live for much longer than was asked.
func leaseOf(ttl time.Duration) time.Duration { return min(maxLease, ttl/8) }

// leases are the slices of ports' headroom that this gate has leased. It makes holds
// from them without asking anybody. Nothing comes back to a slice: a hold that ends is between
// the ledger and whoever ends it.
type leases struct {
	hot    int // requests in sliceFor that make a port worth a slice; negative: none is
	mu     sync.Mutex
	closed bool
	ports  map[string]*slicedPort
	ending []*slice      // no holds are made from them any more; not sealed yet
	given  []giving      // back, but Postgres was not read since
	urgent chan struct{} // somebody waits for one of those
}

type slicedPort struct {
	lines  []*line   // one for each lifetime that is asked for
	barred time.Time // until then nothing is leased
	slack  int64     // tokens of its slices that are not holds, as far as readings of what is held count them
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

type giving struct {
	port   string
	tokens int64
	at     time.Time
}

func newLeases(hot int) *leases {
	return &leases{hot: hot, ports: map[string]*slicedPort{}, urgent: make(chan struct{}, 1)}
}

// hold is what take made.
type hold struct {
	id      string
	expires time.Time
	slack   int64 // what the port's slices have left
}

// take makes a hold for r, if there is a slice for it that was granted under the
// budget of that version. more asks the caller to get the next slice of r's port.
func (s *leases) take(r *events.ReserveRequest, version int64, now time.Time) (h hold, ok, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return h, false, false
	}
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
	return hold{c.HoldID(n, r.EstimatedTokens), c.Expires, p.slack}, true, more
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
		if s.closed || asked.Before(p.barred) || g.Version < current(g.PortID) {
			s.retire(l, asked, true) // recalled before it came
		}
	}
}

// retire ends the making of holds from a line's slice.
func (s *leases) retire(l *line, now time.Time, urgent bool) {
	c := l.slice
	if c == nil {
		return
	}
	l.slice = nil
	c.retired, c.urgent = now, urgent
	s.ending = append(s.ending, c)
	if urgent {
		s.hurry()
	}
}

func (s *leases) hurry() {
	select {
	case s.urgent <- struct{}{}:
	default:
	}
}

// recall ends the making of holds from all slices of a port, and keeps it from
// being leased for the given time.
func (s *leases) recall(port string, now time.Time, bar time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if bar > 0 {
		if p := s.port(port); p.barred.Before(now.Add(bar)) {
			p.barred = now.Add(bar)
		}
	}
	if p := s.ports[port]; p != nil {
		for _, l := range p.lines {
			s.retire(l, now, true)
		}
	}
	for _, c := range s.ending {
		if c.PortID == port && !c.urgent && !c.retired.After(now) { // not one in doubt
			c.urgent = true
			s.hurry()
		}
	}
}

// close ends the making of holds for good.
func (s *leases) close(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, p := range s.ports {
		for _, l := range p.lines {
			s.retire(l, now, true)
		}
	}
	for _, c := range s.ending {
		c.urgent = true
	}
}

// slack is how many of a port's tokens this gate has leased and not made into holds.
func (s *leases) slack(port string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.ports[port]; p != nil {
		return p.slack
	}
	return 0
}

// tidy returns the slices to remove if they are finished, and those to seal.
func (s *leases) tidy(now time.Time) (finish, seal []ledger.Sealed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retireIdle(now)
	for _, c := range s.ending {
		switch since := now.Sub(c.retired); {
		case c.urgent || since >= sealAfter:
			seal = append(seal, c.sealed)
		case since >= sealAfter/2:
			finish = append(finish, c.sealed)
		}
	}
	return finish, seal
}

// retireIdle retires slices whose lease has ended or that nobody uses, and forgets
// ports and lifetimes that nobody asks for.
func (s *leases) retireIdle(now time.Time) {
	for id, p := range s.ports {
		p.lines = slices.DeleteFunc(p.lines, func(l *line) bool {
			if c := l.slice; c != nil && (c.over(now) || now.Sub(c.used) > idleFor) {
				s.retire(l, now, c.over(now))
			}
			return l.slice == nil && now.Sub(l.since) > forgetAfter
		})
		if len(p.lines) == 0 && p.slack == 0 && now.After(p.barred) {
			delete(s.ports, id)
		}
	}
}

// doubt takes over slices of which nobody knows whether they were granted: no holds
// are made from them, and they are given back once the commit cannot come any more.
func (s *leases) doubt(maybe []ledger.Slice, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range maybe {
		g := &maybe[i]
		s.ending = append(s.ending, &slice{Slice: *g, until: now.Add(g.Until.Sub(g.Created)), retired: now.Add(doubtFor),
			sealed: ledger.Sealed{PortID: g.PortID, ID: g.ID}})
	}
}

// ended forgets slices that the ledger has sealed or removed, and those that have
// expired: what it could not be told of them is of no account any more. It reports
// whether one is left that somebody waits for.
func (s *leases) ended(done map[uuid.UUID]bool, now time.Time) (urgent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.ending[:0]
	for _, c := range s.ending {
		if !done[c.ID] && now.Before(c.until.Add(c.TTL)) {
			kept = append(kept, c)
			urgent = urgent || c.urgent
			continue
		}
		s.given = append(s.given, giving{c.PortID, c.left, now})
	}
	clear(s.ending[len(kept):])
	s.ending = kept
	return urgent
}

// read tells that what is held was read from Postgres, at the given time or later, of
// the ports that of covers: what was given back before is not among it any more.
func (s *leases) read(begun time.Time, of func(port string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.given = slices.DeleteFunc(s.given, func(g giving) bool {
		if !g.at.Before(begun) || !of(g.port) {
			return false
		}
		if p := s.ports[g.port]; p != nil {
			p.slack -= g.tokens
		}
		return true
	})
}
