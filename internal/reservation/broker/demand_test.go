package broker

import (
	"slices"
	"testing"
	"time"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/reservation/hold"
)

// A gate that is given no lease asks for one less and less often.
func TestAGateWithoutALeaseAsksLessOften(t *testing.T) {
	t.Parallel()
	b, d, now := &Broker{cfg: Config{LeaseFrom: 1}}, &demand{}, time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	d.since = now
	var gaps []time.Duration
	last := now
	for range 1000 {
		now = now.Add(25 * time.Millisecond)
		d.count(5, now)
		if w := b.want("p1", hold.Kind{TTL: events.DefaultHoldTTL}, &portLeases{}, d, now); w.Tokens > 0 {
			gaps, last = append(gaps, now.Sub(last)), now
		}
	}
	want := []time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 4 * time.Second}
	if len(gaps) < 7 || !slices.Equal(gaps[1:7], want) {
		t.Errorf("it asks after %v, want after the first %v", gaps, want)
	}
}
