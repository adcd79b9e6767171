package cluster

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

const diskSize = "size=512m,mode=755"

// ownDisk makes a directory a file system of its own, which can become full. It takes root, or a user who may mount.
func ownDisk(t *testing.T, dir string) {
	t.Helper()
	if err := syscall.Mount("tidegate", dir, "tmpfs", 0, diskSize); err != nil {
		t.Fatalf("to try full disks, this test mounts small ones: %v. Run it as root, in a container with the capability SYS_ADMIN", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
}

// full keeps the disks of these directories full for 10 s: what is freed meanwhile is taken, too. Then at the latest
// stopped must not count on, if it is given.
func full(t *testing.T, dirs []string, stopped func() int64) {
	t.Helper()
	block, before, begin := make([]byte, 4096), int64(-1), time.Now()
	for time.Since(begin) < 10*time.Second {
		for _, dir := range dirs {
			f, err := os.OpenFile(filepath.Join(dir, "full"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
			for err == nil {
				_, err = f.Write(block)
			}
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			_ = f.Close()
		}
		if stopped != nil && before < 0 && time.Since(begin) > 8*time.Second {
			before = stopped()
		}
		time.Sleep(10 * time.Millisecond)
	}
	if stopped != nil && stopped() != before {
		t.Errorf("%v are full, and yet something was written", dirs)
	}
	for _, dir := range dirs {
		if err := os.Remove(filepath.Join(dir, "full")); err != nil {
			t.Fatal(err)
		}
	}
}
