package budget

import "time"

// Period is how often a budget, or the count of one of its limits, starts anew: always UTC,
// half-open [start, end). Nothing is ever reset; the period is a pure function of the time.
type Period string

// The periods. A week starts on Monday.
const (
	Day   Period = "day"
	Week  Period = "week"
	Month Period = "month" // the default

	// These are for limits only. Total never starts anew.
	Hour  Period = "hour"
	Total Period = "total"
)

// Periods are those of a budget.
var Periods = [...]Period{Day, Week, Month}

// Valid reports whether a budget can have p.
func (p Period) Valid() bool { return p == Day || p == Week || p == Month }

// ValidWindow reports whether a limit can have p.
func (p Period) ValidWindow() bool { return p.Valid() || p == Hour || p == Total }

// Bounds returns the period that contains t; the end of Total is the zero time. Where the
// database's clock decides, the SQL functions budget_period and limit_window do the same.
func (p Period) Bounds(t time.Time) (start, end time.Time) {
	const day = 24 * time.Hour
	t = t.UTC()
	switch p {
	case Hour:
		start = t.Truncate(time.Hour)
		return start, start.Add(time.Hour)
	case Total:
		return time.Unix(0, 0).UTC(), time.Time{}
	case Day:
		start = t.Truncate(day)
		return start, start.Add(day)
	case Week:
		start = t.Truncate(7 * day) // the first day of the year 1, from which it counts, was a Monday
		return start, start.Add(7 * day)
	default:
		year, month, days := t.Date()
		return t.Truncate(day).Add(-time.Duration(days-1) * day), time.Date(year, month+1, 1, 0, 0, 0, 0, time.UTC)
	}
}

// The names of periods, beside months like 2026-11.
const (
	Current  = "current"
	Previous = "previous"
)

// Named is a period that somebody asks about: whole UTC days, [Start, End).
type Named struct {
	Period     Period
	Start, End time.Time
}

// ParseNamed reads current (the period of p that contains now), previous (the one before
// it) or YYYY-MM (that month, whatever p is). Field is what the error, a [*FieldError],
// calls the name.
func ParseNamed(field, name string, p Period, now time.Time) (Named, error) {
	start, end := p.Bounds(now)
	switch name {
	case Current:
		return Named{p, start, end}, nil
	case Previous:
		start, end = p.Bounds(start.Add(-1))
		return Named{p, start, end}, nil
	}
	month, err := time.Parse("2006-01", name)
	if err != nil || month.Year() < 1970 || month.Year() > 9998 { // the end, too, is a year of four digits
		return Named{}, Refuse(ReasonInvalidField, field, name, "must be current, previous or a month like 2026-11, from 1970 to 9998")
	}
	return Named{Month, month, month.AddDate(0, 1, 0)}, nil
}
