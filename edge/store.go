package edge

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/events"
)

// The publisher sends some 160 events or fewer as single messages, each of which costs
// JetStream a sync, and more as a batch, which costs it 10 to 30 ms whatever its size. So
// as long as there are not very many, few are published at a time.
const (
	fewTogether  = 150
	veryMany     = 1_600
	mostTogether = 10_000 // unless one request has more
)

// storing publishes what several requests report together: JetStream syncs what comes
// together once, and the disk is what reports wait for. While some is published, the rest
// gathers.
type storing struct {
	nc        *nats.Conn
	js        jetstream.JetStream
	publisher *events.Publisher

	mu      sync.Mutex
	waiting []*stored
	events  int // of those
	busy    bool
	group   sync.WaitGroup
}

// stored is one request's events.
type stored struct {
	usages []events.Usage
	done   chan error // cap 1: whoever asked may have gone
}

// store returns once JetStream has acknowledged all the usages. When ctx ends before, they may
// be stored all the same.
func (s *storing) store(ctx context.Context, usages []events.Usage) error {
	if parent := events.TraceParent(ctx); parent != "" { // it is published together with what others report
		for i := range usages {
			usages[i].TraceParent = parent
		}
	}
	one := &stored{usages, make(chan error, 1)}
	s.mu.Lock()
	s.waiting = append(s.waiting, one)
	s.events += len(usages)
	if !s.busy {
		s.busy = true
		s.group.Go(s.run)
	}
	s.mu.Unlock()
	select {
	case err := <-one.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run publishes until nothing waits.
func (s *storing) run() {
	for {
		together, usages := s.next()
		if together == nil {
			return
		}
		err := s.publish(usages)
		for _, one := range together {
			one.done <- err
		}
	}
}

func (s *storing) next() (together []*stored, usages []events.Usage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	most := fewTogether
	if s.events > veryMany {
		most = mostTogether
	}
	for len(s.waiting) > 0 && (together == nil || len(usages)+len(s.waiting[0].usages) <= most) {
		together, usages = append(together, s.waiting[0]), append(usages, s.waiting[0].usages...)
		s.events -= len(s.waiting[0].usages)
		s.waiting = s.waiting[1:]
	}
	if together == nil {
		s.waiting, s.busy = nil, false
	}
	return together, usages
}

// publish does not wait for a connection to come back: callers would pile up.
func (s *storing) publish(usages []events.Usage) error {
	if !s.nc.IsConnected() {
		return errors.New("not connected to NATS")
	}
	ctx, cancel := context.WithTimeout(context.Background(), publishTimeout)
	defer cancel()
	chunk := fewTogether
	if len(usages) > veryMany {
		chunk = len(usages)
	}
	for some := range slices.Chunk(usages, chunk) {
		if err := s.publisher.Publish(ctx, some); err != nil {
			return err
		}
	}
	return nil
}

// storeRefused publishes what the consumer will put into the quarantine, and returns once
// JetStream has acknowledged all of it. The publisher takes only what is an event.
func (s *storing) storeRefused(ctx context.Context, messages []*nats.Msg) error {
	if !s.nc.IsConnected() {
		return errors.New("not connected to NATS")
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	for some := range slices.Chunk(messages, fewTogether) {
		var acks []jetstream.PubAckFuture
		for _, m := range some {
			ack, err := s.js.PublishMsgAsync(m)
			if err != nil {
				return err
			}
			acks = append(acks, ack)
		}
		for _, ack := range acks {
			select {
			case <-ack.Ok():
			case err := <-ack.Err():
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// close waits for what is being published.
func (s *storing) close(ctx context.Context) error {
	err := s.publisher.Close(ctx)
	s.group.Wait()
	return err
}
