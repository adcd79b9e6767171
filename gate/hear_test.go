package gate

import (
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/bus"
)

func TestReadingsAreDue(t *testing.T) {
	t.Parallel()
	const second, minute = time.Second, time.Minute
	for _, c := range []struct {
		since, took time.Duration
		silent      bool
		want        string
	}{
		{since: minute, took: second, want: ""},
		{since: minute + 1, took: second, want: "periodic"},
		{since: 10 * minute, took: minute, want: ""}, // a reading may take a twentieth of the time
		{since: 20*minute + 1, took: minute, want: "periodic"},
		{since: bus.Silence, silent: true, want: ""},
		{since: bus.Silence + 1, silent: true, want: "silence"},
		{since: 20 * second, took: second, silent: true, want: ""},
		{since: 20*second + 1, took: second, silent: true, want: "silence"},
		{since: minute + 1, took: 10 * second, silent: true, want: "silence"}, // not after 200 s: the gate grows stale
	} {
		if got := due(c.since, c.took, c.silent); got != c.want {
			t.Errorf("%s after a reading that took %s, silent: %v: %q, want %q", c.since, c.took, c.silent, got, c.want)
		}
	}
}
