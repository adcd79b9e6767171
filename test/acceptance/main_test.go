//go:build acceptance

// Package acceptance tries the built program on real data against the promises
// it makes to its users. It runs with `make acceptance`.
package acceptance

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/tidegate/tidegate/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// sharedFile is a file of the data that must not enter the repository. It lies
// beside it, or where TIDEGATE_SHARED says.
func sharedFile(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("TIDEGATE_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared")
	}
	path := filepath.Join(dir, filepath.FromSlash(name))
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: the data to test with is missing; TIDEGATE_SHARED names its directory", err)
	}
	return path
}
