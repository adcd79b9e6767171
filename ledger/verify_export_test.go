package ledger

// VerifyInStretchesOf makes verifications read so many blocks with one statement.
func (l *Ledger) VerifyInStretchesOf(blocks int64) { l.stretchBlocks = blocks }
