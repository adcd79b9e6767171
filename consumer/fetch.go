package consumer

import (
	"context"
	"errors"
	"hash/fnv"
	"runtime"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/sourcegraph/conc/stream"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/killpoint"
	"github.com/tidegate/tidegate/ledger"
)

const (
	idleWait    = time.Second // how long one pull waits for a first event; also the longest wait to stop
	decodeChunk = 256         // messages decoded by one task
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
		msgs, err := c.fetch(durable)
		if len(msgs) > 0 {
			killpoint.Here("after-fetch")
			c.inFlight.add(msgs)
			c.share(msgs, queues)
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

// fetch returns one batch. With nothing to do it waits for the first event in
// the server; only then does it gather others for BatchWait. It is never cut
// short: what the server has sent would wait for its redelivery.
func (c *Consumer) fetch(durable jetstream.Consumer) ([]jetstream.Msg, error) {
	first, err := c.pull(durable, 1, idleWait, nil)
	if len(first) == 0 {
		return nil, err
	}
	return c.pull(durable, c.cfg.BatchSize-1, c.cfg.BatchWait, first)
}

func (c *Consumer) pull(durable jetstream.Consumer, n int, wait time.Duration, msgs []jetstream.Msg) ([]jetstream.Msg, error) {
	if n == 0 {
		return msgs, nil
	}
	batch, err := durable.Fetch(n, jetstream.FetchMaxWait(wait))
	if err != nil {
		return msgs, err
	}
	for msg := range batch.Messages() {
		msgs = append(msgs, msg)
	}
	return msgs, batch.Error()
}

// share decodes a batch in parallel and hands each writer the events of its
// ports, in the order of the stream.
func (c *Consumer) share(msgs []jetstream.Msg, queues []chan []delivery) {
	c.metrics.batchSize.Observe(float64(len(msgs)))
	oldest := c.cfg.Ledger.Oldest(c.cfg.Now())
	parts := make([][]delivery, len(queues))
	ordered := stream.New().WithMaxGoroutines(runtime.GOMAXPROCS(0))
	for len(msgs) > 0 {
		chunk := msgs[:min(decodeChunk, len(msgs))]
		msgs = msgs[len(chunk):]
		ordered.Go(func() stream.Callback {
			decoded := make([]delivery, len(chunk))
			for i, msg := range chunk {
				decoded[i] = decode(msg, oldest)
			}
			return func() {
				for _, d := range decoded {
					w := writerOf(d.entry.Usage.PortID, len(parts))
					parts[w] = append(parts[w], d)
				}
			}
		})
	}
	ordered.Wait()
	for i, part := range parts {
		if len(part) > 0 {
			queues[i] <- part
		}
	}
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
