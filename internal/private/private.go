// Package private keeps files and directories that others must not touch.
package private

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// What nobody but the owner may do, for [Check].
const (
	NoWriting = fs.FileMode(0o022) // the group and others may read
	NoAccess  = fs.FileMode(0o077)
	GroupRead = fs.FileMode(0o037) // the group may read, others nothing
)

// Check refuses what is at path if its mode lets the group or others do what is forbidden.
// What does not exist is an fs.ErrNotExist.
func Check(path string, forbidden fs.FileMode) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&forbidden != 0 {
		return fmt.Errorf("%s can be read or written by other users of this machine (mode %04o): chmod %04o it, once you know that none of them did", path, mode, mode&^forbidden)
	}
	return nil
}

// CheckDir refuses a directory in which others may write. There may be none yet.
func CheckDir(path string) error {
	if err := Check(path, NoWriting); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Write makes, or replaces, a file that its owner alone can read: it is there whole or not at all.
func Write(path string, data []byte) error {
	draft, err := Draft(path, data)
	if err != nil {
		return err
	}
	if err := os.Rename(draft, path); err != nil {
		_ = os.Remove(draft)
		return err
	}
	return nil
}

// Draft writes data to disk under another name beside path, and returns that name. Only
// the owner can read it.
func Draft(path string, data []byte) (string, error) {
	draft, err := os.CreateTemp(filepath.Dir(path), ".draft-*") // mode 0600
	if err != nil {
		return "", err
	}
	_, err = draft.Write(data)
	if err := errors.Join(err, draft.Sync(), draft.Close()); err != nil {
		_ = os.Remove(draft.Name())
		return "", err
	}
	return draft.Name(), nil
}
