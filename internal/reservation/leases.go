package reservation

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
)

const (
	maxLease = 10 * time.Second // for how long holds are made from a lease, at most
	// A lease is for four times as much as was asked for in demandFor, or for minHolds: a
	// gate that is killed leaves no more than that behind.
	demandFor = time.Second
	minHolds  = 32
	askAgain  = 250 * time.Millisecond // for a lease, if none was granted
	idleFor   = 2 * time.Second        // then a lease is returned
	// returnAfter leaves a lease open for a while when it has given out its last hold:
	// of calls that are short by then nothing has to be written down.
	returnAfter  = 500 * time.Millisecond
	returnEvery  = 250 * time.Millisecond
	returnAtOnce = 500 // in one transaction
	// RevokedFor keeps a port whose leases were revoked from being leased again at once:
	// whoever needed its tokens has to get its turn.
	RevokedFor = time.Second
	forever    = 1000 * time.Hour
	// forgetAfter ends what is known of demand. forgetAtOnce bounds how many ports are
	// looked at, while nobody can reserve or check.
	forgetAfter  = 10 * time.Second
	forgetAtOnce = 1000
	// severalServices stands for the services that holds of one lease were made for.
	severalServices = "(several)"
)

// leaseFor is for how long holds of a lifetime are made from one lease. They all
// expire with it, so none may live for much longer than was asked.
func leaseFor(ttl time.Duration) time.Duration { return min(maxLease, ttl/8) }

// leases are what a broker has leased. Nothing comes back to a lease: a hold that ends is
// between the store and whoever ends it.
type leases struct {
	ports   map[string]*portLeases
	open    map[*demand]struct{} // those with a lease
	ending  []*lease             // no holds are made from them any more; not returned yet
	revoked time.Time            // until then no port is leased
}

type portLeases struct {
	demands map[kind]*demand
	revoked time.Time // until then it is not leased
	unused  int64     // tokens of its leases that are no holds, but count as held in what is known
}

// kind is what a lease is for.
type kind struct {
	feature string
	ttl     time.Duration
}

// demand is how much of a kind is asked for, and the lease that serves it.
type demand struct {
	since       time.Time
	now, before struct { // since then, and in the time before
		holds  int
		tokens int64
	}
	lease     *lease    // nil: none
	notBefore time.Time // the time to ask for one again
}

type lease struct {
	Lease
	until    time.Time // the end of the lease, by this process's monotonic clock
	wall     time.Time // and by the machine's
	used     time.Time // when the last hold was made
	made     Returned  // what it has been made into so far
	returnAt time.Time
}

func (l *lease) left() int64 { return l.Tokens - l.made.Tokens }

// over: the lease has ended, also by the machine's clock, since the monotonic one stands
// still while the machine is suspended.
func (l *lease) over(now time.Time) bool { return !now.Before(l.until) || !now.Round(0).Before(l.wall) }

// holdFromLease makes a hold in memory, if it may.
func (b *Broker) holdFromLease(q *events.ReserveRequest) (v events.Verdict, ok bool) {
	if q.IdempotencyKey != "" {
		return v, false // another gate may get the retry: only Postgres can know
	}
	if b.cfg.Withheld(q.PortID) != nil {
		return v, false // its turn says why
	}
	now := b.cfg.Now()
	rule, used, held, asOf := b.Known(q.PortID, now)
	if v = events.NewVerdict(budget.Decide(rule, used, held, q.EstimatedTokens, now)); !v.Allowed {
		return v, false // there was usage that nobody had reserved, or memory lags: Postgres knows
	}
	l, n, want := b.take(q, int64(rule.Version), now, time.Now())
	if want.Holds > 0 { // the next lease, before this one is used up
		enqueue(b, b.ahead, &holding{request: *q, want: want}, func(error) {})
	}
	if l == nil {
		return v, false
	}
	v.AsOf = asOf
	v.ReservationID, v.GrantedTokens, v.ExpiresAt = l.HoldID(n, q.EstimatedTokens), q.EstimatedTokens, l.Expires
	v.HeldTokens = budget.Add(held, q.EstimatedTokens)
	if v.RemainingTokens != nil {
		*v.RemainingTokens = max(*v.RemainingTokens-q.EstimatedTokens, 0)
	}
	return v, true
}

// take makes a hold for q, the nth of a lease, if there is one that was granted under the
// budget of that version, on this day by the database's clock: a hold counts in the
// period of its lease, whatever is answered.
func (b *Broker) take(q *events.ReserveRequest, version int64, today, now time.Time) (l *lease, n int, next Want) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.leases.port(q.PortID)
	d := p.demand(kind{q.Feature, q.TTL()}, now)
	d.count(q.EstimatedTokens, now)
	if l = d.lease; l == nil {
		return nil, 0, next
	}
	if l.over(now) || l.Version < version {
		b.retire(d, now)
		return nil, 0, next
	}
	// Around midnight Postgres knows what comes first. A hold of nothing is Postgres's
	// too: by its tokens nobody could tell that it has ended.
	start, end := budget.Day.Bounds(today)
	if l.Created.Before(start) || !l.Created.Before(end) || q.EstimatedTokens == 0 || l.left() < q.EstimatedTokens || l.made.Holds == l.Holds {
		return nil, 0, next
	}
	if n = l.made.Holds; n == 0 {
		l.made.Service = q.Service
	} else if l.made.Service != q.Service {
		l.made.Service = severalServices
	}
	l.made.Holds, l.made.Tokens, l.used = n+1, l.made.Tokens+q.EstimatedTokens, now
	p.unused -= q.EstimatedTokens
	return l, n, b.want(q, p, d, now)
}

func (s *leases) port(id string) *portLeases {
	p := s.ports[id]
	if p == nil {
		p = &portLeases{demands: map[kind]*demand{}}
		s.ports[id] = p
	}
	return p
}

func (p *portLeases) demand(k kind, now time.Time) *demand {
	d := p.demands[k]
	if d == nil {
		d = &demand{since: now}
		p.demands[k] = d
	}
	return d
}

func (d *demand) count(tokens int64, now time.Time) {
	if gone := now.Sub(d.since); gone >= demandFor {
		before := d.now
		*d = demand{since: now, lease: d.lease, notBefore: d.notBefore}
		if gone < 2*demandFor {
			d.before = before
		}
	}
	d.now.holds++
	d.now.tokens = budget.Add(d.now.tokens, tokens)
}

// want asks for the next lease, now and then, where there is demand and three quarters of
// the present one are used up, of its tokens, its holds or its time.
func (b *Broker) want(q *events.ReserveRequest, p *portLeases, d *demand, now time.Time) (w Want) {
	holds, tokens := max(d.now.holds, d.before.holds), max(d.now.tokens, d.before.tokens)
	if b.cfg.LeaseFrom < 0 || holds < b.cfg.LeaseFrom || tokens == 0 || now.Sub(d.since) >= 2*demandFor || now.Before(d.notBefore) || b.leases.paused(p, now) {
		return w
	}
	lasts := leaseFor(q.TTL())
	if l := d.lease; l != nil && l.left() > l.Tokens/4 && l.made.Holds < l.Holds/4*3 && l.until.Sub(now) >= lasts/4 {
		return w
	}
	d.notBefore = now.Add(askAgain)
	each := tokens/int64(holds) + 1
	holds = min(max(4*holds, minHolds), MaxLeaseHolds)
	return Want{PortID: q.PortID, Feature: q.Feature, TTL: q.TTL(), For: lasts, Tokens: each * int64(holds), Least: 4 * each, Holds: holds}
}

// paused: what was leased of the port was revoked a moment ago.
func (s *leases) paused(p *portLeases, now time.Time) bool {
	return now.Before(p.revoked) || now.Before(s.revoked)
}

// wants are the leases to ask for: the given ones, and those that the requests need.
func (b *Broker) wants(ahead []Want, requests []events.ReserveRequest, now time.Time) []Want {
	b.mu.Lock()
	defer b.mu.Unlock()
	ahead = slices.DeleteFunc(ahead, func(w Want) bool { return b.leases.paused(b.leases.port(w.PortID), now) })
	for i := range requests {
		q := &requests[i]
		p := b.leases.port(q.PortID)
		if w := b.want(q, p, p.demand(kind{q.Feature, q.TTL()}, now), now); w.Holds > 0 {
			ahead = append(ahead, w)
		}
	}
	return ahead
}

// install takes over leases that were asked for at the given time.
func (b *Broker) install(granted []Lease, asked time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range granted {
		l := newLease(&granted[i], asked)
		p := b.leases.port(l.PortID)
		d := p.demand(kind{l.Feature, l.TTL}, asked)
		b.retire(d, asked.Add(returnAfter))
		p.unused += l.Tokens
		d.lease, d.notBefore = l, time.Time{}
		b.leases.open[d] = struct{}{}
		if rule, _, _, _ := b.cfg.Port(l.PortID, b.cfg.Now()); b.leases.paused(p, asked) || l.Version < int64(rule.Version) {
			b.retire(d, asked) // revoked before it came
		}
	}
	b.Granted.Add(int64(len(granted)))
}

func newLease(g *Lease, asked time.Time) *lease {
	until := asked.Add(g.Until.Sub(g.Created)) // not after that, whatever the clocks say: it was created later
	return &lease{Lease: *g, until: until, wall: until.Round(0), used: asked, made: Returned{PortID: g.PortID, ID: g.ID, Feature: g.Feature}}
}

// doubt takes over leases of which nobody knows whether they were granted: no holds
// are made from them, and they are returned at once.
func (b *Broker) doubt(maybe []Lease, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range maybe {
		l := newLease(&maybe[i], now)
		l.made.Doubtful = true
		b.end(l, now)
	}
}

// retire ends the making of holds from a demand's lease, if there is one.
func (b *Broker) retire(d *demand, returnAt time.Time) {
	if l := d.lease; l != nil {
		d.lease = nil
		delete(b.leases.open, d)
		b.end(l, returnAt)
	}
}

func (b *Broker) end(l *lease, returnAt time.Time) {
	l.returnAt = returnAt
	b.leases.ending = append(b.leases.ending, l)
	b.hurry()
}

func (b *Broker) hurry() {
	select {
	case b.due <- struct{}{}:
	default:
	}
}

// Revoke returns what is leased of a port, and leases nothing of it for a while: none
// where its budget changed, [RevokedFor] where somebody else needs the tokens.
func (b *Broker) Revoke(port string, pause time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	p := b.leases.port(port)
	if until := now.Add(pause); pause > 0 && p.revoked.Before(until) {
		p.revoked = until
	}
	for _, d := range p.demands {
		b.retire(d, now)
	}
	b.returnNow(now, func(l *lease) bool { return l.PortID == port })
}

// RevokeAll returns all leases, and leases nothing for a moment.
func (b *Broker) RevokeAll() { b.revokeAll(RevokedFor) }

func (b *Broker) revokeAll(pause time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.leases.revoked = now.Add(pause)
	for d := range b.leases.open {
		b.retire(d, now)
	}
	b.returnNow(now, func(*lease) bool { return true })
}

func (b *Broker) returnNow(now time.Time, those func(*lease) bool) {
	for _, l := range b.leases.ending {
		if those(l) && now.Before(l.returnAt) {
			l.returnAt = now
			b.hurry()
		}
	}
}

// returnLeases returns leases when they are due, until ctx ends.
func (b *Broker) returnLeases(ctx context.Context) {
	tick := time.NewTicker(returnEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-b.due:
		}
		if b.returnSome(ctx) { // a booking is busy with one
			time.Sleep(revokePause)
			b.hurry()
		}
	}
}

// returnSome reports whether a lease is left that is due.
func (b *Broker) returnSome(ctx context.Context) (left bool) {
	b.returning.Lock()
	defer b.returning.Unlock()
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
	defer cancel()
	for some := range slices.Chunk(b.toReturn(time.Now()), returnAtOnce) {
		done, err := b.cfg.Store.Return(ctx, some)
		left = b.returned(done, time.Now())
		if err != nil { // maybe just this connection; but Postgres may be away
			b.cfg.Log.Debug("leases cannot be returned, trying again", "error", err)
			time.Sleep(10 * revokePause)
			break
		}
	}
	return left
}

// toReturn lists the leases that are due. It ends those that are over or that nobody
// uses, and forgets demand that there is no more: that of some ports, which are others the
// next time, since a map begins anywhere.
func (b *Broker) toReturn(now time.Time) (list []Returned) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for d := range b.leases.open {
		if d.lease.over(now) {
			b.retire(d, now)
		} else if now.Sub(d.lease.used) > idleFor {
			b.retire(d, now.Add(returnAfter))
		}
	}
	looked := 0
	for id, p := range b.leases.ports {
		if looked++; looked > forgetAtOnce {
			break
		}
		maps.DeleteFunc(p.demands, func(_ kind, d *demand) bool { return d.lease == nil && now.Sub(d.since) > forgetAfter })
		if len(p.demands) == 0 && p.unused == 0 && now.After(p.revoked) {
			delete(b.leases.ports, id)
		}
	}
	for _, l := range b.leases.ending {
		if !now.Before(l.returnAt) {
			list = append(list, l.made)
		}
	}
	return list
}

// returned forgets leases that the store is done with, and those that have expired: what
// it could not be told of them is of no account any more. It reports whether one is left
// that is due.
func (b *Broker) returned(done map[uuid.UUID]time.Time, now time.Time) (left bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leases.ending = slices.DeleteFunc(b.leases.ending, func(l *lease) bool {
		at, ok := done[l.ID]
		if !ok && now.Before(l.until.Add(l.TTL)) {
			left = left || !now.Before(l.returnAt)
			return false
		}
		if p := b.leases.ports[l.PortID]; p != nil && !l.made.Doubtful {
			p.unused -= l.left()
			if st := b.known.of(l.PortID); st.At.Before(at) { // or it may be without that already
				b.known.tell(Standing{l.PortID, max(st.Held-l.left(), 0), st.At})
			}
		}
		return true
	})
	return left
}
