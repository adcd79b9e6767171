package consumer

import (
	"context"
	"errors"
	"hash/fnv"
	"runtime"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/sourcegraph/conc/stream"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/killpoint"
	"github.com/tidegate/tidegate/ledger"
)

const (
	// writers is how many transactions book a large batch at the same time. Its events are
	// shared out by port, so that two of them never wait for the same totals.
	writers = 2
	// batchWait is how long a small batch waits for more events after its first one:
	// most of the time from publish to booked on a quiet system.
	batchWait = 25 * time.Millisecond

	// fewEvents make a batch that is booked by one writer, before the next one is fetched.
	// Two transactions beside the fetching and decoding of what comes next leave a gate on
	// the same few cores no time to answer, for milliseconds; and whatever comes meanwhile
	// shares the next transaction.
	fewEvents = 2_500

	idleWait    = time.Second // how long one pull waits for a first event; also the longest wait to stop
	decodeChunk = 256         // messages decoded by one task
	pullSize    = 5_000       // messages asked for at once
	batchBytes  = 64 << 20    // a batch with that much payload is full
)

// delivery is a message and what came of decoding it.
type delivery struct {
	msg     jetstream.Msg
	entry   ledger.Entry       // valid if refused is nil
	refused *events.FieldError // why it cannot be booked
}

// fetchLoop fetches, decodes and shares out batches until ctx ends. It blocks
// while the writers are busy: with Postgres away nothing more is fetched.
func (c *Consumer) fetchLoop(ctx context.Context, durable jetstream.Consumer, queues []chan []delivery) {
	wait := newBackoff()
	for ctx.Err() == nil {
		in := newIntake(len(queues), c.cfg.Ledger.Oldest(c.cfg.Now()))
		err := c.fetch(durable, in)
		if n := in.finish(); n > 0 {
			killpoint.Here("after-fetch")
			c.metrics.batchSize.Observe(float64(n))
			c.handOver(in, queues)
			wait = newBackoff()
		}
		if err == nil {
			continue
		}
		c.log.Warn("events cannot be fetched, trying again", "error", err)
		wait.sleep(ctx)
		if errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrConsumerDeleted) {
			if again, err := c.prepare(ctx); err == nil && again != nil {
				durable = again
			}
		}
	}
}

// handOver gives a batch to the writers.
func (c *Consumer) handOver(in *intake, queues []chan []delivery) {
	few := in.n < fewEvents
	if few {
		in.parts = [][]delivery{slices.Concat(in.parts...)}
	}
	for i, part := range in.parts {
		if len(part) > 0 {
			c.inFlight.add(part)
			queues[i] <- part
		}
	}
	if few {
		c.inFlight.wait()
	}
}

// fetch takes in one batch: whatever waits in the stream, up to BatchSize. With
// nothing to do it waits in the server for a first event, and when few came it
// waits batchWait for others to share their transaction. It is never cut short:
// what the server has sent would wait for its redelivery.
func (c *Consumer) fetch(durable jetstream.Consumer, in *intake) error {
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
		if in.n-before < room { // that was all for now
			batch, err := durable.Fetch(room, jetstream.FetchMaxWait(batchWait))
			return in.takeAll(batch, err)
		}
	}
	return nil
}

// room is how many messages to pull next: few enough at a time that a batch of
// very large ones ends before it takes too much memory.
func (c *Consumer) room(in *intake) int {
	if in.bytes >= batchBytes {
		return 0
	}
	return min(c.cfg.BatchSize-in.n, pullSize)
}

// intake decodes a batch while it arrives, in parallel, and shares it out among
// the writers by port, in the order of the stream.
type intake struct {
	oldest  time.Time
	ordered *stream.Stream
	chunk   []jetstream.Msg
	n       int          // messages taken in
	bytes   int          // of their payloads
	parts   [][]delivery // for each writer
}

func newIntake(writers int, oldest time.Time) *intake {
	return &intake{oldest: oldest, ordered: stream.New().WithMaxGoroutines(runtime.GOMAXPROCS(0)), parts: make([][]delivery, writers)}
}

// takeAll takes in a pull's messages as they come. err is that of the pull.
func (in *intake) takeAll(batch jetstream.MessageBatch, err error) error {
	if err != nil {
		return err
	}
	for msg := range batch.Messages() {
		in.n++
		in.bytes += len(msg.Data())
		in.chunk = append(in.chunk, msg)
		if len(in.chunk) == decodeChunk {
			in.decodeChunk()
		}
	}
	return batch.Error()
}

func (in *intake) decodeChunk() {
	chunk := in.chunk
	in.chunk = nil
	in.ordered.Go(func() stream.Callback {
		decoded := make([]delivery, len(chunk))
		for i, msg := range chunk {
			decoded[i] = decode(msg, in.oldest)
		}
		return func() {
			for _, d := range decoded {
				w := writerOf(d.entry.Usage.PortID, len(in.parts))
				in.parts[w] = append(in.parts[w], d)
			}
		}
	})
}

// finish waits for the decoding and returns how many messages there are.
func (in *intake) finish() int {
	if len(in.chunk) > 0 {
		in.decodeChunk()
	}
	in.ordered.Wait()
	return in.n
}

func writerOf(port string, writers int) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(port))
	return int(h.Sum32() % uint32(writers))
}

func decode(msg jetstream.Msg, oldest time.Time) delivery {
	d := delivery{msg: msg}
	usage, err := events.DecodeUsage(msg.Subject(), msg.Data())
	if err == nil {
		var arrival events.Arrival
		if arrival, err = arrivalOf(msg); err == nil {
			d.entry.Usage = usage
			d.entry.Identity, err = events.Identify(usage, arrival, oldest)
		}
	}
	if err != nil && !errors.As(err, &d.refused) {
		d.refused = &events.FieldError{Reason: events.ReasonMalformed, Rule: err.Error()}
	}
	return d
}
