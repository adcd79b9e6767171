//go:build killpoint

// Package killpoint lets a test kill the real binary at a chosen line.
package killpoint

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

var (
	name  string
	count atomic.Int64
)

func init() {
	var n string
	name, n, _ = strings.Cut(os.Getenv("TIDEGATE_KILLPOINT"), ":")
	at, _ := strconv.ParseInt(n, 10, 64)
	count.Store(at)
}

// Here kills the process with SIGKILL at the n-th passage, when
// TIDEGATE_KILLPOINT is "point:n".
func Here(point string) {
	if point == name && count.Add(-1) == 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}
