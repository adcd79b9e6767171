package gate

import "time"

// clockTolerance is how far this machine's clock may be from the database's before
// an operator is told, every warnEvery for as long as it is.
const (
	clockTolerance = time.Second
	warnEvery      = time.Minute
)

// now is the time that decisions are made by: the database's, as far as this gate
// knows it. Postgres decides reservations by that clock, so a check and a reservation
// name the same period, whatever this machine's clock says.
func (g *Gate) now() time.Time { return g.clock.At(g.cfg.Now()) }

// followClock hears the database's clock and tells an operator if the machine's is wrong.
func (g *Gate) followClock(asked, answered, at time.Time) {
	ahead, known := g.clock.Hear(asked, answered, at)
	if !known {
		return // the next reading is soon
	}
	g.metrics.clockAhead.Set(ahead.Seconds())
	if ahead.Abs() <= clockTolerance || !g.clockWarned.IsZero() && answered.Sub(g.clockWarned) < warnEvery {
		return
	}
	g.clockWarned = answered
	g.log.Warn("this machine's clock differs from the database's, by which the gate goes: synchronise them (NTP)", "database_ahead", ahead)
}
