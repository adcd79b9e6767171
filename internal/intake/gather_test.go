package intake_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/internal/intake"
)

func TestGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tasks := make(chan int, 1000)
		var got [][]int
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			intake.Gather(tasks, 256, 25*time.Millisecond, func(batch []int) { got = append(got, append([]int{}, batch...)) })
		}()
		tasks <- 1
		time.Sleep(24 * time.Millisecond)
		tasks <- 2
		time.Sleep(2 * time.Millisecond)
		tasks <- 3
		time.Sleep(time.Second)
		for n := range 256 + 1 {
			tasks <- n
		}
		tasks <- 4
		close(tasks)
		<-ended
		var sizes []int
		for _, batch := range got {
			sizes = append(sizes, len(batch))
		}
		if diff := cmp.Diff([]int{2, 1, 256, 2}, sizes); diff != "" {
			t.Errorf("batches (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]int{1, 2}, got[0]); diff != "" {
			t.Errorf("the first batch (-want +got):\n%s", diff)
		}
	})
}
