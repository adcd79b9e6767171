package intake_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/internal/intake"
)

func TestFair(t *testing.T) {
	t.Parallel()
	f := intake.NewFair[string](10)
	var away []string
	put := func(owner string, tasks int) {
		for n := range tasks {
			if task, full := f.Put(owner, fmt.Sprint(owner, n)); full {
				away = append(away, task)
			}
		}
	}
	put("a", 12)
	put("b", 2)
	put("c", 6)
	put("d", 1)
	f.Close()
	var got [][]string
	f.Gather(4, func(batch []string) { got = append(got, batch) })
	want := [][]string{{"a0", "b0", "c0", "d0"}, {"a1", "b1", "c1", "a2"}, {"c2", "c3"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("batches (-want +got):\n%s", diff)
	}
	// Whoever has most loses the last of them, until others would have as many.
	if diff := cmp.Diff([]string{"a10", "a11", "a9", "a8", "a7", "a6", "a5", "a4", "c4", "c5", "a3"}, away); diff != "" {
		t.Errorf("sent away (-want +got):\n%s", diff)
	}
}
