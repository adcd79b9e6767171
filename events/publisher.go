package events

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/time/rate"
)

// logEvery is how often the publisher repeats a complaint.
const logEvery = 10 * time.Second

// ErrPublisherClosed is what [Publisher.Publish] says after [Publisher.Close].
var ErrPublisherClosed = errors.New("events: the publisher is closed")

// ErrNotPermitted says that NATS forbids this user the subject of an event or a
// request: waiting does not mend that, granting publish on the subject does.
var ErrNotPermitted = errors.New("NATS does not permit this user to publish on that subject")

// PublisherConfig holds what may be left at its zero value throughout.
type PublisherConfig struct {
	// Buffer is how many recorded events may wait for their acknowledgement,
	// default 65,536. Full, Record drops and counts. An event takes about 0.5 KiB.
	Buffer int
	// SharedSubject publishes on [SubjectUsage], which may name any port: then events of
	// all ports share messages. For a service that reports for many ports; NATS must
	// permit it that subject. Default: events of one port share messages, on the port's
	// own subject.
	SharedSubject bool
	// Linger is how long an event waits for others to share a message with, default 5 ms.
	Linger time.Duration
	// AckTimeout is how long JetStream may take to acknowledge, default 5 s. Then
	// the same events are published again, with the same ids: should JetStream have
	// stored them, it stores them once more, and the ledger books them once.
	AckTimeout time.Duration
	// Outbox keeps what was acknowledged, to be sent again should JetStream lose it. Default: it is not kept.
	Outbox OutboxConfig
	// Logger gets complaints, each kind at most every 10 s. Default slog.Default().
	Logger *slog.Logger
}

func (c PublisherConfig) withDefaults() (PublisherConfig, error) {
	if c.Buffer < 0 || c.Linger < 0 || c.AckTimeout < 0 {
		return c, fmt.Errorf("events: PublisherConfig: Buffer, Linger and AckTimeout must not be negative: got %d, %s, %s", c.Buffer, c.Linger, c.AckTimeout)
	}
	c.Buffer = cmp.Or(c.Buffer, 65_536)
	c.Linger = cmp.Or(c.Linger, 5*time.Millisecond)
	c.AckTimeout = cmp.Or(c.AckTimeout, 5*time.Second)
	c.Logger = cmp.Or(c.Logger, slog.Default())
	return c, nil
}

// Publisher reports usage events to Tidegate. Its methods may be called from any
// goroutine.
//
// Events of one port that are recorded shortly after each other share a message, of at
// most 256 events and 16 KiB.
//
// An event counts once it was recorded and this process lived until JetStream
// acknowledged it, usually some milliseconds later. Until then it is in memory
// only: call [Publisher.Close] before the process ends.
//
// Order: events of one port that one goroutine records reach the stream in that order
// as long as nothing has to be published again. Across an interruption they may change
// places. Nothing in Tidegate depends on it: an event's id says when it happened.
//
// A publisher that nobody holds any more goes on until all its events are
// acknowledged, and logs that it was not closed. A process that ends by os.Exit or by
// a signal that it does not handle can say nothing: its last events are lost.
type Publisher struct{ *outlet }

// outlet is what a Publisher and its loop share: the loop must not hold the caller's
// own Publisher, or nobody would notice that the caller has dropped it.
type outlet struct {
	cfg    PublisherConfig
	nc     *nats.Conn
	outbox *outbox // nil: what is acknowledged is not kept

	mu        sync.Mutex
	recorded  []*Usage               // not yet taken by the loop
	since     time.Time              // when the first of those was recorded
	inHand    int                    // taken by the loop, neither acknowledged nor dropped
	accepted  uint64                 // events that Record ever took; the last one's place
	closed    bool                   // Record and Publish take nothing more
	waits     []*wait                // of Flush and Close
	listeners map[*listener]struct{} // who wants to know what NATS forbids
	lost      int                    // what the loop had left when it ended
	stats     Stats
	publishes sync.WaitGroup // running calls of Publish

	noBatches atomic.Bool // the stream does not take any
	noArrays  atomic.Bool // the stream takes no message of so many bytes

	wake chan struct{}   // cap 1: the loop has something to look at
	life context.Context // ends when nothing may be published any more
	stop context.CancelFunc
	done chan struct{} // closed when the loop has ended

	logDrops, logLate, logInvalid, logRetry, logRefused rate.Sometimes
}

// Stats are counts since the publisher began, of single events. At any moment
// Recorded = Published + Dropped + Pending.
type Stats struct {
	Recorded  uint64 // handed to Record or Publish
	Published uint64 // acknowledged by JetStream
	Dropped   uint64 // given up: buffer full, closed, no legal port, too large, or Publish returned an error
	Invalid   uint64 // broke the contract; with a legal port they are published all the same, for the quarantine
	Retries   uint64 // publishes of an event after its first
	Pending   uint64 // waiting to be acknowledged
}

// NewPublisher starts a publisher on nc, which stays the caller's to close, after
// [Publisher.Close]. Make nc with [Connect]: nats.go's own defaults give up reconnecting.
// The publisher puts itself before nc's error handler, where it hears what is forbidden.
func NewPublisher(nc *nats.Conn, cfg PublisherConfig) (*Publisher, error) {
	if nc == nil {
		return nil, errors.New("events: NewPublisher needs a NATS connection; events.Connect makes one")
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	kept, err := openOutbox(cfg.Outbox, cfg.Logger)
	if err != nil {
		return nil, err
	}
	life, stop := context.WithCancel(context.Background())
	p := &Publisher{&outlet{
		cfg: cfg, nc: nc, outbox: kept,
		listeners: map[*listener]struct{}{},
		wake:      make(chan struct{}, 1),
		life:      life,
		stop:      stop,
		done:      make(chan struct{}),
	}}
	for _, s := range []*rate.Sometimes{&p.logDrops, &p.logLate, &p.logInvalid, &p.logRetry, &p.logRefused} {
		s.Interval = logEvery
	}
	p.hearViolations()
	go (&loop{outlet: p.outlet, refused: map[string]bool{}}).run()
	runtime.AddCleanup(p, abandoned, p.outlet)
	return p, nil
}

// abandoned ends a publisher that nobody holds any more, once all is acknowledged or
// the connection is closed.
func abandoned(o *outlet) {
	o.mu.Lock()
	closed, waiting := o.closed, o.waiting()
	o.mu.Unlock()
	if closed {
		return
	}
	if waiting > 0 {
		o.cfg.Logger.Warn("a publisher was dropped without Close; its usage events are lost if the process ends before they are acknowledged", "waiting", waiting)
	}
	go func() { _ = o.close(context.Background()) }() // what gets lost, the loop logs
}

// Record hands over one usage event and returns at once: no I/O, nothing to
// handle. To a usage without ID it gives a UUIDv7 of OccurredAt, which is the current
// time if it is missing. Beside an ID that is not a UUIDv7 OccurredAt is required: the
// two together are the identity, so a time of ours would make every repetition another
// event.
//
// A usage that breaks the contract is counted as Invalid and published all the
// same, because the tokens are spent: the quarantine keeps it. Without a legal
// PortID nobody could tell whose it is; such an event is dropped.
func (p *Publisher) Record(u Usage) {
	defer runtime.KeepAlive(p)
	fillTime(&u)
	p.mu.Lock()
	p.stats.Recorded++
	if p.closed || p.waiting() >= p.cfg.Buffer {
		p.stats.Dropped++
		closed, dropped := p.closed, p.stats.Dropped
		p.mu.Unlock()
		if closed { // the loop, which logs other drops, has ended
			p.logLate.Do(func() {
				go p.cfg.Logger.Error("a usage event was recorded after its publisher or its connection was closed: its tokens will not be counted", "dropped_in_all", dropped)
			})
		}
		return
	}
	p.recorded = append(p.recorded, &u)
	p.accepted++
	n := len(p.recorded)
	if n == 1 {
		p.since = time.Now()
	}
	p.mu.Unlock()
	if n == 1 || n == manyEvents {
		p.nudge()
	}
}

// fillTime says that a call without an id happened now. An id has its own time, or is
// nothing without the caller's.
func fillTime(u *Usage) {
	if u.ID == "" && u.OccurredAt.IsZero() {
		u.OccurredAt = time.Now()
	}
}

// Flush returns when every event recorded before the call is acknowledged by
// JetStream, or counted as dropped. Otherwise its error says how many wait; they
// stay in the buffer and go on being published.
func (p *Publisher) Flush(ctx context.Context) error {
	defer runtime.KeepAlive(p)
	return p.await(ctx)
}

// Close takes no more events, waits until the recorded ones are acknowledged and
// running calls of Publish have returned, and ends the publisher. When ctx ends
// first, or the connection is closed, what is left is dropped and the error says
// how many that were. It is safe to call twice.
func (p *Publisher) Close(ctx context.Context) error {
	defer runtime.KeepAlive(p)
	return p.close(ctx)
}

func (p *outlet) close(ctx context.Context) error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	err := p.await(ctx)
	if err == nil {
		unhook := context.AfterFunc(ctx, p.stop)
		p.publishes.Wait()
		unhook()
	}
	p.stop()
	p.publishes.Wait()
	<-p.done
	p.outbox.close()
	if p.lost == 0 {
		return nil
	}
	return fmt.Errorf("events: closed with %d events not acknowledged, they are lost: %w", p.lost, cmp.Or(err, p.whyEnded()))
}

// wait is a running call of Flush or Close.
type wait struct {
	upTo uint64        // the place of the last event that it waits for
	done chan struct{} // closed when all up to there are acknowledged or dropped
}

// await waits until all events recorded so far are acknowledged or dropped.
func (p *outlet) await(ctx context.Context) (err error) {
	w := &wait{done: make(chan struct{})}
	p.mu.Lock()
	w.upTo = p.accepted
	p.waits = append(p.waits, w)
	p.mu.Unlock()
	p.nudge()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-p.done:
		err = p.whyEnded()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waits = slices.DeleteFunc(p.waits, func(other *wait) bool { return other == w })
	return fmt.Errorf("events: %d events not acknowledged: %w", p.waiting(), err)
}

// waiting is how many recorded events are neither acknowledged nor dropped. Lock held.
func (p *outlet) waiting() int { return len(p.recorded) + p.inHand }

// whyEnded says why a loop that has ended did so.
func (p *outlet) whyEnded() error {
	if p.nc.IsClosed() {
		return nats.ErrConnectionClosed
	}
	return ErrPublisherClosed
}

// Stats returns the counts so far.
func (p *Publisher) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Pending = s.Recorded - s.Published - s.Dropped
	return s
}

func (p *outlet) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}
