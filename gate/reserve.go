package gate

import (
	"context"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/bus"
	"github.com/tidegate/tidegate/internal/inbox"
	"github.com/tidegate/tidegate/internal/killpoint"
	"github.com/tidegate/tidegate/ledger"
)

// followEvery is how often the gate reads all live holds, so that check counts
// them. It waits 20 times as long as the last reading took, but no longer than
// followAtMost: that one may have been slow by accident.
const (
	followEvery  = 250 * time.Millisecond
	followAtMost = 2 * time.Second
)

// reserveAll decides waiting reservations in one transaction, which also gets
// slices for their ports, and the given ones, where they are in demand, and answers
// each. Callers that have been waiting for longer than ReserveTimeout have given up:
// holding tokens for them would only keep others from spending.
func (g *Gate) reserveAll(ctx context.Context, tasks []reserveTask, ports []string) {
	live := tasks[:0]
	requests := make([]events.ReserveRequest, 0, len(tasks))
	for _, t := range tasks {
		if time.Since(t.at) > g.cfg.ReserveTimeout {
			g.fault(t.reply, errBusy)
			continue
		}
		if err := g.withheld(t.request.PortID); err != nil {
			g.fault(t.reply, err)
			continue
		}
		live = append(live, t)
		requests, ports = append(requests, t.request), append(ports, t.request.PortID)
	}
	slices.Sort(ports)
	start := time.Now()
	wants := g.leases.wants(slices.Compact(ports), start)
	if g.cfg.Behind() != nil {
		wants = nil
	}
	if len(live)+len(wants) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, g.cfg.ReserveTimeout)
	defer cancel()
	reserved, err := g.cfg.Ledger.Reserve(ctx, requests, wants)
	g.metrics.reserveSeconds.Observe(time.Since(start).Seconds())
	if err != nil {
		g.log.Warn("reservations cannot be made; their callers' policy decides", "requests", len(live), "error", err)
		if reserved != nil {
			g.leases.doubt(reserved.Slices, time.Now())
		}
		for _, t := range live {
			g.fault(t.reply, err)
		}
		return
	}
	killpoint.Here("reserve-answer")
	g.tellHolds(reserved.Standings, start)
	g.leases.install(reserved.Slices, start, g.memory.version)
	g.metrics.granted.Add(float64(len(reserved.Slices)))
	g.answerAll(live, reserved)
}

// answerAll sends verdicts, or the faults there are instead, except for those that would refuse what another gate may
// give back.
func (g *Gate) answerAll(tasks []reserveTask, r *ledger.Reserved) {
	var body []byte
	var again []reserveTask
	var refusals []*events.Verdict
	for i, t := range tasks {
		if r.Faults[i] != nil {
			g.fault(t.reply, r.Faults[i])
			continue
		}
		if r.Leased[i] && time.Since(t.at) < recallFor {
			again, refusals = append(again, t), append(refusals, &r.Verdicts[i])
			continue
		}
		body = g.answer(t, &r.Verdicts[i], body)
	}
	if len(again) > 0 && !g.recall(again) { // this gate is stopping
		for i, t := range again {
			body = g.answer(t, refusals[i], body)
		}
	}
}

func (g *Gate) answer(t reserveTask, v *events.Verdict, buf []byte) []byte {
	g.metrics.countReserve(v, t.request.EstimatedTokens)
	buf = v.AppendJSON(buf[:0])
	g.sent(inbox.Publish(g.cfg.Conn, t.reply, buf))
	return buf
}

// tellHolds lets this gate and all others count the holds in their checks.
func (g *Gate) tellHolds(standings []ledger.Standing, read time.Time) {
	n := bus.Holds{}
	ports := make(map[string]bool, len(standings))
	for _, s := range standings {
		ports[s.PortID] = true
		n.Ports, n.Tokens, n.At = append(n.Ports, s.PortID), append(n.Tokens, s.Held), append(n.At, s.At.UnixMicro())
	}
	g.leases.read(read, func(port string) bool { return ports[port] }, func() {
		for _, s := range standings {
			g.memory.tellHeld(s)
		}
	})
	g.publishHolds(n)
}

func (g *Gate) publishHolds(n bus.Holds) {
	_ = bus.Tell(g.cfg.Conn, n) // a lost one heals by the next reading, or the next recall
}

func (g *Gate) hearHolds(msg *nats.Msg) {
	n, _, ok := decoded[bus.Holds](g, msg)
	if !ok {
		return
	}
	for i, port := range n.Ports {
		g.memory.tellHeld(ledger.Standing{PortID: port, Held: n.Tokens[i], At: time.UnixMicro(n.At[i]).UTC()})
	}
	for _, port := range n.Recall {
		g.leases.recall(port, time.Now(), barFor)
	}
}

func (g *Gate) releaseAll(ctx context.Context, tasks []releaseTask) {
	ctx, cancel := context.WithTimeout(ctx, g.cfg.ReserveTimeout)
	defer cancel()
	holds := make([]ledger.Hold, len(tasks))
	for i, t := range tasks {
		holds[i] = t.hold
	}
	released, err := g.cfg.Ledger.Release(ctx, holds)
	for i, t := range tasks {
		if err != nil {
			g.fault(t.reply, err)
			continue
		}
		if released[i] {
			g.metrics.released.Inc()
		}
		g.sent(inbox.Send(g.cfg.Conn, t.reply, events.Released{Released: released[i]}))
	}
}

// followHolds keeps what check knows of holds and of the database's clock no older than
// a moment.
func (g *Gate) followHolds(ctx context.Context) {
	for ctx.Err() == nil {
		killpoint.Here("follow-holds")
		start := time.Now()
		if err := g.readHolds(ctx); err != nil && ctx.Err() == nil {
			g.log.Debug("holds cannot be read; checks count those known", "error", err)
		}
		pause(ctx, min(max(followEvery, 20*time.Since(start)), followAtMost))
	}
}

func (g *Gate) readHolds(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	g.holds.Lock()
	defer g.holds.Unlock()
	begun, asked := time.Now(), g.cfg.Now()
	list, at, err := g.cfg.Ledger.Standings(ctx)
	if err != nil {
		return err
	}
	g.followClock(asked, g.cfg.Now(), at)
	held := make(map[string]ledger.Standing, len(list))
	for _, s := range list {
		held[s.PortID] = s
	}
	g.leases.read(begun, func(string) bool { return true }, func() { g.memory.readHeld(held, at) })
	g.heldRead.Store(time.Now().UnixNano())
	return nil
}
