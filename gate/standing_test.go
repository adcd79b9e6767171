package gate

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tidegate/tidegate/ledger"
)

// While slices come, are used and are given back, nobody is told of fewer held tokens
// than there are: who asks may see a slice whole, but no hold less.
func TestNobodyIsToldOfTooFewHeldTokens(t *testing.T) {
	t.Parallel()
	g := &Gate{memory: newMemory(), leases: newLeases(-1), cfg: Config{Now: func() time.Time { return noon }, MaxStale: -1}}
	const outside, slice = 1000, 500 // held by others; leased here, again and again
	var held atomic.Int64            // by those who have an answer
	held.Store(outside)
	g.tellHolds([]ledger.Standing{{PortID: "p", Held: outside, At: noon}}, time.Now())

	var done atomic.Bool
	var group sync.WaitGroup
	group.Go(func() { // what Postgres and this gate do with slices
		defer done.Store(true)
		stored, at := int64(outside), noon
		// A busy machine may run nobody else for long: until enough holds were made.
		for round, end := 0, time.Now().Add(20*time.Second); round < 5000 || held.Load() < outside+1000; round++ {
			if time.Now().After(end) {
				t.Errorf("%d tokens were held in %d rounds: too few to mean anything", held.Load()-outside, round)
				return
			}
			at = at.Add(time.Microsecond)
			g.tellHolds([]ledger.Standing{{PortID: "p", Held: stored + slice, At: at}}, time.Now())
			install(g.leases, granted("p", long, slice, 100), time.Now())
			runtime.Gosched()
			g.leases.recall("p", time.Now(), 0)
			_, seal := g.leases.tidy(time.Now())
			sealed := map[uuid.UUID]bool{}
			for _, s := range seal {
				stored += s.Tokens
				sealed[s.ID] = true
			}
			g.leases.ended(sealed, time.Now())
			at = at.Add(time.Microsecond)
			g.tellHolds([]ledger.Standing{{PortID: "p", Held: stored, At: at}}, time.Now())
		}
	})
	group.Go(func() {
		for !done.Load() {
			before := held.Load()
			if v := g.verdict("p", 0); v.HeldTokens < before {
				t.Errorf("a check counts %d held, and there were %d", v.HeldTokens, before)
				return
			}
		}
	})
	group.Go(func() {
		for !done.Load() {
			before := held.Load()
			v, ok := g.reserveHere(ask("p", long, 10))
			if !ok {
				continue
			}
			if held.Add(10); v.HeldTokens < before+10 {
				t.Errorf("a reservation counts %d held, and there were %d with it", v.HeldTokens, before+10)
				return
			}
		}
	})
	group.Wait()
}
