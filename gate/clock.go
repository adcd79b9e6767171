package gate

import (
	"sync/atomic"
	"time"
)

// clockTolerance is how far this machine's clock may be from the database's before
// an operator is told, every warnEvery for as long as it is.
const (
	clockTolerance = time.Second
	warnEvery      = time.Minute
)

// now is the time that decisions are made by: the database's, as far as this gate
// knows it. Postgres decides reservations by that clock, so a check and a reservation
// name the same period, whatever this machine's clock says.
func (g *Gate) now() time.Time { return g.clock.at(g.cfg.Now()) }

// clock reckons the database's clock from this machine's. Between two readings it goes
// on by the monotonic one, which nobody sets.
type clock struct {
	read   atomic.Pointer[moment] // nil: not read yet
	warned time.Time
}

// moment is what both clocks said at one time, as far as anybody can know.
type moment struct{ own, database time.Time }

func (m *moment) at(own time.Time) time.Time { return m.database.Add(own.Sub(m.own)) }

// at is the database's time when this machine's clock says own; the same time before
// the first reading.
func (c *clock) at(own time.Time) time.Time {
	if m := c.read.Load(); m != nil {
		return m.at(own)
	}
	return own
}

// hear takes over a reading: the database's clock said at, some time between asked and
// answered. It moves what is reckoned only as far as the reading proves it wrong, so
// that the readings with the shortest round trips decide and a slow one spoils nothing.
// It returns how far the database's clock is ahead of this machine's. One caller at a time.
func (c *clock) hear(asked, answered, at time.Time) (ahead time.Duration) {
	earliest, latest := at, at.Add(answered.Sub(asked)) // what it says now is between these
	now := at.Add(answered.Sub(asked) / 2)
	if m := c.read.Load(); m != nil {
		now = m.at(answered)
	}
	switch {
	case now.Before(earliest):
		now = earliest
	case now.After(latest):
		now = latest
	}
	c.read.Store(&moment{answered, now})
	return now.Sub(answered.Round(0)) // what the machine's clock shows, without the monotonic one
}

// followClock hears the database's clock and tells an operator if the machine's is wrong.
func (g *Gate) followClock(asked, answered, at time.Time) {
	if answered.Before(asked) {
		return // it was set in between: the next reading is soon
	}
	ahead := g.clock.hear(asked, answered, at)
	g.metrics.clockAhead.Set(ahead.Seconds())
	if ahead.Abs() <= clockTolerance || !g.clock.warned.IsZero() && answered.Sub(g.clock.warned) < warnEvery {
		return
	}
	g.clock.warned = answered
	g.log.Warn("this machine's clock differs from the database's, by which the gate goes: synchronise them (NTP)", "database_ahead", ahead)
}
