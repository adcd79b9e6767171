package budget

import "time"

// Standing is what the limit says of a count, while nobody asks for anything.
func (l *Limit) Standing(value string, n Count, now time.Time) Decision {
	return l.decide(value, n, 0, now)
}
