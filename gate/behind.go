package gate

import (
	"context"
	"fmt"
	"time"
)

// askBehind is how often the gate asks whether the ledger lacks something.
const askBehind = 250 * time.Millisecond

// awaitLedger waits until the ledger has all that the stream acknowledged: totals that
// are read before lack some of it.
func (g *Gate) awaitLedger(ctx context.Context) error {
	for told := time.Now(); ; pause(ctx, askBehind/5) {
		err := g.cfg.Behind()
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(told) > 10*time.Second {
			told = time.Now()
			g.log.Info("the gate waits to answer", "reason", err)
		}
	}
}

// watchLedger lets as_of stand still while the ledger lacks something: from when it was
// last known to be complete.
func (g *Gate) watchLedger(ctx context.Context) {
	complete, behind := g.now(), false
	for ctx.Err() == nil {
		now := g.now()
		err := g.cfg.Behind()
		switch {
		case err == nil:
			complete = now
			if behind {
				g.hearing.Missed() // read what was booked again
				g.memory.stop(time.Time{})
				g.log.Info("the ledger has everything again")
			}
		case !behind:
			g.memory.stop(complete)
			g.log.Error("answers are not up to date", "as_of", complete, "reason", err)
		}
		if behind = err != nil; behind {
			g.reservations.RevokeAll() // Postgres may not know of them any more, or has granted too much
		}
		pause(ctx, askBehind)
	}
}

// withheld says why no tokens of a port can be held now, nil where they can: it has a hard
// cap, and the ledger lacks some of what it has used.
func (g *Gate) withheld(port string) error {
	reason := g.cfg.Behind()
	if reason == nil {
		return nil
	}
	if rule, _, _ := g.reservations.Known(port, g.now()); !rule.Refuses() {
		return nil
	}
	return fmt.Errorf("what this port has used is not known: %w", reason)
}
