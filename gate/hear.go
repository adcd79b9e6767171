package gate

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/inbox"
	"github.com/tidegate/tidegate/internal/reservation"
	"github.com/tidegate/tidegate/ledger"
)

// resyncEvery is how often the gate reads all totals again even if it missed
// nothing; see [due].
const resyncEvery = time.Minute

const flushTimeout = time.Second

// listen subscribes to everything that changes what the gate remembers.
func (g *Gate) listen(ctx context.Context) error {
	g.hearing.begin(time.Now())
	for subject, handler := range map[string]nats.MsgHandler{
		events.SubjectTotals:   g.hearTotals,
		events.SubjectBudgets:  g.hearBudget,
		events.SubjectHolds:    g.hearHolds,
		events.SubjectGateUsed: g.tellUsed,
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
		g.hearing.begin(time.Now())
		g.missedSomething() // whatever was published meanwhile
	})
	return g.flush(ctx)
}

// flush returns when the server has everything that was sent to it. It may not be there
// yet: then there is nobody to answer either.
func (g *Gate) flush(ctx context.Context) error {
	for {
		err := g.cfg.Conn.FlushTimeout(flushTimeout)
		if err == nil || g.cfg.Conn.IsClosed() {
			return err
		}
		pause(ctx, 50*time.Millisecond)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func (g *Gate) hearTotals(msg *nats.Msg) {
	now := g.now()
	n, err := events.DecodeTotalsNotice(msg.Data)
	if err == nil {
		err = n.Validate(now)
	}
	if g.ignores(msg, err) {
		return
	}
	told := g.hearing.note(n, time.Now())
	if told.After(now) {
		told = now
	}
	g.memory.applyTotals(n, oldestDay(now), told)
	for _, port := range n.Ports {
		g.considerAlert(port, now)
	}
	for _, port := range n.Deleted {
		g.reservations.Revoke(port, reservation.RevokedFor) // also what is on its way
	}
}

// ignores takes note of a message that cannot be read or is out of bounds, if err says so.
// It is as if it had not come: what a consumer tells next shows that one is missing.
func (g *Gate) ignores(msg *nats.Msg, err error) bool {
	if err == nil {
		return false
	}
	g.metrics.ignored.WithLabelValues(msg.Subject).Inc()
	if now, last := time.Now().UnixNano(), g.warned.Load(); now-last > int64(time.Minute) && g.warned.CompareAndSwap(last, now) {
		g.log.Warn("a message to gates is ignored, and maybe others like it; the next reading of the ledger has what is true", "subject", msg.Subject, "error", err)
	}
	return true
}

func (g *Gate) missedSomething() { g.hearing.missedSomething() }

func (g *Gate) hearBudget(msg *nats.Msg) {
	var n events.BudgetNotice
	err := json.Unmarshal(msg.Data, &n)
	if err == nil {
		err = n.Validate(g.now())
	}
	if g.ignores(msg, err) {
		return
	}
	g.memory.applyBudget(n.PortID, n.Budget)
	g.reservations.Revoke(n.PortID, 0) // they were granted under the old one
	g.considerAlert(n.PortID, g.now())
}

// tellUsed answers an operator's verification.
func (g *Gate) tellUsed(msg *nats.Msg) {
	var req events.GateUsedRequest
	err := json.Unmarshal(msg.Data, &req)
	if err == nil {
		err = req.Validate(g.now())
	}
	if g.ignores(msg, err) || !g.loaded() || !inbox.Allowed(msg.Reply) {
		return
	}
	answer := events.GateUsed{Gate: g.id, Tokens: make([]int64, len(req.Ports))}
	g.memory.mu.RLock()
	answer.AsOf = g.memory.age()
	for i, id := range req.Ports {
		if p, ok := g.memory.ports.get(id); ok {
			answer.Tokens[i] = p.between(ledger.Day(req.Start), ledger.Day(req.End))
		}
	}
	g.memory.mu.RUnlock()
	g.sent(inbox.Send(g.cfg.Conn, msg.Reply, answer))
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
		case <-g.hearing.wake:
			cause = "gap"
			// Not all gates at once, and none all the time, however often something is missing.
			pause(ctx, max(rand.N(200*time.Millisecond), took-time.Since(ended)))
		case <-tick.C:
			now := g.cfg.Now()
			cause = due(now.Sub(lastRead), took, g.hearing.silent(time.Now()))
		}
		if cause == "" || ctx.Err() != nil {
			continue
		}
		begin := g.cfg.Now()
		var err error
		if took, err = g.resync(ctx); err != nil && ctx.Err() == nil {
			g.log.Warn("the gate cannot read the totals, trying again; it answers from memory", "as_of", g.AsOf(), "error", err)
			g.missedSomething()
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
	case silent && since > max(silence, min(20*took, resyncEvery)):
		return "silence"
	}
	return ""
}

func (g *Gate) resync(ctx context.Context) (took time.Duration, err error) {
	began := time.Now()
	reading := g.hearing.beginReading(began)
	g.memory.beginReading()
	oldest := oldestDay(g.now())
	asOf, err := g.cfg.Ledger.Snapshot(ctx, oldest, g.memory.readBudget, func(days []ledger.PortDay) {
		g.memory.readDays(days[0].PortID, days)
	})
	if err != nil {
		g.memory.abandonReading()
		return time.Since(began), err
	}
	g.memory.endReading(asOf, oldest)
	g.hearing.endReading(reading)
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
