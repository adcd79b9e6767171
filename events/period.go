package events

import "time"

// Period is how often a budget starts anew: always UTC, half-open [start, end).
// Nothing is ever reset; the period is a pure function of the time.
type Period string

// The periods. A week starts on Monday.
const (
	PeriodDay   Period = "day"
	PeriodWeek  Period = "week"
	PeriodMonth Period = "month" // the default
)

// Valid reports whether p is one of the three.
func (p Period) Valid() bool { return p == PeriodDay || p == PeriodWeek || p == PeriodMonth }

// Bounds returns the period that contains t.
func (p Period) Bounds(t time.Time) (start, end time.Time) {
	year, month, day := t.UTC().Date()
	switch p {
	case PeriodDay:
		start = time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
		return start, start.AddDate(0, 0, 1)
	case PeriodWeek:
		today := time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
		start = today.AddDate(0, 0, -(int(today.Weekday())+6)%7)
		return start, start.AddDate(0, 0, 7)
	default:
		start = time.Date(year, month, 1, 0, 0, 0, 0, time.UTC)
		return start, start.AddDate(0, 1, 0)
	}
}
