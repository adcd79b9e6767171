package gate

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/bus"
	"github.com/tidegate/tidegate/ledger"
)

const (
	tidyEvery = 250 * time.Millisecond
	// recallFor is how long a reservation waits, before it is refused, for what gates
	// have leased of its port; recallPause is how long at first, before it looks.
	recallFor   = 400 * time.Millisecond
	recallPause = 5 * time.Millisecond
	sealAtOnce  = 500 // slices in one statement
)

// reserveHere answers from a slice that this gate has leased, if there is one.
func (g *Gate) reserveHere(r *events.ReserveRequest) (v events.Verdict, ok bool) {
	if r.IdempotencyKey != "" {
		return v, false // another gate may get the retry: only Postgres can know
	}
	if g.withheld(r.PortID) != nil {
		return v, false // its lane says why
	}
	now := g.now()
	rule, used, held, asOf := g.lookup(r.PortID, now)
	if v = events.NewVerdict(budget.Decide(rule, used, held, r.EstimatedTokens, now)); !v.Allowed {
		return v, false // there was usage that nobody had reserved, or memory lags: Postgres knows
	}
	h, ok, more := g.leases.take(r, int64(rule.Version), ledger.DayOf(now), time.Now())
	if more {
		g.askForSlice(r.PortID)
	}
	if !ok {
		return v, false
	}
	v.AsOf = asOf
	v.ReservationID, v.GrantedTokens, v.ExpiresAt = h.id(), h.tokens, h.slice.Expires
	v.HeldTokens = budget.Add(held, r.EstimatedTokens)
	if v.RemainingTokens != nil {
		*v.RemainingTokens = max(*v.RemainingTokens-r.EstimatedTokens, 0)
	}
	return v, true
}

// askForSlice gets the port's next slice before this one is used up.
func (g *Gate) askForSlice(port string) {
	g.intake.Take(func() {
		select {
		case g.wants <- port:
		default: // too many wait: the port's requests will ask
		}
	})
}

// recall asks all gates to give back what they have leased of the tasks' ports, and
// has the tasks, which would be refused, decided again in a moment. It reports false
// if that is not to be.
func (g *Gate) recall(tasks []reserveTask) bool {
	var ports []string
	for _, t := range tasks {
		ports = append(ports, t.request.PortID)
	}
	slices.Sort(ports)
	g.recallPorts(slices.Compact(ports)...)
	return g.intake.Take(func() {
		g.tasks.Go(func() {
			time.Sleep(max(recallPause, time.Since(tasks[0].at)/2)) // a gate that was killed never answers
			for _, t := range tasks {
				enqueue(g, t.reply, g.laneOf(t.request.PortID).reserves, t)
			}
		})
	})
}

func (g *Gate) recallPorts(ports ...string) {
	for _, port := range ports {
		g.leases.recall(port, time.Now(), barFor)
	}
	g.publishHolds(bus.Holds{Recall: ports})
}

// endSlices gives back what is left of slices, until ctx ends.
func (g *Gate) endSlices(ctx context.Context) {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-g.leases.urgent:
		}
		if g.sealSlices(ctx) { // a booking is busy with one that somebody waits for
			time.Sleep(recallPause)
			g.leases.hurry()
		}
	}
}

// sealSlices reports whether one is left that somebody waits for and that could not
// be sealed now.
func (g *Gate) sealSlices(ctx context.Context) (left bool) {
	urgent, err := g.sealSome(ctx)
	if urgent && err != nil { // maybe just this connection; but Postgres may be away
		time.Sleep(10 * recallPause)
	}
	return urgent
}

func (g *Gate) sealSome(ctx context.Context) (urgent bool, err error) {
	g.holds.Lock()
	defer g.holds.Unlock()
	ctx, cancel := context.WithTimeout(ctx, g.cfg.ReserveTimeout)
	defer cancel()
	finish, seal := g.leases.tidy(time.Now())
	done := map[uuid.UUID]bool{}
	end := func(list []ledger.Sealed, how func(context.Context, []ledger.Sealed) ([]uuid.UUID, error)) error {
		for some := range slices.Chunk(list, sealAtOnce) {
			ids, err := how(ctx, some)
			if err != nil {
				g.log.Debug("slices cannot be sealed, trying again", "error", err)
				return err
			}
			for _, id := range ids {
				done[id] = true
			}
		}
		return nil
	}
	if err = end(seal, g.cfg.Ledger.SealSlices); err == nil {
		err = end(finish, g.cfg.Ledger.FinishSlices)
	}
	return g.leases.ended(done, time.Now()), err
}

// returnSlices gives everything back, as far as Postgres lets it within a moment.
func (g *Gate) returnSlices(ctx context.Context) {
	g.leases.close(time.Now())
	for end := time.Now().Add(g.cfg.ReserveTimeout); g.sealSlices(ctx) && time.Now().Before(end); {
		time.Sleep(recallPause)
	}
}
