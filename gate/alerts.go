package gate

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/killpoint"
	"github.com/tidegate/tidegate/ledger"
)

// alerted remembers what was made of a port's use in the current period, so that
// Postgres is asked once and not at every commit.
type alerted struct {
	start      ledger.Day
	soft, hard bool  // this gate has taken care of the alert for the cap as it is
	looked     bool  // at the use under the hard cap as it is
	changes    uint8 // of the default budget, when that was; see [memory.alertRule]
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
	r := g.memory.alertRule(id, p)
	if !r.Enabled || (r.Soft == budget.NoCap && r.Hard == budget.NoCap) {
		return
	}
	start, end := r.Period().Bounds(now)
	if day := ledger.DayOf(start); p.alerted.start != day {
		p.alerted = alerted{start: day, looked: p.alerted.looked, changes: p.alerted.changes}
		delete(g.memory.over, id)
	}
	used := p.between(ledger.DayOf(start), ledger.DayOf(end))
	g.noteOvershoot(id, p, used, start)
	if used == 0 {
		return
	}
	for _, c := range []struct {
		name string
		cap  int64
		done *bool
	}{{budget.AtSoft, r.Soft, &p.alerted.soft}, {budget.AtHard, r.HardAt(now), &p.alerted.hard}} {
		if *c.done || c.cap == budget.NoCap || used < c.cap {
			continue
		}
		select {
		case g.alerts <- ledger.Alert{PortID: id, Limit: budget.PortLimit, Unit: budget.Tokens, Period: r.Period(), PeriodStart: start,
			Threshold: c.name, Reached: c.cap, Used: used, NoticedAt: now}:
			*c.done = true
		default: // the queue is full: the next commit or reading considers it again
		}
	}
}

// noteOvershoot keeps the most that any port's use has grown above its hard cap since
// that was set to its value. What was used by then, and what had been when this gate
// first looked, is no overshoot; nor is what extra tokens allowed. The caller holds the memory's lock.
func (g *Gate) noteOvershoot(id string, p *port, used int64, start time.Time) {
	hard := g.memory.ruleOf(p).HardAt(start) // the highest in the period: extra tokens begin at once, and end
	if hard == budget.NoCap {
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
	alertsAtOnce = 100             // that one claim is for
	alertTimeout = 3 * time.Second // for the claim, and for each alert to go out and to be noted
	// beginWithin is how long after the claim an alert may begin to go out: what takes longer
	// is left to whoever takes it over once the claim has run out.
	beginWithin = ledger.AlertLease - 2*alertTimeout
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
			some := []ledger.Alert{a}
			for len(some) < alertsAtOnce && len(g.alerts) > 0 { // nobody else takes from it
				some = append(some, <-g.alerts)
			}
			if err := g.publishMine(ctx, some); err != nil {
				g.cannotAlert(fmt.Errorf("%d of them, the first of port %s, cannot be claimed: %w", len(some), a.PortID, err))
				g.retryAlerts(some)
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

// publishMine publishes those of the alerts that no gate has published or is about to.
func (g *Gate) publishMine(ctx context.Context, alerts []ledger.Alert) error {
	if len(alerts) == 0 {
		return nil
	}
	claim, cancel := context.WithTimeout(ctx, alertTimeout)
	defer cancel()
	asked := g.cfg.Now()
	mine, err := g.cfg.Ledger.ClaimAlerts(claim, alerts)
	g.publishClaimed(ctx, mine, asked)
	return err
}

func (g *Gate) takeOverAlerts(ctx context.Context) error {
	if err := g.ensureAlertStream(ctx); err != nil {
		return err
	}
	for ctx.Err() == nil {
		claim, cancel := context.WithTimeout(ctx, alertTimeout)
		asked := g.cfg.Now()
		some, err := g.cfg.Ledger.TakeOverAlerts(claim, alertsAtOnce)
		cancel()
		if len(some) == 0 {
			return err
		}
		g.publishClaimed(ctx, some, asked)
	}
	return nil
}

// publishClaimed has JetStream store alerts that this gate claimed, having asked for them then, and
// finishes that when ctx ends in the middle: what is not noted as published goes out again,
// once its claim has run out.
func (g *Gate) publishClaimed(ctx context.Context, alerts []ledger.Alert, asked time.Time) {
	if len(alerts) == 0 {
		return
	}
	slices.SortStableFunc(alerts, func(a, b ledger.Alert) int { return cmp.Compare(a.Reached, b.Reached) })
	err := g.ensureAlertStream(context.WithoutCancel(ctx))
	var sent []jetstream.PubAckFuture
	for i := range alerts {
		killpoint.Here("alert-claimed")
		if err != nil || g.cfg.Now().Sub(asked) > beginWithin {
			break // the others would fare no better
		}
		var one jetstream.PubAckFuture
		if one, err = g.sendAlert(&alerts[i]); err == nil {
			sent = append(sent, one)
		}
		killpoint.Here("alert-sent")
	}
	stored := alerts[:0:0]
	for i, one := range sent {
		if failed := acknowledged(one); failed == nil {
			stored = append(stored, alerts[i])
		} else {
			err = failed
			g.keeper.lost()
		}
	}
	if err != nil {
		g.cannotAlert(fmt.Errorf("%d of them, the first of port %s, may not have gone out, and do once their claim has run out: %w", len(alerts)-len(stored), alerts[0].PortID, err))
	}
	if len(stored) == 0 {
		return
	}
	killpoint.Here("alert-flushed")
	alerts = stored
	for _, a := range alerts {
		g.metrics.countAlert(&a)
		if a.Counter == 0 { // of others there may be very many
			g.log.Info("cap reached", "port_id", a.PortID, "cap", a.Threshold, "cap_tokens", a.Reached, "used_tokens", a.Used)
		}
	}
	for {
		note, cancel := context.WithTimeout(context.WithoutCancel(ctx), alertTimeout)
		err := g.cfg.Ledger.AlertsPublished(note, alerts)
		cancel()
		if err == nil {
			break
		}
		g.cannotAlert(fmt.Errorf("%d of them, the first of port %s, cannot be noted as published: %w", len(alerts), alerts[0].PortID, err))
		if pause(ctx, time.Second); ctx.Err() != nil {
			return
		}
	}
	killpoint.Here("alert-noted")
}

func (g *Gate) sendAlert(a *ledger.Alert) (jetstream.PubAckFuture, error) {
	body, err := json.Marshal(a.OnWire())
	if err != nil {
		return nil, err
	}
	return g.js.PublishAsync(events.Subject(events.SubjectAlert, a.PortID), body, jetstream.WithRetryAttempts(0))
}

// retryAlerts makes the next reading consider the alerts again.
func (g *Gate) retryAlerts(alerts []ledger.Alert) {
	g.memory.mu.Lock()
	defer g.memory.mu.Unlock()
	for _, a := range alerts {
		p, ok := g.memory.ports.get(a.PortID)
		switch {
		case !ok:
		case a.Threshold == budget.AtSoft:
			p.alerted.soft = false
		default:
			p.alerted.hard = false
		}
	}
}
