package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tidegate/tidegate/events"
)

// waiting is what waits to be booked, and what hinders it.
type waiting struct {
	events.Backlog
	paused time.Duration // for how much longer the durable is; 0: it is not
	floor  uint64        // everything up to this sequence is settled
}

// Backlog says what waits in the usage stream to be booked: nothing where there is no
// stream, and all that it holds while the durable is gone.
func Backlog(ctx context.Context, js jetstream.JetStream) (events.Backlog, error) {
	v, err := look(ctx, js)
	if err != nil {
		return events.Backlog{}, err
	}
	w, err := v.waiting(ctx)
	return w.Backlog, err
}

func (v view) waiting(ctx context.Context) (w waiting, err error) {
	if v.stream == nil {
		return w, nil
	}
	w.floor = v.acknowledged()
	if v.durable == nil {
		w.Messages = int64(v.info.State.Msgs)
	} else {
		w.Messages = int64(v.durable.NumPending) + int64(v.durable.NumAckPending)
		if v.durable.Paused {
			w.paused = max(v.durable.PauseRemaining, 1)
		}
	}
	if w.Messages == 0 {
		return w, nil
	}
	oldest, err := v.stream.GetMsg(ctx, w.floor+1, jetstream.WithGetMsgSubject(">")) // or the next, if that has left the stream
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound): // settled meanwhile, and left
		return waiting{floor: w.floor, paused: w.paused}, nil
	case err != nil:
		return w, fmt.Errorf("stream %s: the oldest message that waits: %w", events.UsageStream, err)
	}
	w.OldestAt = oldest.Time.UTC().Truncate(time.Millisecond) // as the wire says it
	return w, nil
}

// stallAfter is how long the oldest message may wait while nothing is settled at all.
const stallAfter = 10 * time.Second

// progress is what a [Watcher] knows of the backlog.
type progress struct {
	waiting
	read  time.Time // the last time that it was; zero: never
	moved time.Time // the last time that floor did, or that nothing waited
	err   error     // of the last try
}

func (p progress) next(w waiting, err error, now time.Time) progress {
	if err != nil {
		p.err = err
		return p
	}
	if w.floor != p.floor || w.Messages == 0 || p.read.IsZero() {
		p.moved = now
	}
	p.waiting, p.read, p.err = w, now, nil
	return p
}

// stalled says why events are not booked, nil if they are.
func (p progress) stalled(now time.Time) error {
	switch waits := p.Describe(now); {
	case p.read.IsZero():
		return errors.New("it is not known yet what waits in the stream")
	case now.Sub(p.read) > stallAfter:
		return fmt.Errorf("it is not known what waits in the stream: %w", p.err)
	case p.paused > 0:
		return fmt.Errorf("the durable is paused for another %s: %s", p.paused.Round(time.Second), waits)
	case p.Messages > 0 && now.Sub(p.moved) > stallAfter && now.Sub(p.OldestAt) > stallAfter:
		return fmt.Errorf("the oldest message does not get booked: %s", waits)
	}
	return nil
}

func (w *Watcher) noteBacklog(found waiting, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.progress = w.progress.next(found, err, time.Now())
	w.backlog.Store(new(w.progress.Backlog))
}

// Backlog is what waited in the usage stream to be booked when it was last looked at, a
// second ago. While NATS is away it says what it said last.
func (w *Watcher) Backlog() events.Backlog {
	if b := w.backlog.Load(); b != nil {
		return *b
	}
	return events.Backlog{}
}

// Stalled says why what waits in the stream is not booked: the durable is paused, or
// nothing was settled for 10 s. It is nil while events are booked, or none waits.
func (w *Watcher) Stalled() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.progress.stalled(time.Now())
}

// Register adds the metrics of the backlog and of the copies.
func (w *Watcher) Register(reg prometheus.Registerer) {
	f := promauto.With(reg)
	w.copies.missing = f.NewGaugeVec(prometheus.GaugeOpts{Name: "tidegate_stream_copies_missing",
		Help: "Copies of a stream that are not in place: it was edited to have fewer, or their node is away."}, []string{"stream"})
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "tidegate_backlog_messages",
		Help: "Messages in the usage stream that are not booked yet; one may hold several events."},
		func() float64 { return float64(w.Backlog().Messages) })
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "tidegate_backlog_oldest_seconds",
		Help: "How long the oldest of them has been in the stream; 0 if there is none."},
		func() float64 { return w.Backlog().Age(time.Now()).Seconds() })
}
