package gate

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/tidegate/tidegate/ledger"
)

// How leases end: replaced, recalled, idle, over or in doubt, and then given back.

// retire ends the making of holds from a line's slice.
func (s *leases) retire(l *line, now time.Time, urgent bool) {
	c := l.slice
	if c == nil {
		return
	}
	l.slice = nil
	delete(s.leased, l)
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
		if c.PortID == port && !c.urgent {
			c.urgent = true
			s.hurry()
		}
	}
}

// barred: the port was recalled a moment ago and is not leased again yet.
func (s *leases) barred(port string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.ports[port]
	return p != nil && now.Before(p.barred)
}

// close ends the making of holds for good.
func (s *leases) close(now time.Time) {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.retireAll(now)
}

// retireAll ends the making of holds from all slices there are.
func (s *leases) retireAll(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.ports {
		for _, l := range p.lines {
			s.retire(l, now, true)
		}
	}
	for _, c := range s.ending {
		c.urgent = true
	}
}

// spare is how many of a port's tokens this gate has leased and not made into holds,
// while look reads what is held, which includes them: a slice that comes counts as held
// before it is to spare, and one that was given back is neither from one moment on.
func (s *leases) spare(port string, look func()) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	look()
	if p := s.ports[port]; p != nil {
		return p.slack
	}
	return 0
}

// tidy returns the slices to remove if they are finished, and those to seal. It ends
// the leases of others, and forgets what nobody asks for.
func (s *leases) tidy(now time.Time) (finish, seal []ledger.Sealed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retireIdle(now)
	s.forget(now)
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

// retireIdle retires slices whose lease has ended or that nobody uses.
func (s *leases) retireIdle(now time.Time) {
	for l := range s.leased {
		if c := l.slice; c.over(now) || now.Sub(c.used) > idleFor {
			s.retire(l, now, c.over(now))
		}
	}
}

// forget drops ports and lifetimes that nobody asks for: of some ports, which are
// others the next time, since a map begins anywhere.
func (s *leases) forget(now time.Time) {
	looked := 0
	for id, p := range s.ports {
		if looked++; looked > forgetAtOnce {
			return
		}
		p.lines = slices.DeleteFunc(p.lines, func(l *line) bool { return l.slice == nil && now.Sub(l.since) > forgetAfter })
		if len(p.lines) == 0 && p.slack == 0 && now.After(p.barred) {
			delete(s.ports, id)
		}
	}
}

// doubt takes over slices of which nobody knows whether they were granted: no holds
// are made from them, and they are given back at once.
func (s *leases) doubt(maybe []ledger.Slice, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range maybe {
		g := &maybe[i]
		s.ending = append(s.ending, &slice{Slice: *g, until: now.Add(g.Until.Sub(g.Created)), retired: now, urgent: true,
			sealed: ledger.Sealed{PortID: g.PortID, ID: g.ID, Doubtful: true}})
		s.hurry()
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
// the ports that of covers: what was given back before is not among it any more. take
// takes it over; see [leases.spare].
func (s *leases) read(begun time.Time, of func(port string) bool, take func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	take()
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
