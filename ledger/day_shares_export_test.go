package ledger

// KeepDaysFrom has days kept that have at least so many calls.
func (l *Ledger) KeepDaysFrom(calls int64) { l.keptCalls = calls }
