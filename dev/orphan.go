package dev

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// orphanPatience is how long an orphan may take to stop cleanly.
const orphanPatience = 30 * time.Second

// stopOrphan stops the server that a killed Tidegate left running in data and
// waits for its end. The caller holds the lock, so nobody else uses it.
func (p *Postgres) stopOrphan(ctx context.Context) error {
	pidFile := filepath.Join(p.data, "postmaster.pid")
	b, err := os.ReadFile(pidFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("dev: %w", err)
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	pid, err := strconv.Atoi(string(bytes.TrimSpace(line)))
	if err != nil || pid <= 1 {
		return nil // Postgres judges its own file
	}
	if !servesFrom(pid, p.data) {
		// Left by a crash. Another process may have the number now, and Postgres
		// would take it for a server; that nothing runs is known here.
		if err := os.Remove(pidFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("dev: %w", err)
		}
		return nil
	}
	p.log.Warn("stopping the server that an earlier, killed process left running", "pid", pid)
	return p.endOrphan(ctx, pid)
}

func (p *Postgres) endOrphan(ctx context.Context, pid int) error {
	sig, patience := syscall.SIGINT, time.After(orphanPatience)
	send := func() error {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("dev: stop the Postgres (pid %d) that runs in %s: %w", pid, p.data, err)
		}
		return nil
	}
	if err := send(); err != nil {
		return err
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for servesFrom(pid, p.data) {
		select {
		case <-tick.C:
		case <-patience:
			sig = syscall.SIGQUIT
			if err := send(); err != nil {
				return err
			}
		case <-ctx.Done():
			return fmt.Errorf("dev: an earlier Postgres (pid %d) still runs in %s: %w", pid, p.data, context.Cause(ctx))
		}
	}
	return nil
}
