package broker

import (
	"testing"
	"time"
)

// A machine that was suspended has a monotonic clock that stood still: Postgres went by
// the other one meanwhile, and counts the gate as killed.
func TestALeaseIsOverByEitherClock(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for name, c := range map[string]struct {
		monotonic, wall time.Duration // until the lease ends
		over            bool
	}{
		"by neither": {1, 1, false}, "by the monotonic one": {0, time.Hour, true}, "by the machine's": {time.Hour, 0, true},
	} {
		l := lease{until: now.Add(c.monotonic), wall: now.Round(0).Add(c.wall)}
		if l.over(now) != c.over {
			t.Errorf("%s: over %v", name, !c.over)
		}
	}
}
