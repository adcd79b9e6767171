package identity_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tidegate/tidegate/identity"
)

func testMode(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

func TestTheKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identity", "session.key")
	keys := make([][]byte, 8)
	var together sync.WaitGroup
	for i := range keys { // processes that start together
		together.Go(func() {
			key, err := identity.LoadKey(path)
			if err != nil {
				t.Error(err)
			}
			keys[i] = key
		})
	}
	together.Wait()
	for _, key := range keys {
		if len(key) != identity.KeyBytes || string(key) != string(keys[0]) || string(key) == strings.Repeat("\x00", identity.KeyBytes) {
			t.Fatalf("%x and %x", key, keys[0])
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if files, _ := os.ReadDir(filepath.Dir(path)); len(files) != 1 {
		t.Errorf("drafts are left: %v", files)
	}
	for at, modes := range map[string][]os.FileMode{path: {0o660, 0o604, 0o602}, filepath.Dir(path): {0o770, 0o707}} {
		usual := testMode(t, at)
		for _, mode := range modes {
			if err := os.Chmod(at, mode); err != nil {
				t.Fatal(err)
			}
			if _, err := identity.LoadKey(path); err == nil || !strings.Contains(err.Error(), at+" can be read or written by other users") || !strings.Contains(err.Error(), "chmod") {
				t.Errorf("%s with mode %o: %v", at, mode, err)
			}
		}
		if err := os.Chmod(at, usual); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := identity.LoadKey(path); err == nil || !strings.Contains(err.Error(), "delete it") {
		t.Errorf("a short key: %v", err)
	}
	if _, err := identity.NewSessions(identity.SessionConfig{Key: []byte("short")}); err == nil {
		t.Error("sessions with a short key")
	}
	if _, err := identity.NewSessions(identity.SessionConfig{Key: testKey, Idle: -1}); err == nil {
		t.Error("sessions with a negative limit")
	}
}
