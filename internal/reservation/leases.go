package reservation

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
)

// severalServices stands for the services that holds of one lease were made for.
const severalServices = "(several)"

// leases are what a broker has leased. Tokens of a hold that ends do not come back to its
// lease: the store ends it, and they are the port's again.
type leases struct {
	ports  map[string]*portLeases
	open   map[*demand]struct{} // those with a lease
	ending []*lease             // no holds are made from them any more; not returned yet
	// sent has those, by port, that the store is being told to return. What becomes known of
	// their ports meanwhile may be without them.
	sent    map[string][]*lease
	revoked time.Time // until then no port is leased
}

type portLeases struct {
	demands map[kind]*demand
	revoked time.Time // until then it is not leased
	unused  int64     // tokens of its leases that are no holds, but count as held in what is known
}

type lease struct {
	Lease
	until    time.Time             // the end of the lease, by this process's monotonic clock
	wall     time.Time             // and by the machine's
	used     time.Time             // when the last hold was made
	made     Returned              // what it has been made into so far
	madeFor  budget.Leased         // whose they are, and what was made for each, where limits look at that
	places   map[budget.Labels]int // in madeFor.Calls
	each     []eachValue
	returnAt time.Time
	// counted: what is left of it is not among its port's unused tokens any more. It counts
	// as held where it is part of what is known: rather too many than too few.
	counted bool
	// unsure: the store may have returned it at any time, or never granted it. What is known
	// of its port may be with or without it, until that is read again.
	unsure bool
}

// eachValue is a dimension of which the lease is for any value, and what was made for each so far.
type eachValue struct {
	dim budget.Per
	budget.Allowance
	made map[string]budget.Sum
}

// allows reports whether the lease is for a call, and has something left for whose it is.
func (l *lease) allows(call *budget.Call) bool {
	c := l.Calls
	if c.Calls == nil {
		return true
	}
	if call.Only(c.By) != c.Calls[0] {
		return false
	}
	for i := range l.each {
		e := &l.each[i]
		v := call.Of(e.dim)
		if made := e.made[v]; made.Calls >= e.Calls || call.Tokens > e.Tokens-made.Tokens || e.Excepts(v) {
			return false
		}
	}
	return true
}

// count adds a hold to what was made for whose call it is, and returns the place of that; -1 where
// the lease does not say whose its calls are.
func (l *lease) count(call *budget.Call) (place int) {
	if l.Calls.Calls == nil {
		return -1
	}
	made := budget.Sum{Estimate: call.Estimate, Calls: 1}
	for i := range l.each {
		e := &l.each[i]
		v := call.Of(e.dim)
		e.made[v] = e.made[v].Add(made)
	}
	of := call.Only(l.madeFor.By)
	place, ok := l.places[of]
	if !ok {
		place = len(l.places)
		l.places[of] = place
		l.madeFor.Calls, l.madeFor.Made = append(l.madeFor.Calls, of), append(l.madeFor.Made, budget.Sum{})
	}
	l.madeFor.Made[place] = l.madeFor.Made[place].Add(made)
	return place
}

// toReturn is what the store is told of it.
func (l *lease) toReturn() Returned {
	r := l.made
	if l.Calls.Calls != nil {
		r.Calls = &l.madeFor
	}
	return r
}

func (l *lease) left() int64 { return l.Tokens - l.made.Tokens }

// over: the lease has ended, also by the machine's clock, since the monotonic one stands
// still while the machine is suspended.
func (l *lease) over(now time.Time) bool { return !now.Before(l.until) || !now.Round(0).Before(l.wall) }

// older: it was granted under another budget than the one that is known now, and not under a
// later version of that.
func (l *lease) older(than *budget.Rule) bool {
	return l.Default != than.Default || l.Version < int64(than.Version)
}

// holdFromLease makes a hold in memory, if it may.
func (b *Broker) holdFromLease(q *events.ReserveRequest) (v events.Verdict, ok bool) {
	if q.IdempotencyKey != "" || q.Explain {
		return v, false // another gate may get the retry, and what explains is exact: only Postgres can know
	}
	if b.cfg.Withheld(q.PortID) != nil {
		return v, false // its turn says why
	}
	now := b.cfg.Now()
	rule, count, asOf := b.Known(q.PortID, now)
	if !rule.Leases(now) {
		return v, false
	}
	call := q.Call()
	var counts budget.Counts
	if len(rule.Limits()) > 0 {
		counts = b.cfg.Counts(q.PortID).Once() // for the decision and for its figures
	}
	d := budget.Decide(rule, count, &call, counts, now)
	if !d.Allowed {
		return v, false // there was usage that nobody had reserved, or memory lags: Postgres knows
	}
	id, expires, want := b.take(q, &call, rule, now, time.Now())
	if want.Holds > 0 { // the next lease, before this one is used up
		b.askAhead(&holding{request: *q, want: want})
	}
	if id == "" {
		return v, false
	}
	v = events.NewVerdict(d.WithCall(rule, count, &call, counts, now))
	v.AsOf = asOf
	v.ReservationID, v.GrantedTokens, v.ExpiresAt = id, q.EstimatedTokens, expires
	return v, true
}

// askAhead asks for a lease, unless too many are being asked for: the next hold asks again.
func (b *Broker) askAhead(h *holding) {
	b.intake.Take(func() {
		select {
		case b.ahead <- h:
		default:
		}
	})
}

// take makes a hold for q from a lease, if there is one that was granted under the
// budget of that rule, or a later one, on this day by the database's clock: a hold counts in the
// period of its lease, whatever is answered.
func (b *Broker) take(q *events.ReserveRequest, call *budget.Call, rule *budget.Rule, today, now time.Time) (id string, expires time.Time, next Want) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, k := b.leases.port(q.PortID), kindOf(q, rule)
	d := p.demand(k, now)
	d.count(q.EstimatedTokens, now)
	l := d.lease
	if l == nil {
		return "", expires, next
	}
	if l.over(now) || l.older(rule) {
		b.retire(d, now)
		return "", expires, next
	}
	// Around midnight Postgres knows what comes first. A hold of nothing is Postgres's
	// too: by its tokens nobody could tell that it has ended.
	start, end := budget.Day.Bounds(today)
	if l.Created.Before(start) || !l.Created.Before(end) || q.EstimatedTokens == 0 || l.left() < q.EstimatedTokens || l.made.Holds == l.Holds || !l.allows(call) {
		return "", expires, next
	}
	of := l.count(call)
	n := l.made.Holds
	if n == 0 {
		l.made.Service = q.Service
	} else if l.made.Service != q.Service {
		l.made.Service = severalServices
	}
	l.made.Holds, l.made.Tokens, l.used = n+1, l.made.Tokens+q.EstimatedTokens, now
	p.unused -= q.EstimatedTokens
	return l.HoldID(n, of, call.Estimate), l.Expires, b.want(q.PortID, k, p, d, now)
}

func (s *leases) port(id string) *portLeases {
	p := s.ports[id]
	if p == nil {
		p = &portLeases{demands: map[kind]*demand{}}
		s.ports[id] = p
	}
	return p
}

// count takes what is left of a lease from its port's unused tokens.
func (s *leases) count(l *lease) {
	if p := s.ports[l.PortID]; p != nil && !l.counted { // nil: nothing was left
		p.unused -= l.left()
	}
	l.counted = true
}

// install takes over what was asked for at the given time, when so many readings were done.
func (b *Broker) install(held *Held, readings int, asked time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hear(held.Standings, readings)
	for i := range held.Leases {
		l := newLease(&held.Leases[i], asked)
		p := b.leases.port(l.PortID)
		d := p.demand(kind{l.Of, l.TTL}, asked)
		b.retire(d, asked.Add(returnAfter))
		p.unused += l.Tokens
		d.lease, d.notBefore, d.pause = l, time.Time{}, 0
		b.leases.open[d] = struct{}{}
		if rule, _, _, _ := b.cfg.Port(l.PortID, b.cfg.Now()); b.leases.paused(p, asked) || l.older(rule) {
			b.retire(d, asked) // revoked before it came
		}
	}
	b.Granted.Add(int64(len(held.Leases)))
}

func newLease(g *Lease, asked time.Time) *lease {
	until := asked.Add(g.Until.Sub(g.Created)) // not after that, whatever the clocks say: it was created later
	l := &lease{Lease: *g, until: until, wall: until.Round(0), used: asked, made: Returned{PortID: g.PortID, ID: g.ID, Feature: g.Calls.Feature}}
	if g.Calls.Calls != nil {
		l.madeFor = budget.Leased{By: slices.Clone(g.Calls.By), Calls: []budget.Labels{}, Made: []budget.Sum{}}
		for d, a := range g.Calls.Each {
			l.madeFor.By, l.each = append(l.madeFor.By, d), append(l.each, eachValue{d, a, map[string]budget.Sum{}})
		}
		l.places = map[budget.Labels]int{}
	}
	return l
}

// doubt takes over leases of which nobody knows whether they were granted: no holds
// are made from them, and they are returned at once.
func (b *Broker) doubt(maybe []Lease, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range maybe {
		l := newLease(&maybe[i], now)
		l.made.Doubtful, l.counted, l.unsure = true, true, true
		b.end(l, now)
	}
}

// WithoutSpare takes from leases of this broker in a list of what is under way what is no
// hold: at other gates it may become one.
func (b *Broker) WithoutSpare(list []UnderWay) {
	b.mu.Lock()
	defer b.mu.Unlock()
	mine := make(map[uuid.UUID]*lease, len(b.leases.open)+len(b.leases.ending))
	for d := range b.leases.open {
		mine[d.lease.ID] = d.lease
	}
	for _, l := range b.leases.ending {
		mine[l.ID] = l
	}
	for i := range list {
		u := &list[i]
		if l := mine[u.ID]; l != nil && !l.unsure {
			u.Call.Tokens, u.Calls = max(u.Call.Tokens-l.left(), 0), max(u.Calls-int64(l.Holds-l.made.Holds), 0)
		}
	}
}
