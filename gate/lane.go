package gate

import (
	"context"
	"hash/fnv"
	"sync"
	"time"

	"github.com/nats-io/nats.go/micro"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/inbox"
	"github.com/tidegate/tidegate/ledger"
)

// A lane takes requests that need Postgres together: those that wait at the same
// moment are decided in one transaction. A port always takes the same lane, so
// that lanes of one gate do not wait for each other's locks.
type lane struct {
	reserves chan reserveTask
	releases chan releaseTask
}

type reserveTask struct {
	reply   string
	request events.ReserveRequest
	at      time.Time // when it arrived
}

type releaseTask struct {
	reply string
	hold  ledger.Hold
}

const (
	laneCount = 2     // transactions at a time: one waits for its commit, one works
	laneWaits = 8_192 // requests that may wait in a lane; more are told to try again
	laneBatch = 256   // requests in one transaction

	// wantsWait is how long a port that needs its next slice waits for others to share the
	// transaction. Its present slice lasts for longer, as a rule.
	wantsWait = 25 * time.Millisecond
)

// startLanes starts the lanes' goroutines. The function it returns ends them:
// it returns after every request they took is answered.
func (g *Gate) startLanes(ctx context.Context) (stop func()) {
	var group sync.WaitGroup
	for range laneCount {
		l := &lane{reserves: make(chan reserveTask, laneWaits), releases: make(chan releaseTask, laneWaits)}
		g.lanes = append(g.lanes, l)
		group.Go(func() { drive(l.reserves, 0, func(tasks []reserveTask) { g.reserveAll(ctx, tasks, nil) }) })
		group.Go(func() { drive(l.releases, 0, func(tasks []releaseTask) { g.releaseAll(ctx, tasks) }) })
	}
	g.wants = make(chan string, laneWaits)
	group.Go(func() { drive(g.wants, wantsWait, func(ports []string) { g.reserveAll(ctx, nil, ports) }) })
	return func() {
		for _, l := range g.lanes {
			close(l.reserves)
			close(l.releases)
		}
		close(g.wants)
		group.Wait()
	}
}

// drive hands on whatever waits, a while after something does, until tasks is closed.
func drive[T any](tasks <-chan T, while time.Duration, together func([]T)) {
	var batch []T
	for first := range tasks {
		batch = append(batch[:0], first)
		time.Sleep(while)
	gather:
		for len(batch) < laneBatch {
			select {
			case next, ok := <-tasks:
				if !ok {
					break gather
				}
				batch = append(batch, next)
			default:
				break gather
			}
		}
		together(batch)
	}
}

func (g *Gate) laneOf(port string) *lane {
	h := fnv.New32a()
	_, _ = h.Write([]byte(port))
	return g.lanes[h.Sum32()%uint32(len(g.lanes))]
}

// reserve answers from a slice, or queues the reservation and its lane answers.
func (g *Gate) reserve(base string) micro.HandlerFunc {
	return func(req micro.Request) {
		var r events.ReserveRequest
		if !g.accept(base, req, &r, func() error { return r.Validate() }) {
			return
		}
		if v, ok := g.reserveHere(&r); ok {
			g.metrics.fromSlices.Inc()
			buf := buffers.Get().(*[]byte)
			*buf = g.answer(reserveTask{reply: req.Reply(), request: r}, &v, *buf)
			buffers.Put(buf)
		} else {
			enqueue(g, req.Reply(), g.laneOf(r.PortID).reserves, reserveTask{req.Reply(), r, time.Now()})
		}
	}
}

// release queues the end of a hold; its lane answers.
func (g *Gate) release(base string) micro.HandlerFunc {
	return func(req micro.Request) {
		var r events.ReleaseRequest
		if g.accept(base, req, &r, func() error { return r.Validate() }) {
			enqueue(g, req.Reply(), g.laneOf(r.PortID).releases, releaseTask{req.Reply(), ledger.Hold{PortID: r.PortID, ReservationID: r.ReservationID}})
		}
	}
}

// accept decodes a request that a lane is to answer. It reports false, having
// answered with a fault where an answer can go, when there is nothing to do.
func (g *Gate) accept(base string, req micro.Request, into any, validate func() error) bool {
	if !inbox.Allowed(req.Reply()) {
		g.metrics.unrepliable.Inc()
		return false
	}
	_, err := events.DecodeRequest(base, req.Subject(), req.Data(), into)
	if err == nil {
		err = validate()
	}
	if err != nil {
		g.fault(req.Reply(), err)
		return false
	}
	return true
}

// enqueue never waits: who finds no place is told to try again.
func enqueue[T any](g *Gate, reply string, queue chan<- T, task T) {
	queued := false
	open := g.intake.Take(func() {
		select {
		case queue <- task:
			queued = true
		default:
		}
	})
	switch {
	case !open:
		g.fault(reply, errStopping)
	case !queued:
		g.fault(reply, errBusy)
	}
}
