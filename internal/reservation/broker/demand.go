package broker

import (
	"slices"
	"time"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/reservation"
	"github.com/tidegate/tidegate/internal/reservation/hold"
)

const (
	maxLease = 10 * time.Second // for how long holds are made from a lease, at most
	// A lease is for four times as much as was asked for in demandFor, or for minHolds: a
	// gate that is killed leaves no more than that behind.
	demandFor = time.Second
	minHolds  = 32
	// lookBack is how many times demandFor a port is observed: one that is asked for once a
	// second is worth a lease too, since that lasts for longer.
	lookBack = 4
	// askAgain is how long after it asked for a lease and got none a gate asks again, at first; each time
	// it waits for twice as long, as far as idleFor: Postgres may have looked through many counters for it.
	askAgain = 250 * time.Millisecond
	// maxKinds bounds how many kinds of leases are remembered of a port.
	maxKinds = 1_000
)

// kindOf is the feature of a request, what else of it leases are by, and its lifetime.
func kindOf(q *events.ReserveRequest, rule *budget.Rule) hold.Kind {
	by, _ := rule.LeasedBy()
	call := q.Call()
	of := call.Only(by)
	of.Feature = q.Feature
	return hold.Kind{Of: of, TTL: q.TTL()}
}

// demand is how much of a kind is asked for, and the lease that serves it.
type demand struct {
	since     time.Time
	asked     [lookBack]budget.Sum // since then, and in the times before, the latest first
	lease     *lease               // nil: none
	notBefore time.Time            // the time to ask for one again
	pause     time.Duration        // until then, since the last time; 0: one was granted
}

func (p *portLeases) demand(k hold.Kind, now time.Time) *demand {
	d := p.demands[k]
	if d == nil {
		d = &demand{since: now}
		if len(p.demands) < maxKinds {
			p.demands[k] = d
		}
	}
	return d
}

// leaseFor is for how long holds of a lifetime are made from one lease. They all
// expire with it, so none may live for much longer than was asked.
func leaseFor(ttl time.Duration) time.Duration { return min(maxLease, ttl/8) }

func (d *demand) count(tokens int64, now time.Time) {
	if times := int(min(now.Sub(d.since)/demandFor, lookBack)); times > 0 {
		var asked [lookBack]budget.Sum
		copy(asked[times:], d.asked[:])
		d.asked, d.since = asked, now
	}
	d.asked[0] = d.asked[0].Add(budget.Sum{Estimate: budget.Estimate{Tokens: tokens}, Calls: 1})
}

// within is how many holds were asked for while one lease would have lasted, and since the latest
// time began, which may be just now.
func (d *demand) within(lasts time.Duration) (holds int) {
	for _, a := range d.asked[:min(max(lasts/demandFor, 1)+1, lookBack)] {
		holds += int(a.Calls)
	}
	return holds
}

// want asks for the next lease, now and then, where there is demand and three quarters of
// the present one are used up, of its tokens, its holds or its time.
func (b *Broker) want(port string, k hold.Kind, p *portLeases, d *demand, now time.Time) (w reservation.Want) {
	lasts := leaseFor(k.TTL)
	if b.cfg.LeaseFrom < 0 || d.within(lasts) < b.cfg.LeaseFrom || now.Sub(d.since) >= 2*demandFor || now.Before(d.notBefore) || b.leases.paused(p, now) {
		return w
	}
	calls, tokens := max(d.asked[0].Calls, d.asked[1].Calls), max(d.asked[0].Tokens, d.asked[1].Tokens)
	if tokens == 0 {
		return w
	}
	if l := d.lease; l != nil && l.Left() > l.Tokens/4 && l.Made.Holds < l.Holds/4*3 && l.until.Sub(now) >= lasts/4 {
		return w
	}
	d.pause = min(max(2*d.pause, askAgain), idleFor)
	d.notBefore = now.Add(d.pause)
	each, holds := tokens/calls+1, min(max(4*int(calls), minHolds), reservation.MaxLeaseHolds)
	return reservation.Want{PortID: port, Kind: k, For: lasts, Tokens: each * int64(holds), Least: reservation.LeastCalls * each, Holds: holds}
}

// paused: what was leased of the port was revoked a moment ago.
func (s *leases) paused(p *portLeases, now time.Time) bool {
	return now.Before(p.revoked) || now.Before(s.revoked)
}

// wants are the leases to ask for: those that follow others, and those that the requests need. It also
// tells how many readings were done.
func (b *Broker) wants(ahead []reservation.Want, requests []events.ReserveRequest, now time.Time) (wants []reservation.Want, readings int) {
	wants = slices.DeleteFunc(ahead, func(w reservation.Want) bool { return b.cfg.Withheld(w.PortID) != nil })
	b.mu.Lock()
	defer b.mu.Unlock()
	wants = slices.DeleteFunc(wants, func(w reservation.Want) bool { return b.leases.paused(b.leases.port(w.PortID), now) })
	at := b.cfg.Now()
	for i := range requests {
		q := &requests[i]
		rule, _, _, _ := b.cfg.Port(q.PortID, at)
		if !rule.Leases(at) {
			continue // none would be granted
		}
		p, k := b.leases.port(q.PortID), kindOf(q, rule)
		if w := b.want(q.PortID, k, p, p.demand(k, now), now); w.Holds > 0 {
			wants = append(wants, w)
		}
	}
	return wants, b.known.done
}
