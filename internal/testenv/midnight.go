package testenv

import "time"

// Days, weeks and months of budgets end at midnight, UTC. What a test expects of "today" it has
// to find until its end, so none that goes by the machine's clock begins where that would not be
// long enough. Nor does one begin right after midnight: a limit that is added then counts the day
// before, too, for gates whose clocks are behind. What happens at midnight is tested with a
// [Clock].
const (
	beforeMidnight = 2 * time.Minute
	afterMidnight  = 65 * time.Second
)

// untilQuiet is how long to wait at a time until no midnight is near.
func untilQuiet(now time.Time) time.Duration {
	midnight := now.Add(beforeMidnight).UTC().Truncate(24 * time.Hour) // the last that is not far ahead
	return max(0, midnight.Add(afterMidnight).Sub(now))
}

// awaitQuiet waits until no midnight is near.
func awaitQuiet() { time.Sleep(untilQuiet(time.Now())) }
