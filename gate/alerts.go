package gate

import (
	"context"
	"encoding/json"
	"time"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

// alerted remembers which alerts of the current period this gate has taken care
// of, so that Postgres is asked once and not at every commit.
type alerted struct {
	start      ledger.Day
	period     periodIndex
	soft, hard bool
}

// considerAlert queues the alerts that the port's use calls for.
func (g *Gate) considerAlert(id string, now time.Time) {
	g.memory.mu.Lock()
	defer g.memory.mu.Unlock()
	if p, ok := g.memory.ports[id]; ok {
		g.queueAlerts(id, p, now)
	}
}

func (g *Gate) considerAllAlerts(now time.Time) {
	g.memory.mu.Lock()
	defer g.memory.mu.Unlock()
	for id, p := range g.memory.ports {
		g.queueAlerts(id, p, now)
	}
}

func (g *Gate) queueAlerts(id string, p *port, now time.Time) {
	l := p.limits
	if !l.enabled || (l.soft == noCap && l.hard == noCap) {
		return
	}
	used := p.used(now)
	if used == 0 {
		return
	}
	if l.hard != noCap {
		g.noteOvershoot(used - l.hard)
	}
	start, _ := periods[l.period].Bounds(now)
	if day := ledger.DayOf(start); p.alerted.start != day || p.alerted.period != l.period {
		p.alerted = alerted{start: day, period: l.period}
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
		case g.alerts <- ledger.Alert{PortID: id, Period: periods[l.period], PeriodStart: start, Cap: c.name}:
			*c.done = true
		default: // the queue is full: the next commit or reading considers it again
		}
	}
}

// noteOvershoot keeps the largest overshoot. The caller holds the memory's lock.
func (g *Gate) noteOvershoot(tokens int64) {
	if tokens > g.overshoot {
		g.overshoot = tokens
		g.metrics.overshoot.Set(float64(tokens))
	}
}

// publishAlerts publishes each queued alert unless some gate has already.
func (g *Gate) publishAlerts(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-g.alerts:
			if err := g.publishAlert(ctx, a); err != nil && ctx.Err() == nil {
				g.log.Warn("an alert cannot be published, trying again", "port_id", a.PortID, "cap", a.Cap, "error", err)
				g.retryAlert(a)
				pause(ctx, time.Second)
			}
		}
	}
}

func (g *Gate) publishAlert(ctx context.Context, a ledger.Alert) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	mine, err := g.cfg.Ledger.ClaimAlert(ctx, a)
	if err != nil || !mine {
		return err
	}
	now := g.cfg.Now()
	l, used, _, _ := g.memory.lookup(a.PortID, now)
	_, end := a.Period.Bounds(a.PeriodStart)
	alert := events.Alert{V: events.Version, PortID: a.PortID, Cap: a.Cap, CapTokens: l.soft, UsedTokens: used,
		Period: a.Period, PeriodStart: a.PeriodStart, ResetsAt: end, At: now.UTC()}
	if a.Cap == "hard" {
		alert.CapTokens = l.hard
	}
	body, err := json.Marshal(alert)
	if err != nil {
		return err
	}
	if err := g.cfg.Conn.Publish(events.Subject(events.SubjectAlert, a.PortID), body); err != nil {
		return err
	}
	if err := g.cfg.Conn.FlushWithContext(ctx); err != nil {
		return err
	}
	g.log.Info("cap reached", "port_id", a.PortID, "cap", a.Cap, "cap_tokens", alert.CapTokens, "used_tokens", used)
	return g.cfg.Ledger.AlertPublished(ctx, a)
}

// retryAlert makes the next reading consider the alert again.
func (g *Gate) retryAlert(a ledger.Alert) {
	g.memory.mu.Lock()
	defer g.memory.mu.Unlock()
	p, ok := g.memory.ports[a.PortID]
	if !ok {
		return
	}
	if a.Cap == "soft" {
		p.alerted.soft = false
	} else {
		p.alerted.hard = false
	}
}
