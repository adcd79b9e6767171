package broker

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/tidegate/tidegate/internal/reservation/hold"
)

// How leases end: used up, replaced, revoked, idle, over or in doubt, and then returned.

const (
	idleFor = lookBack * demandFor // then a lease is returned
	// returnAfter leaves a lease open for a while when it has given out its last hold:
	// of calls that are short by then nothing has to be written down.
	returnAfter  = 500 * time.Millisecond
	returnEvery  = 250 * time.Millisecond
	returnAtOnce = 500 // in one transaction
	// RevokedFor keeps a port whose leases were revoked from being leased again at once:
	// whoever needed its tokens has to get its turn.
	RevokedFor = time.Second
	// forgetAfter ends what is known of demand. forgetAtOnce bounds how many ports are
	// looked at, while nobody can reserve or check.
	forgetAfter  = time.Minute
	forgetAtOnce = 1000
)

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
	if !time.Now().Before(returnAt) { // else the ticker comes soon enough: a look at all leases costs
		b.hurry()
	}
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
	b.revoke(map[string]*portLeases{port: b.leases.port(port)}, pause)
}

// RevokeDefault is Revoke for all ports that go by the default budget.
func (b *Broker) RevokeDefault() {
	b.mu.Lock()
	defer b.mu.Unlock()
	at, some := b.cfg.Now(), maps.Clone(b.leases.ports)
	maps.DeleteFunc(some, func(port string, _ *portLeases) bool {
		rule, _, _, _ := b.cfg.Port(port, at)
		return !rule.Default
	})
	b.revoke(some, RevokedFor)
}

// RevokeAll returns all leases, and leases nothing for a moment.
func (b *Broker) RevokeAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leases.revoked = time.Now().Add(RevokedFor) // also of ports that nobody has asked for yet
	leased := map[string]*portLeases{}            // far fewer than are remembered, and nobody can reserve or check meanwhile
	for d := range b.leases.open {
		leased[d.lease.PortID] = b.leases.port(d.lease.PortID)
	}
	for _, l := range b.leases.ending {
		leased[l.PortID] = b.leases.port(l.PortID)
	}
	b.revoke(leased, 0)
}

func (b *Broker) revoke(some map[string]*portLeases, pause time.Duration) {
	now := time.Now()
	until := now.Add(pause)
	for _, p := range some {
		if pause > 0 && p.revoked.Before(until) {
			p.revoked = until
		}
		for _, d := range p.demands {
			b.retire(d, now)
		}
	}
	for _, l := range b.leases.ending {
		if some[l.PortID] != nil && now.Before(l.returnAt) {
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
		if b.returnSome(ctx) { // a booking is busy with one, or there are more
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
	some := b.toReturn(time.Now())
	list := make([]hold.Returned, len(some))
	for i, l := range some {
		list[i] = l.Made
	}
	var done map[uuid.UUID]time.Time
	var err error
	if len(list) > 0 {
		done, err = b.cfg.Store.Return(ctx, list)
	}
	if err != nil { // maybe just this connection; but Postgres may be away
		b.cfg.Log.Debug("leases cannot be returned, trying again", "error", err)
		time.Sleep(10 * revokePause)
	}
	return b.returned(some, done, err, time.Now())
}

// toReturn lists leases that are due, and counts them as sent. It ends those that are over
// or that nobody uses, and forgets demand that there is no more: that of some ports, which
// are others the next time, since a map begins anywhere.
func (b *Broker) toReturn(now time.Time) (some []*lease) {
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
		maps.DeleteFunc(p.demands, func(_ hold.Kind, d *demand) bool { return d.lease == nil && now.Sub(d.since) > forgetAfter })
		if len(p.demands) == 0 && p.unused == 0 && now.After(p.revoked) {
			delete(b.leases.ports, id)
		}
	}
	b.leases.sent = map[string][]*lease{}
	for _, l := range b.leases.ending {
		if !now.Before(l.returnAt) && len(some) < returnAtOnce {
			some, b.leases.sent[l.PortID] = append(some, l), append(b.leases.sent[l.PortID], l)
		}
	}
	return some
}

// returned forgets those of some leases that the store is done with, and those that have
// expired: what it could not be told of them is of no account any more. An error leaves
// open which ones it is done with: until it says so they count as held. It reports whether
// a lease is left that is due.
func (b *Broker) returned(some []*lease, done map[uuid.UUID]time.Time, err error, now time.Time) (left bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leases.sent = nil
	gone := make(map[*lease]bool, len(some))
	for _, l := range some {
		at, ok := done[l.ID]
		gone[l] = ok || !now.Before(l.until.Add(l.TTL))
		if gone[l] || err != nil {
			b.leases.count(l)
		}
		l.unsure = l.unsure || err != nil
		// What is known may be without it already.
		if st := b.known.of(l.PortID); ok && !l.unsure && st.At.Before(at) {
			b.known.tell(hold.Standing{PortID: l.PortID, Held: max(st.Held-l.Left(), 0), At: st.At})
		}
	}
	b.leases.ending = slices.DeleteFunc(b.leases.ending, func(l *lease) bool {
		left = left || !gone[l] && !now.Before(l.returnAt)
		return gone[l]
	})
	return left
}
