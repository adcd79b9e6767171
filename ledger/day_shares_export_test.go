package ledger

import "time"

// KeepDaysFrom has days kept that have at least so many calls.
func (l *Ledger) KeepDaysFrom(calls int64) { l.keptCalls = calls }

// KeepFor has a report keep days for so long.
func (l *Ledger) KeepFor(d time.Duration) { l.keepFor = d }
