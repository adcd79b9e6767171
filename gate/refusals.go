package gate

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

const (
	refusalsEvery   = 2 * time.Second
	refusalsTimeout = time.Second // a gate that stops waits for the last writing
	// maxRefusals is how many limits of ports may have refused something between two writings, or
	// while Postgres is away. What comes beyond is in the metrics only.
	maxRefusals = 10_000
)

// refusals are what this gate has refused, by port, limit and day, until the ledger has it: for
// people to see, so a gate that is killed may take two seconds of it along.
type refusals struct {
	mu      sync.Mutex
	pending map[refusalKey]*ledger.Refusal
}

type refusalKey struct {
	port, limit string
	day         time.Time
}

// noteRefusal counts a question that a cap refused.
func (g *Gate) noteRefusal(port string, v *events.Verdict) {
	if v.Reason != events.ReasonGateStale {
		now := g.now().UTC()
		g.refusals.add(ledger.Refusal{PortID: port, Limit: v.Limit, Day: now.Truncate(24 * time.Hour), Refused: 1, LastAt: now})
	}
}

func (r *refusals) add(one ledger.Refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := refusalKey{one.PortID, one.Limit, one.Day}
	known := r.pending[key]
	if known == nil {
		if len(r.pending) >= maxRefusals {
			return
		}
		if r.pending == nil {
			r.pending = map[refusalKey]*ledger.Refusal{}
		}
		key.port, key.limit = strings.Clone(one.PortID), strings.Clone(one.Limit) // they may be parts of a message
		known = &ledger.Refusal{PortID: key.port, Limit: key.limit, Day: one.Day}
		r.pending[key] = known
	}
	known.Refused += one.Refused
	if one.LastAt.After(known.LastAt) {
		known.LastAt = one.LastAt
	}
}

// take returns all, and forgets them.
func (r *refusals) take() (list []ledger.Refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range r.pending {
		list = append(list, *one)
	}
	r.pending = nil
	return list
}

// keepWritingRefusals hands to the ledger what was refused, until ctx ends.
func (g *Gate) keepWritingRefusals(ctx context.Context) {
	for pause(ctx, refusalsEvery); ctx.Err() == nil; pause(ctx, refusalsEvery) {
		g.writeRefusals(ctx)
	}
}

func (g *Gate) writeRefusals(ctx context.Context) {
	list := g.refusals.take()
	if len(list) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, refusalsTimeout)
	defer cancel()
	if err := g.cfg.Ledger.AddRefusals(ctx, list); err != nil {
		g.complain.Do(func() { g.log.Warn("what was refused cannot be noted for the overview; trying again", "error", err) })
		for _, one := range list {
			g.refusals.add(one)
		}
	}
}
