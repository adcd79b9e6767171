package gate

import (
	"context"
	"encoding/json"
	"time"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/killpoint"
	"github.com/tidegate/tidegate/ledger"
)

// alerted remembers what was made of a port's use in the current period, so that
// Postgres is asked once and not at every commit.
type alerted struct {
	start      ledger.Day
	soft, hard bool // this gate has taken care of the alert for the cap as it is
	looked     bool // at the use under the hard cap as it is
}

// considerAlert queues the alerts that the port's use calls for.
func (g *Gate) considerAlert(id string, now time.Time) {
	g.memory.mu.Lock()
	defer g.memory.mu.Unlock()
	if p, ok := g.memory.ports.get(id); ok {
		g.queueAlerts(id, p, now)
	}
}

func (g *Gate) considerAllAlerts(now time.Time) {
	g.memory.ports.walk(&g.memory.mu, func(id string, p *port) { g.queueAlerts(id, p, now) })
}

func (g *Gate) queueAlerts(id string, p *port, now time.Time) {
	l := p.limits
	if !l.enabled || (l.soft == noCap && l.hard == noCap) {
		return
	}
	start, end := periods[l.period].Bounds(now)
	if day := ledger.DayOf(start); p.alerted.start != day {
		p.alerted = alerted{start: day, looked: p.alerted.looked}
		delete(g.memory.over, id)
	}
	used := p.between(ledger.DayOf(start), ledger.DayOf(end))
	g.noteOvershoot(id, p, used)
	if used == 0 {
		return
	}
	for _, c := range []struct {
		name string
		cap  int64
		done *bool
	}{{"soft", l.soft, &p.alerted.soft}, {"hard", l.hard, &p.alerted.hard}} {
		if *c.done || c.cap == noCap || used < c.cap {
			continue
		}
		select {
		case g.alerts <- ledger.Alert{PortID: id, Period: periods[l.period], PeriodStart: start, Cap: c.name, CapTokens: c.cap, UsedTokens: used, NoticedAt: now}:
			*c.done = true
		default: // the queue is full: the next commit or reading considers it again
		}
	}
}

// noteOvershoot keeps the most that any port's use has grown above its hard cap since
// that was set to its value. What was used by then, and what had been when this gate
// first looked, is no overshoot. The caller holds the memory's lock.
func (g *Gate) noteOvershoot(id string, p *port, used int64) {
	hard := p.limits.hard
	if hard == noCap {
		return
	}
	if !p.alerted.looked {
		p.alerted.looked = true
		delete(g.memory.over, id)
		if used > hard {
			g.memory.over[id] = used
		}
	}
	if used <= hard {
		return
	}
	if tokens := used - max(hard, g.memory.over[id]); tokens > g.overshoot {
		g.overshoot = tokens
		g.metrics.overshoot.Set(float64(tokens))
	}
}

const (
	alertTimeout = 3 * time.Second // from the claim on; well below ledger.AlertLease
	// takeOverEvery is how often the gate looks for alerts whose claim has run out: the
	// gate that had it died, or never heard that it got it.
	takeOverEvery = 2 * time.Second
)

// publishAlerts publishes alerts until ctx ends, each unless some gate has already.
func (g *Gate) publishAlerts(ctx context.Context) {
	look := time.NewTimer(0)
	defer look.Stop()
	for ctx.Err() == nil {
		if !g.cfg.Conn.IsConnected() { // another gate may be
			pause(ctx, time.Second)
			continue
		}
		select {
		case <-ctx.Done():
		case a := <-g.alerts:
			killpoint.Here("alert-noticed")
			if err := g.publishIfMine(ctx, a); err != nil {
				g.log.Warn("an alert cannot be claimed, trying again", "port_id", a.PortID, "cap", a.Cap, "error", err)
				g.retryAlert(a)
				pause(ctx, time.Second)
			}
		case <-look.C:
			if err := g.takeOverAlerts(ctx); err != nil {
				g.log.Debug("cannot look for alerts that no gate has published", "error", err)
			}
			look.Reset(takeOverEvery)
		}
	}
}

func (g *Gate) publishIfMine(ctx context.Context, a ledger.Alert) error {
	claim, cancel := context.WithTimeout(ctx, alertTimeout)
	defer cancel()
	mine, err := g.cfg.Ledger.ClaimAlert(claim, a)
	if mine {
		g.publishAlert(ctx, a)
	}
	return err
}

func (g *Gate) takeOverAlerts(ctx context.Context) error {
	for ctx.Err() == nil {
		claim, cancel := context.WithTimeout(ctx, alertTimeout)
		a, ok, err := g.cfg.Ledger.TakeOverAlert(claim)
		cancel()
		if err != nil || !ok {
			return err
		}
		g.publishAlert(ctx, a)
	}
	return nil
}

// publishAlert publishes an alert that this gate has claimed, and finishes that when ctx
// ends in the middle: what is not noted as published goes out again.
func (g *Gate) publishAlert(ctx context.Context, a ledger.Alert) {
	killpoint.Here("alert-claimed")
	if err := g.sendAlert(context.WithoutCancel(ctx), a); err != nil {
		g.log.Warn("an alert may not have gone out, trying again once its claim has run out", "port_id", a.PortID, "cap", a.Cap, "error", err)
		return
	}
	killpoint.Here("alert-flushed")
	g.log.Info("cap reached", "port_id", a.PortID, "cap", a.Cap, "cap_tokens", a.CapTokens, "used_tokens", a.UsedTokens)
	for {
		note, cancel := context.WithTimeout(context.WithoutCancel(ctx), alertTimeout)
		err := g.cfg.Ledger.AlertPublished(note, a)
		cancel()
		if err == nil {
			break
		}
		g.log.Warn("an alert cannot be noted as published, trying again", "port_id", a.PortID, "cap", a.Cap, "error", err)
		if pause(ctx, time.Second); ctx.Err() != nil {
			return
		}
	}
	killpoint.Here("alert-noted")
}

func (g *Gate) sendAlert(ctx context.Context, a ledger.Alert) error {
	ctx, cancel := context.WithTimeout(ctx, alertTimeout)
	defer cancel()
	_, end := a.Period.Bounds(a.PeriodStart)
	body, err := json.Marshal(events.Alert{V: events.Version, PortID: a.PortID, Cap: a.Cap, CapTokens: a.CapTokens, UsedTokens: a.UsedTokens,
		Period: a.Period, PeriodStart: a.PeriodStart, ResetsAt: end, At: a.NoticedAt.UTC()})
	if err != nil {
		return err
	}
	if err := g.cfg.Conn.Publish(events.Subject(events.SubjectAlert, a.PortID), body); err != nil {
		return err
	}
	killpoint.Here("alert-sent")
	return g.cfg.Conn.FlushWithContext(ctx)
}

// retryAlert makes the next reading consider the alert again.
func (g *Gate) retryAlert(a ledger.Alert) {
	g.memory.mu.Lock()
	defer g.memory.mu.Unlock()
	p, ok := g.memory.ports.get(a.PortID)
	if !ok {
		return
	}
	if a.Cap == "soft" {
		p.alerted.soft = false
	} else {
		p.alerted.hard = false
	}
}
