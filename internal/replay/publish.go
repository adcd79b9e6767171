package replay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/tidegate/tidegate/events"
)

// run is one replay, after its first pass.
type run struct {
	cfg       Config // Start is set
	publisher Publisher
	trace     extent
	began     time.Time
	assign    assignment
	summary   Summary
	batch     []events.Usage
}

// publish is the second pass.
func (r *run) publish(ctx context.Context, t *trace) error {
	r.batch = make([]events.Usage, 0, min(r.cfg.BatchSize, r.trace.rows))
	r.cfg.Progress(0, r.trace.rows)
	for {
		row, err := t.next()
		switch read := r.summary.Published + len(r.batch); {
		case errors.Is(err, io.EOF):
			if err = r.flush(ctx); err == nil && read == r.trace.rows {
				return nil
			}
			err = cmp.Or(err, errChanged)
		case err != nil:
			err = fmt.Errorf("%w: %w", errChanged, err)
		case read == r.trace.rows:
			err = errChanged
		default:
			err = r.take(ctx, row)
		}
		if err != nil {
			return r.stopped(err)
		}
	}
}

var errChanged = errors.New("the file was changed while it was replayed")

// take publishes what was taken before if the row is not due yet, and waits for it.
func (r *run) take(ctx context.Context, row row) error {
	if r.due(row) > 0 {
		if err := r.flush(ctx); err != nil {
			return err
		}
		if err := sleep(ctx, r.due(row)); err != nil {
			return err
		}
	}
	r.batch = append(r.batch, r.assign.usage(row, r.moved(row)))
	if len(r.batch) < r.cfg.BatchSize {
		return nil
	}
	return r.flush(ctx)
}

// moved is when the row happens in this replay, in the milliseconds that the id holds.
func (r *run) moved(row row) time.Time {
	return r.cfg.Start.Add(row.at.Sub(r.trace.first)).Truncate(time.Millisecond)
}

// due is how long the row has to wait yet.
func (r *run) due(row row) time.Duration {
	if r.cfg.Speed == 0 {
		return 0
	}
	after := float64(row.at.Sub(r.trace.first)) / r.cfg.Speed
	return time.Duration(min(after, math.MaxInt64/2)) - time.Since(r.began)
}

func (r *run) flush(ctx context.Context) error {
	if len(r.batch) == 0 {
		return nil
	}
	r.summary.Published += len(r.batch)
	if err := r.publisher.Publish(ctx, r.batch); err != nil {
		return err
	}
	for i := range r.batch {
		r.summary.add(&r.batch[i])
	}
	r.batch = r.batch[:0]
	r.cfg.Progress(r.summary.Acknowledged, r.trace.rows)
	return nil
}

// stopped says how far the replay came and how to go on.
func (r *run) stopped(cause error) error {
	maybe := ""
	if n := r.summary.Published - r.summary.Acknowledged; n > 0 {
		maybe = fmt.Sprintf(" (and perhaps some of the next %d)", n)
	}
	return fmt.Errorf("replay: stopped after %d of %d rows were acknowledged%s: %w; to go on, replay the file again with --seed %d --start %s: the rows have the same ids then and none is booked twice",
		r.summary.Acknowledged, r.trace.rows, maybe, cause, r.cfg.Seed, r.cfg.Start.Format(startFormat))
}

// startFormat keeps the milliseconds, which the ids hold.
const startFormat = "2006-01-02T15:04:05.000Z"

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
