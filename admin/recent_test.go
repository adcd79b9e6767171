package admin

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Of many ports only the first request waits; then it is read by the side, seldom, and
// only when somebody asks.
func TestRecentOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int64
		var broken atomic.Bool
		r := recent[int64]{read: func(ctx context.Context, _ time.Time) (int64, bool, error) {
			n := reads.Add(1)
			select {
			case <-ctx.Done():
				return 0, false, ctx.Err()
			case <-time.After(2 * time.Second):
			}
			if broken.Load() {
				return 0, false, errors.New("outage")
			}
			return n, true, nil
		}}
		get := func(want int64, waited time.Duration) {
			t.Helper()
			began := time.Now()
			got, at, err := r.get(t.Context(), began)
			if err != nil || got != want || time.Since(began) != waited {
				t.Errorf("got %d of %s, %v after %s, want %d after %s", got, at, err, time.Since(began), want, waited)
			}
		}
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := r.get(impatient, time.Now()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who does not wait for the first reading got %v", err)
		}
		get(1, time.Second) // it went on
		get(1, 0)
		time.Sleep(17 * time.Second)
		get(1, 0) // nine times as long as it took have not gone by
		time.Sleep(2 * time.Second)
		get(1, 0) // now it is read, by the side
		get(1, 0) // and once
		time.Sleep(3 * time.Second)
		get(2, 0)
		broken.Store(true)
		time.Sleep(time.Minute)
		get(2, 0)
		time.Sleep(3 * time.Second)
		broken.Store(false)
		get(2, 0) // an outage keeps what there is, and is tried again
		time.Sleep(3 * time.Second)
		get(4, 0)
		if n := reads.Load(); n != 4 {
			t.Errorf("it was read %d times, want 4", n)
		}
	})
}

// Of few ports every request reads, and sees what was there when it came.
func TestRecentOfFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		value, broken := 0, false
		r := recent[int]{read: func(context.Context, time.Time) (int, bool, error) {
			now := value
			time.Sleep(10 * time.Millisecond)
			if broken {
				return 0, false, errors.New("outage")
			}
			return now, false, nil
		}}
		go func() { _, _, _ = r.get(t.Context(), time.Now()) }()
		synctest.Wait() // it reads the old value
		value = 1
		if got, _, err := r.get(t.Context(), time.Now()); got != 1 || err != nil {
			t.Errorf("who came while another read got %d, %v, want 1", got, err)
		}
		broken = true
		if _, _, err := r.get(t.Context(), time.Now()); err == nil {
			t.Error("an outage was not told")
		}
	})
}
