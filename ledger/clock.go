package ledger

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Now is what the database's clock says.
func (l *Ledger) Now(ctx context.Context) (at time.Time, err error) {
	err = l.pool.QueryRow(ctx, "select clock_timestamp()").Scan(&at)
	return at, wrap(err, "read the clock")
}

// Clock reckons the database's clock from this machine's. Between two readings it goes
// on by the monotonic one, which nobody sets. The zero Clock is ready for use.
type Clock struct {
	read  atomic.Pointer[moment] // nil: not read yet
	hears sync.Mutex
}

// moment is what both clocks said at one time, as far as anybody can know.
type moment struct{ own, database time.Time }

func (m *moment) at(own time.Time) time.Time { return m.database.Add(own.Sub(m.own)) }

// At is the database's time when this machine's clock says own; the same time before
// the first reading.
func (c *Clock) At(own time.Time) time.Time {
	if m := c.read.Load(); m != nil {
		return m.at(own)
	}
	return own
}

// Hear takes over a reading: the database's clock said at, some time between asked and
// answered. It moves what is reckoned only as far as the reading proves it wrong, so
// that the readings with the shortest round trips decide and a slow one spoils nothing.
// It returns how far the database's clock is ahead of this machine's. Where the machine's
// was set back between asked and answered, nobody can know: Hear does nothing, and known is false.
func (c *Clock) Hear(asked, answered, at time.Time) (ahead time.Duration, known bool) {
	if answered.Before(asked) {
		return 0, false
	}
	c.hears.Lock()
	defer c.hears.Unlock()
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
	return now.Sub(answered.Round(0)), true // what the machine's clock shows, without the monotonic one
}
