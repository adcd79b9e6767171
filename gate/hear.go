package gate

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/internal/bus"
	"github.com/tidegate/tidegate/internal/reservation/broker"
	"github.com/tidegate/tidegate/internal/service"
	"github.com/tidegate/tidegate/ledger"
)

// resyncEvery is how often the gate reads all totals again even if it missed
// nothing; see [due].
const resyncEvery = time.Minute

// listen subscribes to everything that changes what the gate remembers.
func (g *Gate) listen(ctx context.Context) error {
	g.hearing.Begin(time.Now())
	for subject, handler := range map[string]nats.MsgHandler{
		bus.SubjectTotals:  g.hearTotals,
		bus.SubjectBudgets: g.hearBudget,
		bus.SubjectHolds:   g.hearHolds,
		bus.SubjectUsed:    g.tellUsed,
	} {
		sub, err := g.cfg.Conn.Subscribe(subject, handler)
		if err != nil {
			return err
		}
		g.subs = append(g.subs, sub)
	}
	previous := g.cfg.Conn.Opts.ReconnectedCB
	g.cfg.Conn.SetReconnectHandler(func(nc *nats.Conn) {
		if previous != nil {
			previous(nc)
		}
		g.hearing.Begin(time.Now())
		g.hearing.Missed() // whatever was published meanwhile
	})
	return service.Flush(ctx, g.cfg.Conn)
}

func (g *Gate) hearTotals(msg *nats.Msg) {
	n, now, ok := decoded[bus.Totals](g, msg)
	if !ok {
		return
	}
	told := g.hearing.Note(n, time.Now())
	if told.After(now) {
		told = now
	}
	g.hearLimits(&n)
	g.memory.applyTotals(n, oldestDay(now), told)
	for _, port := range n.Ports {
		g.considerAlert(port, now)
	}
	for _, port := range n.Deleted {
		g.reservations.Revoke(port, broker.RevokedFor) // also what is on its way
	}
}

// decoded reads a message that some process of Tidegate sent, and the clock. One that
// cannot be read, or is out of bounds, is as if it had not come: what a consumer tells
// next shows that one is missing.
func decoded[M bus.Message](g *Gate, msg *nats.Msg) (m M, now time.Time, ok bool) {
	now = g.now()
	m, err := bus.Decode[M](msg.Data, now)
	if err == nil {
		return m, now, true
	}
	g.metrics.ignored.WithLabelValues(msg.Subject).Inc()
	if now, last := time.Now().UnixNano(), g.warned.Load(); now-last > int64(time.Minute) && g.warned.CompareAndSwap(last, now) {
		g.log.Warn("a message to gates is ignored, and maybe others like it; the next reading of the ledger has what is true", "subject", msg.Subject, "error", err)
	}
	return m, now, false
}

func (g *Gate) hearBudget(msg *nats.Msg) {
	n, now, ok := decoded[bus.Budget](g, msg)
	if !ok {
		return
	}
	switch {
	case n.PortID == budget.DefaultPort:
		if len(n.Budget.Limits) == 0 {
			g.memory.applyBudget(n.PortID, n.Budget)
		}
		g.reservations.RevokeDefault()
	case len(n.Budget.Limits) == 0 && !n.Budget.Default:
		g.memory.applyBudget(n.PortID, n.Budget)
		g.reservations.Revoke(n.PortID, 0) // they were granted under the old one
		g.considerAlert(n.PortID, now)
		return
	default:
		g.reservations.Revoke(n.PortID, broker.RevokedFor) // also what is on its way
	}
	select {
	case g.learning <- n:
	default: // the next reading has it
		g.hearing.Missed()
	}
}

// tellUsed answers an operator's verification.
func (g *Gate) tellUsed(msg *nats.Msg) {
	req, _, ok := decoded[bus.UsedRequest](g, msg)
	if !ok || !g.loaded() || !service.MayReply(msg.Reply) {
		return
	}
	answer := bus.Used{Gate: g.id, Tokens: make([]int64, len(req.Ports))}
	g.memory.mu.RLock()
	answer.AsOf = g.memory.age()
	for i, id := range req.Ports {
		if p, ok := g.memory.ports.get(id); ok {
			answer.Tokens[i] = p.between(ledger.Day(req.Start), ledger.Day(req.End))
		}
	}
	g.memory.mu.RUnlock()
	if body, err := bus.Encode(answer); err == nil {
		g.service.Publish(msg.Reply, body)
	}
}

func (g *Gate) loaded() bool {
	select {
	case <-g.ready:
		return true
	default:
		return false
	}
}

// resyncUntilLoaded reads everything for the first time, as often as it takes.
func (g *Gate) resyncUntilLoaded(ctx context.Context) error {
	for {
		err := g.readHolds(ctx) // first, since it tells the time
		if err == nil {
			_, err = g.resync(ctx)
		}
		if err == nil && g.memory.hasLimits() {
			err = g.readHolds(ctx) // now that it is known which limits calls under way count in
		}
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		g.log.Warn("the gate cannot load its totals yet, trying again", "error", err)
		pause(ctx, time.Second)
	}
}

// keepInSync reads everything again when a notice was missed, when no consumer
// is heard, and every now and then.
func (g *Gate) keepInSync(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	lastRead, took := g.cfg.Now(), time.Duration(0)
	ended := time.Now()
	for {
		cause := ""
		select {
		case <-ctx.Done():
			return
		case <-g.hearing.Wake:
			cause = "gap"
			// Not all gates at once, and none all the time, however often something is missing.
			pause(ctx, max(rand.N(200*time.Millisecond), took-time.Since(ended)))
		case <-tick.C:
			now := g.cfg.Now()
			cause = due(now.Sub(lastRead), took, g.hearing.Silent(time.Now()))
			if g.caution.believes(now, g.cfg.Behind()) {
				cause = "lower"
			}
		}
		if cause == "" || ctx.Err() != nil {
			continue
		}
		begin := g.cfg.Now()
		var err error
		if took, err = g.resync(ctx); err != nil && ctx.Err() == nil {
			g.log.Warn("the gate cannot read the totals, trying again; it answers from memory", "as_of", g.AsOf(), "error", err)
			g.hearing.Missed()
			pause(ctx, time.Second)
		}
		lastRead, ended = begin, time.Now()
		g.metrics.resyncs.WithLabelValues(cause).Inc()
	}
}

// due is why everything is to be read again, if it is, after the last reading began
// that long ago. While no consumer is heard, what the gate knows grows old until it
// refuses: then even a slow reading, which may have been slow by accident, does not
// delay the next for longer than resyncEvery.
func due(since, took time.Duration, silent bool) (cause string) {
	switch {
	case since > max(resyncEvery, 20*took):
		return "periodic"
	case silent && since > max(bus.Silence, min(20*took, resyncEvery)):
		return "silence"
	}
	return ""
}

func (g *Gate) resync(ctx context.Context) (took time.Duration, err error) {
	began := time.Now()
	believed := g.caution.believes(g.cfg.Now(), g.cfg.Behind())
	reading := g.hearing.BeginReading(began)
	oldest := oldestDay(g.now())
	g.memory.beginReading(believed, oldest)
	asOf, err := g.cfg.Ledger.Snapshot(ctx, oldest, g.memory.readCounter, g.memory.readBudget, g.memory.readDays)
	if err != nil {
		g.memory.abandonReading()
		return time.Since(began), err
	}
	g.noteLower(g.cfg.Now(), believed, g.memory.endReading(asOf))
	g.memory.forgetWindows(g.now())
	g.hearing.EndReading(reading)
	g.considerAllAlerts(g.now())
	return time.Since(began), nil
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
