package dev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 5 * time.Second
	// maxStartFailures in a row make a start give up. Their pauses add up to 3.1 s,
	// long enough for the processes that a killed server leaves behind to end.
	maxStartFailures = 6
)

// pgServer is one postmaster process.
type pgServer struct {
	cmd    *exec.Cmd
	log    *pgLog
	exited chan struct{} // closed after err is set
	err    error
}

func (s *pgServer) becameReady() bool {
	select {
	case <-s.log.ready:
		return true
	default:
		return false
	}
}

// supervise starts the server whenever it is wanted and not running, until Stop.
// The kernel stops a server whose parent thread is gone, so that thread is held
// for as long as any may run.
func (p *Postgres) supervise() {
	defer close(p.done)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		s, closing := p.launch()
		if closing {
			return
		}
		if s == nil {
			<-p.wake
			continue
		}
		<-s.exited
		if pause := p.ended(s); pause > 0 {
			select {
			case <-time.After(pause):
			case <-p.wake:
			}
		}
	}
}

// launch starts a server if one is wanted.
func (p *Postgres) launch() (s *pgServer, closing bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing || !p.wanted {
		return nil, p.closing
	}
	s = &pgServer{log: newPGLog(p.log), exited: make(chan struct{})}
	if err := p.exec(s); err != nil {
		s.err = err
		close(s.exited)
		return s, false
	}
	p.server = s
	go func() {
		err := s.cmd.Wait()
		p.mu.Lock()
		s.err, p.server = err, nil // before anybody learns of the end
		p.mu.Unlock()
		close(s.exited)
	}()
	return s, false
}

func (p *Postgres) exec(s *pgServer) error {
	s.cmd = exec.Command(filepath.Join(p.installation.bin, "postgres"))
	names, release, err := confine(s.cmd, p.owner, p.data, p.socket)
	if err != nil {
		return err
	}
	defer release()
	s.cmd.Args = append(s.cmd.Args, "-D", names[0])
	for _, setting := range p.settings(names[1]) {
		s.cmd.Args = append(s.cmd.Args, "-c", setting)
	}
	s.cmd.Env, s.cmd.Dir = environment, "/"
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.WaitDelay = time.Second // sessions may outlive a killed server, holding its output open
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("dev: start postgres as user %s: %w", p.owner.name, err)
	}
	return nil
}

// ended books the end of s and returns how long to wait before the next start.
func (p *Postgres) ended(s *pgServer) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.wanted {
		return 0
	}
	if s.becameReady() {
		p.failures = 0
	} else {
		p.failures++
	}
	p.failure = fmt.Errorf("dev: postgres ended (%v):\n\t%s", s.err, s.log.lastWords())
	pause := min(minBackoff<<min(p.failures, 10), maxBackoff)
	if p.failures > 0 {
		pause /= 2
	}
	p.log.Error("the server ended by itself; it is started again", "error", p.failure, "in", pause)
	return pause
}

// up makes the server wanted and returns when it answers.
func (p *Postgres) up(ctx context.Context) error {
	p.mu.Lock()
	p.wanted, p.failures = true, 0
	p.mu.Unlock()
	p.signal()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		p.mu.Lock()
		ready := p.server != nil && p.server.becameReady()
		failures, failure := p.failures, p.failure
		p.mu.Unlock()
		if ready {
			return nil
		}
		if failures >= maxStartFailures {
			return fmt.Errorf("dev: the private Postgres in %s does not start: %w", p.dir, failure)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("dev: waiting for Postgres in %s: %w", p.dir, context.Cause(ctx))
		}
	}
}

// down makes the server unwanted and returns when it has ended.
func (p *Postgres) down(ctx context.Context, sig syscall.Signal) error {
	p.mu.Lock()
	p.wanted = false
	s := p.server
	p.mu.Unlock()
	p.signal()
	if s == nil {
		return nil
	}
	if err := s.end(sig); err != nil {
		return err
	}
	select {
	case <-s.exited:
		return nil
	case <-ctx.Done():
	}
	if err := s.end(syscall.SIGQUIT); err != nil {
		return err
	}
	<-s.exited
	return fmt.Errorf("dev: Postgres did not stop in time (%w) and was stopped hard: the next start recovers", context.Cause(ctx))
}

func (s *pgServer) end(sig syscall.Signal) error {
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("dev: stop Postgres: %w", err)
	}
	return nil
}

func (p *Postgres) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}
