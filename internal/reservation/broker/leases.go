package broker

import (
	"time"

	"github.com/google/uuid"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/reservation"
	"github.com/tidegate/tidegate/internal/reservation/hold"
)

// leases are what a broker has leased.
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
	demands map[hold.Kind]*demand
	revoked time.Time // until then it is not leased
	unused  int64     // tokens of its leases that are no holds, but count as held in what is known
}

type lease struct {
	hold.Open
	until    time.Time // the end of the lease, by this process's monotonic clock
	wall     time.Time // and by the machine's
	used     time.Time // when the last hold was made
	returnAt time.Time
	// counted: what is left of it is not among its port's unused tokens any more. It counts
	// as held where it is part of what is known: rather too many than too few.
	counted bool
	// unsure: the store may have returned it at any time, or never granted it. What is known
	// of its port may be with or without it, until that is read again.
	unsure bool
}

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
	// Another gate may get the retry, and what explains is exact: only Postgres can know. Why tokens
	// are withheld, the request's turn says.
	if q.IdempotencyKey != "" || q.Explain || b.cfg.Withheld(q.PortID) != nil {
		return v, false
	}
	now := b.cfg.Now()
	rule, count, asOf := b.Known(q.PortID, now)
	if !rule.Leases(now) {
		return v, false
	}
	call := q.Call()
	var counts budget.Counts
	if len(rule.Limits()) > 0 {
		counts = b.cfg.Counts(q.PortID)
	}
	d := budget.DecideHold(rule, count, &call, counts, now)
	if !d.Allowed {
		return v, false // there was usage that nobody had reserved, or memory lags: Postgres knows
	}
	id, expires, want := b.take(q, &call, rule, now, time.Now())
	if want.Holds > 0 { // the next lease, before this one is used up
		b.askAhead(want)
	}
	if id == "" {
		return v, false
	}
	v = events.NewVerdict(d)
	v.AsOf = asOf
	v.ReservationID, v.GrantedTokens, v.ExpiresAt = id, q.EstimatedTokens, expires
	return v, true
}

// askAhead asks for a lease, unless too many are being asked for: the next hold asks again.
func (b *Broker) askAhead(w reservation.Want) {
	b.intake.Take(func() {
		select {
		case b.ahead <- w:
		default:
		}
	})
}

// take makes a hold for q from a lease, if there is one that was granted under the
// budget of that rule, or a later one, on this day by the database's clock: a hold counts in the
// period of its lease, whatever is answered.
func (b *Broker) take(q *events.ReserveRequest, call *budget.Call, rule *budget.Rule, today, now time.Time) (id string, expires time.Time, next reservation.Want) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, k := b.leases.port(q.PortID), kindOf(q, rule)
	d := p.demand(k, now)
	d.count(q.EstimatedTokens, now)
	start, end := budget.Day.Bounds(today)
	switch l := d.lease; {
	case l == nil:
	case l.over(now) || l.older(rule):
		b.retire(d, now)
	case !l.Created.Before(start) && l.Created.Before(end): // around midnight Postgres knows what comes first
		if id, ok := l.Hold(q.Service, call); ok {
			l.used = now
			p.unused -= call.Tokens
			return id, l.Expires, b.want(q.PortID, k, p, d, now)
		}
	}
	return "", expires, next
}

func (s *leases) port(id string) *portLeases {
	p := s.ports[id]
	if p == nil {
		p = &portLeases{demands: map[hold.Kind]*demand{}}
		s.ports[id] = p
	}
	return p
}

// count takes what is left of a lease from its port's unused tokens.
func (s *leases) count(l *lease) {
	if p := s.ports[l.PortID]; p != nil && !l.counted { // nil: nothing was left
		p.unused -= l.Left()
	}
	l.counted = true
}

// install takes over what was asked for at the given time, when so many readings were done.
func (b *Broker) install(held *reservation.Held, readings int, asked time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hear(held.Standings, readings)
	for i := range held.Leases {
		l := newLease(&held.Leases[i], asked)
		p := b.leases.port(l.PortID)
		d := p.demand(l.Kind, asked)
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

func newLease(l *hold.Lease, asked time.Time) *lease {
	until := asked.Add(l.Until.Sub(l.Created)) // not after that, whatever the clocks say: it was created later
	return &lease{Open: l.Open(), until: until, wall: until.Round(0), used: asked}
}

// doubt takes over leases of which nobody knows whether they were granted: no holds
// are made from them, and they are returned at once.
func (b *Broker) doubt(maybe []hold.Lease, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range maybe {
		l := newLease(&maybe[i], now)
		l.Made.Doubtful, l.counted, l.unsure = true, true, true
		b.end(l, now)
	}
}

// WithoutSpare takes from leases of this broker in a list of what is under way what is no
// hold: at other gates it may become one.
func (b *Broker) WithoutSpare(list []hold.UnderWay) {
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
			u.Call.Tokens, u.Calls = max(u.Call.Tokens-l.Left(), 0), max(u.Calls-int64(l.Holds-l.Made.Holds), 0)
		}
	}
}
