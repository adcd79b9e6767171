// Package broker is a gate's memory of reservations: it makes holds from the gate's leases, has
// package reservation decide what these do not serve, and knows what is held of each port.
package broker

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/intake"
	"github.com/tidegate/tidegate/internal/killpoint"
	"github.com/tidegate/tidegate/internal/reservation"
	"github.com/tidegate/tidegate/internal/reservation/hold"
)

// Backend is what a broker needs of a [reservation.Store].
type Backend interface {
	Hold(ctx context.Context, requests []events.ReserveRequest, wants []reservation.Want) (*reservation.Held, error)
	Release(ctx context.Context, holds []hold.ID) (released []bool, err error)
	Return(ctx context.Context, list []hold.Returned) (done map[uuid.UUID]time.Time, err error)
	Standings(ctx context.Context) (list []hold.Standing, at time.Time, err error)
}

// Config makes a [Broker].
type Config struct {
	Store     Backend
	LeaseFrom int           // reservations of a port, for one feature and lifetime, that are worth a lease, within lookBack times demandFor; negative: none are
	Timeout   time.Duration // of a transaction, and of what waits for one
	Now       func() time.Time
	// Port is what is known of a port: its rule, what it has used in the current period, when
	// that began, and up to when all of this is known.
	Port func(port string, now time.Time) (rule *budget.Rule, used int64, start, asOf time.Time)
	// Counts tells what is known of a port's limits.
	Counts func(port string) budget.Counts
	// Withheld says why no tokens of a port can be held now, nil where they can.
	Withheld func(port string) error
	// Tell tells all gates, by [Broker.Hear] and [Broker.Revoke], what ports' holds add up
	// to now, and of which ports they are to return what they have leased.
	Tell func(standings []hold.Standing, revoke []string)
	Took func(time.Duration) // hears how long a transaction took that decided reservations
	Log  *slog.Logger
}

// Broker makes holds for the callers of one gate: from leases, in memory, or in Postgres,
// where those that wait at the same moment are decided in one transaction.
type Broker struct {
	cfg       Config
	intake    intake.Intake
	tasks     sync.WaitGroup                 // that queue reservations again
	holds     [queues]*intake.Fair[*holding] // ports take turns
	releases  [queues]*intake.Fair[*releasing]
	ahead     chan reservation.Want // of leases that follow others, which are nearly used up
	returning sync.Mutex            // while what is held is read or leases are returned: a reading has seen all of that or nothing
	due       chan struct{}         // leases are to be returned

	mu     sync.Mutex
	leases leases
	known  known

	FromLeases, Granted atomic.Int64 // holds made in memory; leases granted
}

// holding is a reservation on its way to Postgres.
type holding struct {
	request events.ReserveRequest
	answer  func(*events.Verdict, error)
	at      time.Time // when it came
}

type releasing struct {
	id     hold.ID
	answer func(released bool, err error)
}

const (
	// A port always takes the same queue, so that the transactions of one gate do not
	// wait for each other's locks. One waits for its commit, one works.
	queues      = 2
	queueLength = 8_192 // more are told to try again
	together    = 256   // requests in one transaction
	// aheadWait is how long a port that needs its next lease waits for others to share
	// the transaction. Its present lease lasts for longer, as a rule.
	aheadWait = 25 * time.Millisecond
	// revokeFor is how long a reservation waits, before it is refused, for what gates
	// have leased of its port; revokePause is how long at first, before it looks again.
	revokeFor   = 400 * time.Millisecond
	revokePause = 5 * time.Millisecond
)

// NewBroker returns a broker, which takes requests once it is started.
func NewBroker(cfg Config) *Broker {
	b := &Broker{cfg: cfg, ahead: make(chan reservation.Want, queueLength), due: make(chan struct{}, 1)}
	b.leases.ports, b.leases.open = map[string]*portLeases{}, map[*demand]struct{}{}
	for i := range queues {
		b.holds[i], b.releases[i] = intake.NewFair[*holding](queueLength), intake.NewFair[*releasing](queueLength)
	}
	return b
}

// Start begins to answer. The function it returns ends that: it returns once every
// request that was taken is answered and, as far as Postgres lets it within a moment, all
// leases are returned.
func (b *Broker) Start(ctx context.Context) (stop func()) {
	var deciding, returning sync.WaitGroup
	for i := range queues {
		deciding.Go(func() { b.holds[i].Gather(together, func(some []*holding) { b.decide(ctx, some, nil) }) })
		deciding.Go(func() { b.releases[i].Gather(together, func(some []*releasing) { b.release(ctx, some) }) })
	}
	deciding.Go(func() {
		intake.Gather(b.ahead, together, aheadWait, func(some []reservation.Want) { b.decide(ctx, nil, some) })
	})
	until, end := context.WithCancel(ctx)
	returning.Go(func() { b.returnLeases(until) })
	return func() {
		b.intake.Close()
		b.tasks.Wait()
		for i := range queues {
			b.holds[i].Close()
			b.releases[i].Close()
		}
		close(b.ahead)
		deciding.Wait()
		end()
		returning.Wait()
		b.RevokeAll()
		for end := time.Now().Add(b.cfg.Timeout); b.returnSome(ctx) && time.Now().Before(end); {
			time.Sleep(revokePause)
		}
	}
}

// Hold answers a reservation: at once where a lease serves it, later otherwise.
func (b *Broker) Hold(q events.ReserveRequest, answer func(*events.Verdict, error)) {
	if v, ok := b.holdFromLease(&q); ok {
		b.FromLeases.Add(1)
		answer(&v, nil)
		return
	}
	b.queue(&holding{request: q, answer: answer, at: time.Now()})
}

func (b *Broker) queue(h *holding) {
	enqueue(b, &b.holds, h.request.PortID, h, func(h *holding, err error) { h.answer(nil, err) })
}

// Release answers whether there was such a hold, which there is no more.
func (b *Broker) Release(id hold.ID, answer func(released bool, err error)) {
	enqueue(b, &b.releases, id.PortID, &releasing{id, answer}, func(r *releasing, err error) { r.answer(false, err) })
}

// enqueue never waits: whoever finds no place, or loses it to others, is told to try again.
func enqueue[T any](b *Broker, to *[queues]*intake.Fair[T], port string, task T, refuse func(T, error)) {
	open := b.intake.Take(func() {
		if away, full := to[uint64(hold.PortLocks(port)[0])%queues].Put(port, task); full {
			refuse(away, intake.ErrBusy)
		}
	})
	if !open {
		refuse(task, intake.ErrStopping)
	}
}

// decide decides reservations in one transaction, which also gets leases where they are
// in demand, and answers each. Callers that have been waiting for longer than the timeout
// have given up: holding tokens for them would only keep others from spending.
func (b *Broker) decide(ctx context.Context, some []*holding, ahead []reservation.Want) {
	start := time.Now()
	var live []*holding
	var requests []events.ReserveRequest
	for _, h := range some {
		if start.Sub(h.at) > b.cfg.Timeout {
			h.answer(nil, intake.ErrBusy)
		} else if err := b.cfg.Withheld(h.request.PortID); err != nil {
			h.answer(nil, err)
		} else {
			live, requests = append(live, h), append(requests, h.request)
		}
	}
	wants, readings := b.wants(ahead, requests, start)
	if len(requests)+len(wants) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
	defer cancel()
	held, err := b.cfg.Store.Hold(ctx, requests, wants)
	b.cfg.Took(time.Since(start))
	if err != nil {
		b.cfg.Log.Warn("reservations cannot be made; their callers' policy decides", "requests", len(requests), "error", err)
		if held != nil {
			b.doubt(held.Leases, time.Now())
		}
		for _, h := range live {
			h.answer(nil, err)
		}
		return
	}
	killpoint.Here("reserve-answer")
	b.install(held, readings, start)
	b.cfg.Tell(held.Standings, nil)
	b.answerAll(live, held)
}

// answerAll answers all but those that would be refused for what gates may return: these
// are decided again in a moment.
func (b *Broker) answerAll(some []*holding, held *reservation.Held) {
	var again []int
	var revoke []string
	for i, h := range some {
		if held.Leased[i] && time.Since(h.at) < revokeFor {
			again, revoke = append(again, i), append(revoke, h.request.PortID)
		} else {
			h.answer(&held.Verdicts[i], held.Faults[i])
		}
	}
	if len(again) == 0 {
		return
	}
	revoke = slices.Compact(slices.Sorted(slices.Values(revoke)))
	for _, port := range revoke {
		b.Revoke(port, RevokedFor)
	}
	b.cfg.Tell(nil, revoke)
	open := b.intake.Take(func() {
		b.tasks.Go(func() {
			time.Sleep(max(revokePause, time.Since(some[again[0]].at)/2)) // a gate that was killed never answers
			for _, i := range again {
				b.queue(some[i])
			}
		})
	})
	if !open {
		for _, i := range again {
			some[i].answer(&held.Verdicts[i], nil)
		}
	}
}

func (b *Broker) release(ctx context.Context, some []*releasing) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
	defer cancel()
	ids := make([]hold.ID, len(some))
	for i, r := range some {
		ids[i] = r.id
	}
	released, err := b.cfg.Store.Release(ctx, ids)
	for i, r := range some {
		r.answer(err == nil && released[i], err)
	}
}
