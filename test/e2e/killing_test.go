package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/testenv"
)

// killing keeps one process running that kills itself again and again, each time at a
// line that was drawn.
type killing struct {
	t      testing.TB
	binary string
	args   []string
	random *rand.Rand
	lines  []line

	cancel context.CancelFunc
	done   chan struct{}
	mu     sync.Mutex
	killed map[string]int // at each line
}

// line is a killpoint and how often it may be passed before it kills.
type line struct {
	name string
	most int
}

// startKilling begins with the first line, and returns when that process is ready.
func startKilling(t testing.TB, random *rand.Rand, lines []line, args ...string) *killing {
	t.Helper()
	k := &killing{t: t, binary: testenv.Killable(t), args: args, random: random, lines: lines, done: make(chan struct{}), killed: map[string]int{}}
	ctx, cancel := context.WithCancel(t.Context()) // which ends before whatever else the test cleans up
	k.cancel = cancel
	first := k.spawn(lines[0])
	first.awaitReady()
	go func() {
		defer close(k.done)
		for at, p := lines[0], first; k.wait(ctx, at, p); {
			at = lines[random.IntN(len(lines))]
			p = k.spawn(at)
		}
	}()
	return k
}

func (k *killing) spawn(at line) *process {
	return spawn(k.t, k.binary, []string{fmt.Sprintf("TIDEGATE_KILLPOINT=%s:%d", at.name, 1+k.random.IntN(at.most))}, k.args...)
}

// wait returns true when the process has killed itself, and kills it when ctx ends.
func (k *killing) wait(ctx context.Context, at line, p *process) bool {
	select {
	case <-p.done:
		if status := p.cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
			k.t.Errorf("to be killed at %s, but: %v\n%s", at.name, p.cmd.ProcessState, p.out)
			return false
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		k.killed[at.name]++
		return ctx.Err() == nil
	case <-ctx.Done():
		p.signal(syscall.SIGKILL)
		p.wait(10 * time.Second)
		return false
	}
}

// end kills the last process and returns how many died at each line.
func (k *killing) end() map[string]int {
	k.cancel()
	<-k.done
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.killed
}
