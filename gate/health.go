package gate

import (
	"errors"
	"fmt"
	"time"
)

const (
	// oldAfter is how old a gate's knowledge may be before it is not ready: a reading of
	// everything begins every minute, at the latest, and consumers are heard every second.
	oldAfter = 2 * time.Minute
	// heldOldAfter is the same of what is held, which is read every 2 s at the latest.
	heldOldAfter = 30 * time.Second
)

// Health says why the gate does not answer as it should now; nil: it does. A gate that is
// not healthy may still answer: from memory, with an old as_of.
func (g *Gate) Health() error {
	if !g.loaded() {
		return errors.New("totals are not loaded yet")
	}
	if !g.service.Answers() {
		return errors.New("it does not answer any more")
	}
	for _, sub := range g.subs {
		if !sub.IsValid() {
			return fmt.Errorf("it does not hear %s any more", sub.Subject)
		}
	}
	if err := g.changes.Behind(); err != nil {
		return err
	}
	limit := oldAfter
	if g.cfg.MaxStale > 0 {
		limit = min(limit, g.cfg.MaxStale)
	}
	if asOf := g.AsOf(); g.now().Sub(asOf) > limit {
		return fmt.Errorf("what it knows is of %s, older than %s", asOf.UTC().Format(time.RFC3339), limit)
	}
	if read := time.Unix(0, g.heldRead.Load()); time.Since(read) > heldOldAfter {
		return fmt.Errorf("what is held was last read at %s, more than %s ago", read.UTC().Format(time.RFC3339), heldOldAfter)
	}
	return nil
}
