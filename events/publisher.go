package events

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/time/rate"
)

// maxBatch is what one JetStream atomic batch may hold on a server with its defaults.
const maxBatch = 1000

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
	// BatchSize is the most events published together, default and limit 1,000: set it
	// lower where the server's own limit is. A batch costs the server several fsyncs,
	// however many events are in it.
	BatchSize int
	// SharedSubject publishes on [SubjectUsage], which may name any port, and puts as many
	// events into one message as fit into [MaxPayloadBytes]: storing and booking them takes
	// some 40 % less CPU. For a service that reports for many ports; NATS must
	// permit it that subject. Default: each event is a message on its port's own subject.
	SharedSubject bool
	// Linger is how long a batch that is not full waits for more, default 5 ms.
	Linger time.Duration
	// AckTimeout is how long JetStream may take to acknowledge, default 5 s. Then
	// the same events are published again, with the same ids: should JetStream have
	// stored them, it stores them once more, and the ledger books them once.
	AckTimeout time.Duration
	// Logger gets complaints, each kind at most every 10 s. Default slog.Default().
	Logger *slog.Logger
}

func (c PublisherConfig) withDefaults() (PublisherConfig, error) {
	if c.Buffer < 0 || c.BatchSize < 0 || c.BatchSize > maxBatch || c.Linger < 0 || c.AckTimeout < 0 {
		return c, fmt.Errorf("events: PublisherConfig: Buffer, Linger and AckTimeout must not be negative, BatchSize must be 0 to %d: got %d, %s, %s, %d",
			maxBatch, c.Buffer, c.Linger, c.AckTimeout, c.BatchSize)
	}
	if c.Buffer == 0 {
		c.Buffer = 65_536
	}
	if c.BatchSize == 0 {
		c.BatchSize = maxBatch
	}
	if c.Linger == 0 {
		c.Linger = 5 * time.Millisecond
	}
	if c.AckTimeout == 0 {
		c.AckTimeout = 5 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}

// Publisher reports usage events to Tidegate. Its methods may be called from any
// goroutine.
//
// An event counts once it was recorded and this process lived until JetStream
// acknowledged it, usually some milliseconds later. Until then it is in memory
// only: call [Publisher.Close] before the process ends.
//
// Order: events that one goroutine records reach the stream in that order as long
// as nothing has to be published again. Across an interruption they may change
// places. Nothing in Tidegate depends on it: an event's id says when it happened.
//
// A publisher that nobody holds any more goes on until all its events are
// acknowledged, and logs that it was not closed. A process that ends by os.Exit or by
// a signal that it does not handle can say nothing: its last events are lost.
type Publisher struct{ *outlet }

// outlet is what a Publisher and its loop share: the loop must not hold the caller's
// own Publisher, or nobody would notice that the caller has dropped it.
type outlet struct {
	cfg PublisherConfig
	nc  *nats.Conn
	js  jetstream.JetStream

	mu        sync.Mutex
	queue     ring          // recorded, not yet taken by the loop
	inHand    int           // taken by the loop, not yet settled
	accepted  uint64        // events that ever entered the queue; the last one's place
	oldest    uint64        // everything before this place is settled; exact while somebody waits for it
	closed    bool          // Record and Publish take nothing more
	hurried   int           // callers of Flush and Close that wait
	progress  chan struct{} // closed and replaced whenever the loop settles events
	stats     Stats
	lost      int            // what the loop had left when it ended
	publishes sync.WaitGroup // running calls of Publish

	wake       chan struct{}   // cap 1: the loop has something to look at
	life       context.Context // ends when nothing may be published any more
	stop       context.CancelFunc
	done       chan struct{} // closed when the loop has ended
	singlesTil atomic.Int64  // Unix ns until which the stream is taken to refuse atomic batches

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
func NewPublisher(nc *nats.Conn, cfg PublisherConfig) (*Publisher, error) {
	if nc == nil {
		return nil, errors.New("events: NewPublisher needs a NATS connection; events.Connect makes one")
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("events: NewPublisher: %w", err)
	}
	life, stop := context.WithCancel(context.Background())
	p := &Publisher{&outlet{
		cfg: cfg, nc: nc, js: js,
		queue:    newRing(cfg.Buffer),
		oldest:   1,
		progress: make(chan struct{}),
		wake:     make(chan struct{}, 1),
		life:     life,
		stop:     stop,
		done:     make(chan struct{}),
	}}
	for _, s := range []*rate.Sometimes{&p.logDrops, &p.logLate, &p.logInvalid, &p.logRetry, &p.logRefused} {
		s.Interval = logEvery
	}
	go (&Publisher{p.outlet}).run()
	runtime.AddCleanup(p, abandoned, p.outlet)
	return p, nil
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
	if p.closed || p.queue.len()+p.inHand >= p.cfg.Buffer {
		p.stats.Dropped++
		closed, dropped := p.closed, p.stats.Dropped
		p.mu.Unlock()
		if closed { // the loop, which logs other drops, has ended
			p.logLate.Do(func() { go p.tellLate(dropped) })
		}
		return
	}
	p.queue.push(&u)
	p.accepted++
	waiting := p.queue.len()
	p.mu.Unlock()
	if waiting == 1 || waiting == p.cfg.BatchSize {
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
	p.mu.Lock()
	upTo := p.accepted
	p.mu.Unlock()
	return p.await(ctx, upTo)
}

// Close takes no more events, waits until the recorded ones are acknowledged and
// running calls of Publish have returned, and ends the publisher. When ctx ends
// first, or the connection is closed, what is left is dropped and the error says
// how many that were. It is safe to call twice.
func (p *Publisher) Close(ctx context.Context) error {
	p.mu.Lock()
	p.closed = true
	upTo := p.accepted
	p.mu.Unlock()

	err := p.await(ctx, upTo)
	if err == nil {
		unhook := context.AfterFunc(ctx, p.stop)
		p.publishes.Wait()
		unhook()
	}
	p.stop()
	p.publishes.Wait()
	<-p.done
	if p.lost == 0 {
		return nil
	}
	return fmt.Errorf("events: closed with %d events not acknowledged, they are lost: %w", p.lost, cmp.Or(err, ErrPublisherClosed))
}

// await waits until the first upTo accepted events are settled.
func (p *Publisher) await(ctx context.Context, upTo uint64) error {
	p.mu.Lock()
	p.hurried++
	p.mu.Unlock()
	p.nudge()
	defer func() {
		p.mu.Lock()
		p.hurried--
		p.mu.Unlock()
	}()
	for {
		p.mu.Lock()
		settled, waiting, progress := p.oldest > upTo, p.waiting(), p.progress
		p.mu.Unlock()
		if settled {
			return nil
		}
		if p.nc.IsClosed() {
			return fmt.Errorf("events: %d events not acknowledged: %w", waiting, nats.ErrConnectionClosed)
		}
		select {
		case <-progress:
		case <-p.done:
			return fmt.Errorf("events: %d events not acknowledged: %w", waiting, ErrPublisherClosed)
		case <-ctx.Done():
			return fmt.Errorf("events: %d events not acknowledged: %w", waiting, ctx.Err())
		}
	}
}

// waiting is how many recorded events are not settled. Lock held.
func (p *Publisher) waiting() int { return p.queue.len() + p.inHand }

// Stats returns the counts so far.
func (p *Publisher) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Pending = s.Recorded - s.Published - s.Dropped
	return s
}

func (p *Publisher) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}
