package ledger

import (
	"strconv"
	"time"

	"github.com/tidegate/tidegate/events"
)

// The names of periods, beside months like 2026-11.
const (
	CurrentPeriod  = "current"
	PreviousPeriod = "previous"
)

// NamedPeriod is a period that somebody asks about: whole UTC days, [Start, End).
type NamedPeriod struct {
	Period     events.Period
	Start, End time.Time
}

// ParseNamedPeriod reads current (the period of p that contains now), previous (the
// one before it) or YYYY-MM (that month, whatever p is). Field is what the error, a
// [*events.FieldError], calls the name.
func ParseNamedPeriod(field, name string, p events.Period, now time.Time) (NamedPeriod, error) {
	start, end := p.Bounds(now)
	switch name {
	case CurrentPeriod:
		return NamedPeriod{p, start, end}, nil
	case PreviousPeriod:
		start, end = p.Bounds(start.Add(-1))
		return NamedPeriod{p, start, end}, nil
	}
	month, err := time.Parse("2006-01", name)
	if err != nil {
		return NamedPeriod{}, &events.FieldError{Reason: events.ReasonInvalidField, Field: field, Value: strconv.QuoteToASCII(name),
			Rule: "must be current, previous or a month like 2026-11"}
	}
	return NamedPeriod{events.PeriodMonth, month, month.AddDate(0, 1, 0)}, nil
}
