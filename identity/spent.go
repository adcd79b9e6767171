package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// spent remembers ids that must not work any more although their signature is
// good: login codes used, sessions signed out. It forgets each when it would have
// expired anyway.
//
// With a directory it is one empty file an id, whose modification time is when to
// forget it. Creating a file that must not exist is atomic, so a code is used once
// even by several processes, and a sign-out outlives a restart.
type spent struct {
	dir string // "": in memory, of this process alone

	mu  sync.Mutex
	ids map[string]time.Time
}

func newSpent(dir string) (*spent, error) {
	if dir != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("identity: the directory for spent codes and sessions: %w", err)
		}
	}
	return &spent{dir: dir, ids: make(map[string]time.Time)}, nil
}

// add spends the id. first is false when it was spent before.
func (s *spent) add(id string, until, now time.Time) (first bool, err error) {
	if s.dir != "" {
		return s.addFile(id, until, now)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for other, until := range s.ids {
		if until.Before(now) {
			delete(s.ids, other)
		}
	}
	_, known := s.ids[id]
	s.ids[id] = until
	return !known, nil
}

func (s *spent) has(id string) (bool, error) {
	if s.dir == "" {
		s.mu.Lock()
		defer s.mu.Unlock()
		_, known := s.ids[id]
		return known, nil
	}
	_, err := os.Stat(filepath.Join(s.dir, id))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// addFile gives the file its time before it gets its name: no moment exists in
// which another process could see it and think it old.
func (s *spent) addFile(id string, until, now time.Time) (first bool, err error) {
	s.forget(now)
	draft, err := os.CreateTemp(s.dir, ".draft-*")
	if err != nil {
		return false, err
	}
	defer os.Remove(draft.Name())
	if err := errors.Join(draft.Close(), os.Chtimes(draft.Name(), until, until)); err != nil {
		return false, err
	}
	err = os.Link(draft.Name(), filepath.Join(s.dir, id))
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	return err == nil, err
}

// forget removes what has expired, an hour late: clocks of machines that share the
// directory may differ.
func (s *spent) forget(now time.Time) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return // add fails next, and says so
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err == nil && info.Mode().IsRegular() && info.ModTime().Before(now.Add(-time.Hour)) {
			_ = os.Remove(filepath.Join(s.dir, entry.Name())) // gone already, or tried again next time
		}
	}
}
