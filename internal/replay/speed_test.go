package replay_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/internal/replay"
)

// paced has rows at 0, 6, 6, 3 (out of order) and 60 s.
var paced = []string{
	"2023-11-16 18:00:00,1,1", "2023-11-16 18:00:06,2,2", "2023-11-16 18:00:06,3,3", "2023-11-16 18:00:03,4,4", "2023-11-16 18:01:00,5,5",
}

func TestRun_SpeedWaitsBetweenRows(t *testing.T) {
	for name, c := range map[string]struct {
		speed float64
		want  []time.Duration
		calls int
	}{
		"real time":        {1, []time.Duration{0, 6 * time.Second, 6 * time.Second, 6 * time.Second, time.Minute}, 3},
		"sixty times":      {60, []time.Duration{0, 100 * time.Millisecond, 100 * time.Millisecond, 100 * time.Millisecond, time.Second}, 3},
		"ten times slower": {0.1, []time.Duration{0, time.Minute, time.Minute, time.Minute, 10 * time.Minute}, 3},
		"no waiting":       {0, []time.Duration{0, 0, 0, 0, 0}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			file := write(t, trace(paced...))
			synctest.Test(t, func(t *testing.T) {
				var p paper
				began := time.Now()
				sum, err := replay.Run(t.Context(), &p, replay.Config{File: file, Speed: c.speed})
				if err != nil {
					t.Fatal(err)
				}
				var after []time.Duration
				for _, at := range p.at {
					after = append(after, at.Sub(began))
				}
				if diff := cmp.Diff(c.want, after); diff != "" {
					t.Errorf("published after (-want +got):\n%s", diff)
				}
				if p.calls != c.calls {
					t.Errorf("%d calls of Publish, want %d: what is due together goes together", p.calls, c.calls)
				}
				if last := c.want[len(c.want)-1]; sum.ElapsedSeconds != last.Seconds() {
					t.Errorf("elapsed %g s, want %s", sum.ElapsedSeconds, last)
				}
				if got := p.usages[4].OccurredAt.Sub(p.usages[0].OccurredAt); got != time.Minute {
					t.Errorf("the times are %s apart, want a minute at every speed", got)
				}
			})
		})
	}
}

// A publisher that is slower than the trace makes rows wait, not get lost or far apart.
func TestRun_SpeedCatchesUpAfterAnOutage(t *testing.T) {
	file := write(t, trace(paced...))
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		p := &paper{before: func(call int) error {
			if call == 1 {
				time.Sleep(30 * time.Second)
			}
			return nil
		}}
		if _, err := replay.Run(t.Context(), p, replay.Config{File: file, Speed: 1}); err != nil {
			t.Fatal(err)
		}
		var after []time.Duration
		for _, at := range p.at {
			after = append(after, at.Sub(began))
		}
		late := 30 * time.Second
		if diff := cmp.Diff([]time.Duration{late, late, late, late, time.Minute}, after); diff != "" {
			t.Errorf("published after (-want +got):\n%s", diff)
		}
	})
}

func TestRun_StopsWhileItWaits(t *testing.T) {
	file := write(t, trace(paced...))
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		sum, err := replay.Run(ctx, &paper{}, replay.Config{File: file, Speed: 1})
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "after 4 of 5 rows were acknowledged: context deadline exceeded; to go on") {
			t.Errorf("error %v", err)
		}
		if took := time.Since(began); took != 10*time.Second || sum.Acknowledged != 4 {
			t.Errorf("stopped after %s and %d rows, want 10s and 4", took, sum.Acknowledged)
		}
	})
}

// A start of now suits a replay that runs no faster than the clock.
func TestRun_StartsNowAtRealTime(t *testing.T) {
	file := write(t, trace("2023-11-16 18:00:00,1,1", "2023-11-16 20:00:00,2,2"))
	synctest.Test(t, func(t *testing.T) {
		var p paper
		if _, err := replay.Run(t.Context(), &p, replay.Config{File: file, Speed: 1, Start: time.Now()}); err != nil {
			t.Fatal(err)
		}
		for i, u := range p.usages {
			if !u.OccurredAt.Equal(p.at[i]) {
				t.Errorf("row %d happens at %s and is published at %s", i, u.OccurredAt, p.at[i])
			}
		}
	})
}
