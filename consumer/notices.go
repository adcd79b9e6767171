package consumer

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

const noticePorts = 4_000 // entries in one notice: some 150 KiB, far below max_payload

// notices tells the gates what commits changed. A notice that gets lost leaves a
// gap in the numbers, which the gates notice by the next heartbeat.
type notices struct {
	conn *nats.Conn
	from string
	now  func() time.Time // the database's clock: what gates read of the totals bears its time

	mu      sync.Mutex
	seq     uint64
	booking map[int]time.Time // writers that are booking now, since when
}

// begin and end surround a booking and the telling of it: a commit may happen
// anywhere between, so that meanwhile no notice may claim a later time. A booking of
// which nobody knows whether it was committed does not end.
func (n *notices) begin(writer int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.booking == nil {
		n.booking = map[int]time.Time{}
	}
	if _, undecided := n.booking[writer]; !undecided {
		n.booking[writer] = n.now()
	}
}

func (n *notices) end(writer int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.booking, writer)
}

func (n *notices) send(days []ledger.PortDay) {
	for len(days) > 0 {
		some := days[:min(noticePorts, len(days))]
		days = days[len(some):]
		notice := events.TotalsNotice{
			Ports:  make([]string, len(some)),
			Days:   make([]int32, len(some)),
			Tokens: make([]int64, len(some)),
		}
		for i, d := range some {
			notice.Ports[i], notice.Days[i], notice.Tokens[i] = d.PortID, int32(d.Day), d.TotalTokens
		}
		n.publish(notice)
	}
}

// goodbye tells the gates that this consumer has ended, unless it may have committed
// something that it cannot tell: then it is one that vanished.
func (n *notices) goodbye() {
	n.mu.Lock()
	undecided := len(n.booking) > 0
	n.mu.Unlock()
	if !undecided {
		n.publish(events.TotalsNotice{Last: true})
	}
}

func (n *notices) publish(notice events.TotalsNotice) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seq++
	notice.From, notice.Seq, notice.At = n.from, n.seq, n.now()
	for _, since := range n.booking {
		if since.Before(notice.At) {
			notice.At = since
		}
	}
	if body, err := notice.Encode(); err == nil {
		_ = n.conn.Publish(events.SubjectTotals, body) // a lost one is a gap
	}
}

// beat sends a heartbeat every second.
func (c *Consumer) beat(ctx context.Context) {
	every(ctx, events.HeartbeatEvery, func() { c.notices.publish(events.TotalsNotice{}) })
}

// followClock reads the database's clock. A query of its own is answered sooner, and so
// tells the time better, than one that does something else.
func (c *Consumer) followClock(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, prepareTimeout)
	defer cancel()
	asked := c.cfg.Now()
	at, err := c.cfg.Ledger.Now(ctx)
	if err == nil {
		c.clock.Hear(asked, c.cfg.Now(), at)
	}
	return err
}
