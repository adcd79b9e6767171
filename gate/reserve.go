package gate

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/bus"
	"github.com/tidegate/tidegate/internal/killpoint"
	"github.com/tidegate/tidegate/internal/reservation/broker"
	"github.com/tidegate/tidegate/internal/reservation/hold"
)

// newBroker makes what holds are made by; see [Gate.reservations].
func (g *Gate) newBroker(store broker.Backend) *broker.Broker {
	return broker.NewBroker(broker.Config{
		Store: store, LeaseFrom: g.cfg.LeaseFrom, Timeout: g.cfg.ReserveTimeout, Now: g.now, Port: g.memory.lookup, Counts: g.memory.counts, Withheld: g.withheld, Tell: g.tellHolds,
		Took: func(took time.Duration) { g.metrics.reserveSeconds.Observe(took.Seconds()) }, Log: g.log,
	})
}

// reserve hands a reservation to the broker, which answers it.
func (g *Gate) reserve(base string) micro.HandlerFunc {
	return func(req micro.Request) {
		reply := req.Reply()
		var r events.ReserveRequest
		if _, err := events.DecodeRequest(base, req.Subject(), req.Data(), &r); err != nil {
			g.service.Fault(reply, err)
			return
		}
		r.EstimatedTokens = r.Call().Tokens
		span := g.trace(req, "reserve")
		g.reservations.Hold(r, func(v *events.Verdict, err error) {
			defer endTrace(span, err)
			if err != nil {
				g.service.Fault(reply, err)
				return
			}
			g.metrics.countReserve(v, r.EstimatedTokens)
			describe(span, v)
			if !v.Allowed {
				g.noteRefusal(r.PortID, v)
			}
			buf := buffers.Get().(*[]byte)
			*buf = v.AppendJSON((*buf)[:0])
			g.service.Publish(reply, *buf)
			buffers.Put(buf)
		})
	}
}

// release hands the end of a hold to the broker, which answers it.
func (g *Gate) release(base string) micro.HandlerFunc {
	return func(req micro.Request) {
		reply := req.Reply()
		var r events.ReleaseRequest
		if _, err := events.DecodeRequest(base, req.Subject(), req.Data(), &r); err != nil {
			g.service.Fault(reply, err)
			return
		}
		g.reservations.Release(hold.ID{PortID: r.PortID, ReservationID: r.ReservationID}, func(released bool, err error) {
			if err != nil {
				g.service.Fault(reply, err)
				return
			}
			if released {
				g.metrics.released.Inc()
			}
			g.service.Send(reply, events.Released{Released: released})
		})
	}
}

// tellHolds lets all gates count holds in their checks, and return what they have leased
// of ports.
func (g *Gate) tellHolds(standings []hold.Standing, revoke []string) {
	n := bus.Holds{Recall: revoke}
	for _, s := range standings {
		n.Ports, n.Tokens, n.At = append(n.Ports, s.PortID), append(n.Tokens, min(s.Held, bus.MaxTokens)), append(n.At, s.At.UnixMicro())
	}
	_ = bus.Tell(g.cfg.Conn, n) // a lost one heals by the next reading, or when it is told again
}

func (g *Gate) hearHolds(msg *nats.Msg) {
	n, _, ok := decoded[bus.Holds](g, msg)
	if !ok {
		return
	}
	standings := make([]hold.Standing, len(n.Ports))
	for i, port := range n.Ports {
		standings[i] = hold.Standing{PortID: port, Held: n.Tokens[i], At: time.UnixMicro(n.At[i]).UTC()}
	}
	g.reservations.Hear(standings)
	for _, port := range n.Recall {
		g.reservations.Revoke(port, broker.RevokedFor)
	}
}

// followEvery is how often the gate reads all live holds, so that check counts
// them. It waits 20 times as long as the last reading took, but no longer than
// followAtMost: that one may have been slow by accident.
const (
	followEvery  = 250 * time.Millisecond
	followAtMost = 2 * time.Second
)

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
	asked := g.cfg.Now()
	at, err := g.reservations.Read(ctx)
	if err != nil {
		return err
	}
	if g.memory.hasLimits() {
		list, err := g.cfg.Ledger.Reservations.UnderWay(ctx)
		if err != nil {
			return err
		}
		g.reservations.WithoutSpare(list)
		g.memory.setUnderWay(list, at)
	}
	g.followClock(asked, g.cfg.Now(), at)
	g.heldRead.Store(time.Now().UnixNano())
	return nil
}
