package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tidegate/tidegate/events"
)

// extent is what the first pass finds out about a trace.
type extent struct {
	rows        int
	first, last time.Time // the earliest and the latest, wherever they stand in the file
}

// survey reads the whole trace. Its error is about the first row that breaks a rule.
func survey(ctx context.Context, name string, r io.Reader) (extent, error) {
	var s extent
	t := newTrace(name, r)
	for {
		if s.rows%4096 == 0 && ctx.Err() != nil {
			return s, fmt.Errorf("replay: stopped before anything was published: %w", ctx.Err())
		}
		row, err := t.next()
		switch {
		case errors.Is(err, io.EOF) && s.rows == 0:
			return s, fmt.Errorf("replay: %s has no rows below its header: there is nothing to replay", name)
		case errors.Is(err, io.EOF):
			return s, nil
		case err != nil:
			return s, fmt.Errorf("replay: %w; mend or remove the line, nothing was published", err)
		}
		if s.rows == 0 || row.at.Before(s.first) {
			s.first = row.at
		}
		if s.rows == 0 || row.at.After(s.last) {
			s.last = row.at
		}
		s.rows++
	}
}

// start is when the earliest row happens, given that it is now.
func (s extent) start(cfg Config, now time.Time) (time.Time, error) {
	span := s.last.Sub(s.first)
	start := cfg.Start
	if start.IsZero() {
		start = now.Add(-span)
	}
	start = start.UTC().Truncate(time.Millisecond)
	if start.Before(time.Unix(0, 0)) {
		return start, fmt.Errorf("replay: start %s: the first row must not be before 1970, which ids cannot hold; the file spans %s", start.Format(startFormat), span)
	}
	// The last row is the farthest ahead if the trace runs faster than the clock,
	// the first one if it does not.
	farthest := start
	switch {
	case cfg.Speed == 0:
		farthest = start.Add(span)
	case cfg.Speed > 1:
		farthest = start.Add(span - time.Duration(float64(span)/cfg.Speed))
	}
	if ahead := farthest.Sub(now); ahead > events.FutureTolerance {
		return start, fmt.Errorf("replay: start %s would publish rows up to %s before they happen, and Tidegate books nothing that is more than %s ahead: start earlier, or leave --start out to end now; the file spans %s",
			start.Format(startFormat), ahead.Round(time.Second), events.FutureTolerance, span.Round(time.Second))
	}
	return start, nil
}
