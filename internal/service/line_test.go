package service_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidegate/tidegate/internal/service"
)

func TestLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := service.NewLine(2, 3, time.Minute)
		var working, most, done atomic.Int64
		for range 5 {
			if !line.Join() {
				t.Fatal("no place for five")
			}
			go func() {
				err := line.Work(t.Context(), func() {
					most.Store(max(most.Load(), working.Add(1)))
					time.Sleep(time.Second)
					working.Add(-1)
				})
				if err != nil {
					t.Error(err)
				}
				done.Add(1)
			}()
		}
		if line.Join() {
			t.Error("a place for a sixth")
		}
		time.Sleep(1500 * time.Millisecond)
		if done.Load() != 2 || most.Load() != 2 {
			t.Errorf("%d done and %d at once, want 2 and 2", done.Load(), most.Load())
		}
		if !line.Join() {
			t.Fatal("no place where two have left")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := line.Work(ctx, func() { t.Error("worked out of turn") }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who cannot wait gets %v", err)
		}
		time.Sleep(5 * time.Second)
		if done.Load() != 5 {
			t.Errorf("%d done, want all 5", done.Load())
		}
		for range 5 {
			if !line.Join() {
				t.Fatal("a place was lost")
			}
		}
	})
}
