package tesseract

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// bound limits a process that was started and waits for its input: the memory it may
// map, the processor time it may use, and that it may write no file.
func bound(pid int, memory, seconds uint64) error {
	for resource, limit := range map[int]uint64{
		unix.RLIMIT_AS:    memory,
		unix.RLIMIT_CPU:   seconds,
		unix.RLIMIT_FSIZE: 0,
		unix.RLIMIT_CORE:  0,
	} {
		if err := unix.Prlimit(pid, resource, &unix.Rlimit{Cur: limit, Max: limit}, nil); err != nil {
			return fmt.Errorf("tesseract: limit its process: %w", err)
		}
	}
	return nil
}
