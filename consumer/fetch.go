package consumer

import (
	"context"
	"fmt"
	"hash/fnv"
	"runtime"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/sourcegraph/conc/stream"

	"github.com/tidegate/tidegate/internal/killpoint"
	"github.com/tidegate/tidegate/ledger"
)

const (
	// writers is how many transactions book a large batch at the same time. Its events are
	// shared out by port, so that two of them never wait for the same totals.
	writers = 2
	// A batch that is not full waits for more events for as long as the one before took
	// to be booked, within these bounds: the busier everything is, the more events share
	// a transaction, and a totals row. On a quiet system that is most of the time from
	// publish to booked.
	minLinger = 25 * time.Millisecond
	maxLinger = 100 * time.Millisecond

	// fewEvents make a batch that is booked by one writer, before the next one is fetched.
	// Two transactions beside the fetching and decoding of what comes next leave a gate on
	// the same few cores no time to answer, for milliseconds; and whatever comes meanwhile
	// shares the next transaction.
	fewEvents = 10_000

	idleWait   = time.Second // how long one pull waits for a first event; also the longest wait to stop
	chunkBytes = 100_000     // payload decoded by one task: some 256 events
	pullSize   = 2_000       // messages asked for at once: a client that is slow to read them must not let them expire
	batchBytes = 10 << 20    // a batch with that much payload is full: some 27,000 events, however they came
)

// part is what one writer books of a batch.
type part struct {
	events []delivery
	share  ledger.Share
	flight *flight // of the batch
}

// fetchLoop fetches, decodes and shares out batches until ctx ends. It blocks
// while the writers are busy: with Postgres away nothing more is fetched. Whatever
// hinders it, it makes the streams ready again. Its error is one that this does not mend.
func (c *Consumer) fetchLoop(ctx context.Context, queues []chan part) error {
	wait, linger := newBackoff(), minLinger
	for ctx.Err() == nil {
		if err := c.catchUp(ctx); err != nil {
			return err
		}
		from := c.current()
		in := newIntake(len(queues), c.cfg.Ledger.Oldest(c.cfg.Now()))
		in.flight = c.inFlight.begin()
		err := c.fetch(from.durable, in, linger)
		if n := in.finish(); n == 0 {
			c.inFlight.handOver(in.flight, 0)
		} else {
			killpoint.Here("after-fetch")
			c.metrics.batchSize.Observe(float64(n))
			start := time.Now()
			few := n < fewEvents || c.aside.alone()
			c.handOver(in.shareOut(from.stream, few), few, queues)
			linger = min(max(time.Since(start), minLinger), maxLinger)
			wait = newBackoff()
		}
		if err == nil {
			continue
		}
		c.metrics.fetchErrors.Inc()
		c.setHealth(fmt.Errorf("events cannot be fetched: %w", err))
		c.log.Warn("events cannot be fetched, trying again", "error", err)
		wait.sleep(ctx)
		if err := c.prepare(ctx); err != nil {
			return err
		}
	}
	return nil
}

// handOver gives a batch to the writers. It may have to wait for them for long.
func (c *Consumer) handOver(parts []part, few bool, queues []chan part) {
	c.inFlight.handOver(parts[0].flight, len(parts))
	for i, p := range parts {
		queues[i] <- p
	}
	if few {
		c.inFlight.wait()
	}
}

// shareOut makes the parts of the batch that was taken in: one if its events are few.
func (in *intake) shareOut(stream uuid.UUID, few bool) (parts []part) {
	shares := in.parts
	if few {
		shares = [][]delivery{slices.Concat(in.parts...)}
	}
	for _, events := range shares {
		if len(events) > 0 {
			parts = append(parts, part{events: events, flight: in.flight})
		}
	}
	batch := uuid.New()
	for i := range parts {
		parts[i].share = ledger.Share{Stream: stream, Batch: batch, Number: i, Of: len(parts)}
	}
	parts[0].share.Sequences = in.sequences
	return parts
}

// fetch takes in one batch: whatever waits in the stream, up to BatchSize. With
// nothing to do it waits in the server for a first event, and when few came it
// lingers for others to share their transaction. It is never cut short: what the
// server has sent would wait for its redelivery.
func (c *Consumer) fetch(durable jetstream.Consumer, in *intake, linger time.Duration) error {
	batch, err := durable.Fetch(1, jetstream.FetchMaxWait(idleWait))
	if err := in.takeAll(batch, err); err != nil || in.n == 0 {
		return err
	}
	for room := c.room(in); room > 0; room = c.room(in) {
		before := in.n
		batch, err := durable.FetchNoWait(room)
		if err := in.takeAll(batch, err); err != nil {
			return err
		}
		if left := c.room(in); in.n-before < room && left > 0 { // that was all for now
			batch, err := durable.Fetch(left, jetstream.FetchMaxWait(linger))
			return in.takeAll(batch, err)
		}
	}
	return nil
}

// room is how many messages to pull next: as many as fill the batch if they are as
// large as those before them.
func (c *Consumer) room(in *intake) int {
	if in.bytes >= batchBytes {
		return 0
	}
	large := max(1, in.bytes/in.n)
	return min(c.cfg.BatchSize-in.n, pullSize, (batchBytes-in.bytes)/large+1)
}

// intake decodes a batch while it arrives, in parallel, and shares it out among
// the writers by port, in the order of the stream.
type intake struct {
	oldest  time.Time
	again   bool    // the messages were settled long ago
	flight  *flight // what keeps them alive; nil: they need not be
	ordered *stream.Stream
	pulled  time.Time // when the last pull began
	chunk   []jetstream.Msg
	pending int          // bytes of the chunk's payloads
	n       int          // messages taken in
	bytes   int          // of their payloads
	parts   [][]delivery // for each writer

	sequences []ledger.Sequences // of the messages
}

func newIntake(writers int, oldest time.Time) *intake {
	return &intake{oldest: oldest, ordered: stream.New().WithMaxGoroutines(runtime.GOMAXPROCS(0)), parts: make([][]delivery, writers)}
}

// takeAll takes in a pull's messages as they come. err is that of the pull.
func (in *intake) takeAll(batch jetstream.MessageBatch, err error) error {
	if err != nil {
		return err
	}
	in.pulled = time.Now()
	for msg := range batch.Messages() {
		in.n++
		in.bytes += len(msg.Data())
		in.pending += len(msg.Data())
		in.chunk = append(in.chunk, msg)
		if in.pending >= chunkBytes {
			in.decodeChunk()
		}
	}
	return batch.Error()
}

func (in *intake) decodeChunk() {
	chunk := in.chunk
	in.chunk, in.pending = nil, 0
	if in.flight != nil {
		in.flight.add(chunk, in.pulled)
	}
	in.ordered.Go(func() stream.Callback {
		decoded := make([]delivery, 0, len(chunk))
		for _, msg := range chunk {
			decoded = unpack(decoded, msg, in.oldest, in.again)
		}
		return func() {
			for _, d := range decoded {
				w := writerOf(d.entry.Usage.PortID, len(in.parts))
				in.parts[w] = append(in.parts[w], d)
				in.sequences = withSequence(in.sequences, d.msg.sequence)
			}
		}
	})
}

// withSequence adds a sequence, which follows the last one as a rule.
func withSequence(list []ledger.Sequences, s uint64) []ledger.Sequences {
	if last := len(list) - 1; last >= 0 && (s == list[last].Last || s == list[last].Last+1) {
		list[last].Last = s
		return list
	}
	return append(list, ledger.Sequences{First: s, Last: s})
}

// finish waits for the decoding and returns how many events there are.
func (in *intake) finish() (n int) {
	if len(in.chunk) > 0 {
		in.decodeChunk()
	}
	in.ordered.Wait()
	for _, part := range in.parts {
		n += len(part)
	}
	return n
}

func writerOf(port string, writers int) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(port))
	return int(h.Sum32() % uint32(writers))
}
