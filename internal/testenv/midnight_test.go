package testenv

import (
	"testing"
	"time"
)

func TestNoTestBeginsNearMidnight(t *testing.T) {
	t.Parallel()
	midnight := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	for from, want := range map[time.Duration]time.Duration{
		-3 * time.Minute:                0,
		-beforeMidnight - 1:             0,
		-beforeMidnight:                 beforeMidnight + afterMidnight,
		-time.Second:                    afterMidnight + time.Second,
		0:                               afterMidnight,
		afterMidnight - time.Nanosecond: time.Nanosecond,
		afterMidnight:                   0,
		12 * time.Hour:                  0,
	} {
		for _, zone := range []*time.Location{time.UTC, time.FixedZone("east", 5*3600+1800)} {
			if got := untilQuiet(midnight.Add(from).In(zone)); got != want {
				t.Errorf("%s from midnight, in zone %s: wait %s, want %s", from, zone, got, want)
			}
		}
	}
}
