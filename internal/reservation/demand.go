package reservation

import (
	"maps"
	"slices"
	"time"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
)

const (
	maxLease = 10 * time.Second // for how long holds are made from a lease, at most
	// A lease is for four times as much as was asked for in demandFor, or for minHolds: a
	// gate that is killed leaves no more than that behind.
	demandFor = time.Second
	minHolds  = 32
	// leaseCalls is for how many users, models or the like one lease is, where limits look at these.
	leaseCalls = 64
	askAgain   = 250 * time.Millisecond // for a lease, if none was granted
)

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
	// calls are whose are asked for, and when they last were, where limits look at that.
	calls map[budget.Labels]time.Time
}

func (p *portLeases) demand(k kind, now time.Time) *demand {
	d := p.demands[k]
	if d == nil {
		d = &demand{since: now}
		p.demands[k] = d
	}
	return d
}

// leaseFor is for how long holds of a lifetime are made from one lease. They all
// expire with it, so none may live for much longer than was asked.
func leaseFor(ttl time.Duration) time.Duration { return min(maxLease, ttl/8) }

func (d *demand) count(tokens int64, now time.Time) {
	if gone := now.Sub(d.since); gone >= demandFor {
		before := d.now
		*d = demand{since: now, lease: d.lease, notBefore: d.notBefore, calls: d.calls}
		if gone < 2*demandFor {
			d.before = before
		}
	}
	d.now.holds++
	d.now.tokens = budget.Add(d.now.tokens, tokens)
}

// knows reports whether somebody is asking again. Leases are for those who do: a lease would be
// of no use to calls of which each has a run of its own.
func (d *demand) knows(of budget.Labels, now time.Time) bool {
	last, ok := d.calls[of]
	if !ok && len(d.calls) >= leaseCalls {
		maps.DeleteFunc(d.calls, func(_ budget.Labels, last time.Time) bool { return now.Sub(last) > forgetAfter })
		if len(d.calls) >= leaseCalls {
			return false
		}
	}
	if d.calls == nil {
		d.calls = map[budget.Labels]time.Time{}
	}
	d.calls[of] = now
	return ok && now.Sub(last) <= forgetAfter
}

// recent are whose calls are asked for.
func (d *demand) recent(now time.Time) (calls []budget.Labels) {
	for of, last := range d.calls {
		if now.Sub(last) <= forgetAfter {
			calls = append(calls, of)
		}
	}
	return calls
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
	return Want{PortID: q.PortID, Feature: q.Feature, TTL: q.TTL(), For: lasts, Tokens: each * int64(holds), Least: 4 * each, Holds: holds, Calls: d.recent(now)}
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
	at := b.cfg.Now()
	for i := range requests {
		q := &requests[i]
		if rule, _, _, _ := b.cfg.Port(q.PortID, at); !rule.Leases(at) {
			continue // none would be granted
		}
		p := b.leases.port(q.PortID)
		if w := b.want(q, p, p.demand(kind{q.Feature, q.TTL()}, now), now); w.Holds > 0 {
			ahead = append(ahead, w)
		}
	}
	return ahead
}
