package cluster

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

const (
	tokens = 100 // of each call
	pause  = 30 * time.Millisecond
)

// output keeps what a program prints.
type output struct{ testenv.Buffer }

func (o *output) tail() string {
	text := o.String()
	return text[max(0, len(text)-4000):]
}

// gaps remembers the longest time without an answer.
type gaps struct {
	mu      sync.Mutex
	last    time.Time
	longest time.Duration
	err     error // the last, for whoever reads a failed test
}

func (g *gaps) note(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		g.err = err
		return
	}
	now := time.Now()
	if !g.last.IsZero() {
		g.longest = max(g.longest, now.Sub(g.last))
	}
	g.last = now
}

// begin forgets what was.
func (g *gaps) begin() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last, g.longest = time.Now(), 0
}

func (g *gaps) most() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return max(g.longest, time.Since(g.last))
}

// load is services at work: at each node one that checks, one that reserves and settles,
// as port p1, and one that only reports, as port p2.
type load struct {
	t          *testing.T
	checks     []*gaps
	reserves   []*gaps
	conns      []*nats.Conn // of the services of p1, the i-th two at the i-th node while that is there
	publishers []*events.Publisher
	reported   atomic.Int64 // events of p2 that were acknowledged

	working sync.RWMutex // held to stop those who spend
}

func startLoad(n *nodes) *load {
	l := &load{t: n.t}
	ctx, stop := context.WithCancel(context.Background())
	var group sync.WaitGroup
	n.t.Cleanup(func() {
		stop()
		group.Wait()
		for _, p := range l.publishers {
			_ = p.Close(ctx)
		}
	})
	forever := func(do func()) {
		group.Go(func() {
			for ctx.Err() == nil {
				do()
				select {
				case <-ctx.Done():
				case <-time.After(pause):
				}
			}
		})
	}
	for i := range n.addrs {
		checking, reserving := n.connect("p1", i, events.PortInbox("p1")), n.connect("p1", i, events.PortInbox("p1"))
		reporting := testenv.Must(events.NewPublisher(n.connect("admin", i), events.PublisherConfig{}))
		settling := testenv.Must(events.NewPublisher(reserving, events.PublisherConfig{}))
		checker := testenv.Must(events.NewClient(checking, events.ClientConfig{WhenUnavailable: events.FailClosed}))
		reserver := testenv.Must(events.NewClient(reserving, events.ClientConfig{WhenUnavailable: events.FailClosed, Publisher: settling}))
		check, reserve := new(gaps), new(gaps)
		l.checks, l.reserves, l.conns = append(l.checks, check), append(l.reserves, reserve), append(l.conns, checking, reserving)
		l.publishers = append(l.publishers, settling, reporting)
		forever(func() {
			v, err := checker.Check(ctx, events.CheckRequest{PortID: "p1", EstimatedTokens: tokens})
			if err == nil && v.Reason == events.ReasonGateStale {
				err = errors.New("the gate is stale")
			}
			check.note(err)
		})
		forever(func() {
			l.working.RLock()
			defer l.working.RUnlock()
			r, err := reserver.Reserve(ctx, events.ReserveRequest{PortID: "p1", EstimatedTokens: tokens, TTLSeconds: 60})
			reserve.note(err)
			if err == nil && r.Allowed {
				r.Settle(events.Usage{Feature: "ocr", Provider: "openai", Model: "gpt-5-mini", InputTokens: tokens})
			}
		})
		forever(func() {
			l.working.RLock()
			defer l.working.RUnlock()
			if reporting.Publish(ctx, []events.Usage{{PortID: "p2", Feature: "ocr", Provider: "openai", Model: "gpt-5-mini", InputTokens: tokens}}) == nil {
				l.reported.Add(1)
			}
		})
	}
	return l
}

func (l *load) begin() {
	for _, g := range append(l.checks, l.reserves...) {
		g.begin()
	}
}

// longest is the longest gap of any.
func longest(all []*gaps) (most time.Duration) {
	for _, g := range all {
		most = max(most, g.most())
	}
	return most
}

// rest stops those who spend, until everything that they reported is acknowledged, and says how
// many events that are of each port. They go on after [load.work].
func (l *load) rest() (p1, p2 int64) {
	l.t.Helper()
	l.working.Lock()
	ctx, cancel := context.WithTimeout(l.t.Context(), time.Minute)
	defer cancel()
	for _, p := range l.publishers {
		if err := p.Flush(ctx); err != nil {
			l.t.Errorf("not everything is acknowledged: %v", err)
		}
		if s := p.Stats(); s.Dropped > 0 {
			l.t.Errorf("a publisher gave up %d events", s.Dropped)
		}
	}
	for i := 0; i < len(l.publishers); i += 2 {
		p1 += int64(l.publishers[i].Stats().Published)
	}
	return p1, l.reported.Load()
}

func (l *load) work() { l.working.Unlock() }
