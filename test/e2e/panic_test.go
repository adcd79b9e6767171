package e2e

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/testenv"
)

// TestAPanicEndsTheProcess makes the built binary panic in each kind of goroutine: it
// ends at once, with the stack and a code that says so, instead of living on with a part
// that does nothing. What it had fetched is booked by the next one.
func TestAPanicEndsTheProcess(t *testing.T) {
	t.Parallel()
	binary := testenv.Killable(t)
	s := start(t, options{noRoles: true})
	args := []string{"--nats-url", s.nats.ClientURL(), "--database-url", s.url, "--ack-wait", "1s"}
	published := 0
	for _, point := range []string{
		"after-fetch",  // the role's own goroutine
		"after-commit", // a writer
		"sweep",        // a loop of the consumer
		"follow-holds", // a loop of the gate
	} {
		p := spawn(t, binary, []string{"TIDEGATE_KILLPOINT=" + point + ":1:panic"}, args...)
		p.awaitServing()
		s.publisher.Record(usage("p1", 3))
		published++
		if !p.wait(20 * time.Second) {
			t.Fatalf("a panic in %s leaves the process running:\n%s", point, p.out)
		}
		if code := p.cmd.ProcessState.ExitCode(); code != 2 {
			t.Errorf("a panic in %s: exit %d, want 2, Go's own", point, code)
		}
		for _, want := range []string{"panic: killpoint " + point, "goroutine ", ".go:"} {
			if !strings.Contains(p.out.String(), want) {
				t.Errorf("a panic in %s: no %q on stderr:\n%s", point, want, p.out)
			}
		}
	}
	p := spawn(t, binary, nil, args...)
	testenv.Eventually(s.t, "everything is booked once", func() bool { return s.booked("p1") == int64(3*published) })
	p.signal(syscall.SIGTERM)
	if !p.wait(10 * time.Second) {
		t.Error("the next process does not stop")
	}
}
