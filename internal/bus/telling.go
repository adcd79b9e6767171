package bus

import (
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"github.com/tidegate/tidegate/ledger"
)

// HeartbeatEvery is how often a consumer tells the gates something, if only that it is there.
const HeartbeatEvery = time.Second

// What one message tells at most: some 150 KiB, far below max_payload.
const (
	portsTold    = 4_000
	countersTold = 1_000
)

// Telling is the consumer's side of [Totals]: it tells the gates what commits changed. A
// message that gets lost leaves a gap in the numbers, which the gates notice by the next
// heartbeat.
type Telling struct {
	conn *nats.Conn
	from string
	now  func() time.Time

	mu      sync.Mutex
	seq     uint64
	booking map[int]time.Time // writers that are booking now, since when
}

// NewTelling returns one of a new consumer. now is the database's clock: what gates read
// of the totals bears its time.
func NewTelling(conn *nats.Conn, now func() time.Time) *Telling {
	return &Telling{conn: conn, from: nuid.Next(), now: now, booking: map[int]time.Time{}}
}

// Begin and [Telling.End] surround a booking and the telling of it: a commit may happen
// anywhere between, so that meanwhile no message may claim a later time. A booking of
// which nobody knows whether it was committed does not end.
func (n *Telling) Begin(writer int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, undecided := n.booking[writer]; !undecided {
		n.booking[writer] = n.now()
	}
}

// End ends what [Telling.Begin] began.
func (n *Telling) End(writer int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.booking, writer)
}

// Heartbeat says that this consumer is there.
func (n *Telling) Heartbeat() { n.publish(Totals{}) }

// Send tells what a commit changed.
func (n *Telling) Send(days []ledger.PortDay, counters []ledger.Counter) {
	for some := range slices.Chunk(days, portsTold) {
		t := Totals{Ports: make([]string, len(some)), Days: make([]int32, len(some)), Tokens: make([]int64, len(some))}
		for i, d := range some {
			t.Ports[i], t.Days[i], t.Tokens[i] = d.PortID, int32(d.Day), min(d.TotalTokens, MaxTokens)
		}
		n.publish(t)
	}
	for some := range slices.Chunk(counters, countersTold) {
		t := Totals{Limits: make([]LimitUsed, len(some))}
		for i, c := range some {
			t.Limits[i] = LimitUsed{c.PortID, int64(c.Counter), c.Value, c.Start.Unix(), c.Used}
		}
		n.publish(t)
	}
}

// ReadAgain makes the gates read everything again, as soon as they hear of this consumer next:
// what was booked may be less than they knew. They find a number missing.
func (n *Telling) ReadAgain() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seq++
}

// Goodbye tells the gates that this consumer has ended, unless it may have committed
// something that it cannot tell: then it is one that vanished.
func (n *Telling) Goodbye() {
	n.mu.Lock()
	undecided := len(n.booking) > 0
	n.mu.Unlock()
	if !undecided {
		n.publish(Totals{Last: true})
	}
}

func (n *Telling) publish(t Totals) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seq++
	t.From, t.Seq, t.At = n.from, n.seq, n.now()
	for _, since := range n.booking {
		if since.Before(t.At) {
			t.At = since
		}
	}
	_ = Tell(n.conn, t) // a lost one is a gap
}
