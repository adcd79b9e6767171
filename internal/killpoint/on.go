//go:build killpoint

// Package killpoint lets a test kill the real binary, or make it panic, at a chosen line.
package killpoint

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

var (
	name   string
	panics bool
	count  atomic.Int64
)

func init() {
	var n string
	name, n, _ = strings.Cut(os.Getenv("TIDEGATE_KILLPOINT"), ":")
	n, panics = strings.CutSuffix(n, ":panic")
	at, _ := strconv.ParseInt(n, 10, 64)
	count.Store(at)
}

// Here kills the process with SIGKILL at the n-th passage, when TIDEGATE_KILLPOINT is
// "point:n", or panics there when it is "point:n:panic".
func Here(point string) {
	if point == name && count.Add(-1) == 0 {
		if panics {
			panic("killpoint " + point)
		}
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}
