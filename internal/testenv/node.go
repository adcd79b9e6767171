package testenv

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// NodeModules installs what the package-lock.json of a folder names, and returns the folder
// node_modules. It lies in bin/test of the repository, for later runs and other test binaries:
// install nothing into it. Node.js has to be 20 or newer.
func NodeModules(t testing.TB, folder string) string {
	t.Helper()
	version, err := exec.Command("node", "-p", "process.versions.node").Output()
	if major, _, _ := strings.Cut(string(version), "."); err != nil || len(major) < 2 || major < "20" {
		t.Fatalf("node --version: %q, %v: install Node.js 20 or newer, with npm (Debian has it from 13 on)", version, err)
	}
	cache := filepath.Join(Must(moduleDir()), "bin", "test")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	installed := filepath.Join(cache, fmt.Sprintf("npm-%x", sha256.Sum256(Must(os.ReadFile(filepath.Join(folder, "package-lock.json"))))))
	if _, err := os.Stat(installed); err == nil {
		return filepath.Join(installed, "node_modules")
	}
	fresh := Must(os.MkdirTemp(cache, "npm-"))
	defer os.RemoveAll(fresh)
	for _, name := range []string{".npmrc", "package.json", "package-lock.json"} {
		if err := os.WriteFile(filepath.Join(fresh, name), Must(os.ReadFile(filepath.Join(folder, name))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	npm := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--no-update-notifier")
	npm.Dir = fresh
	if out, err := npm.CombinedOutput(); err != nil {
		t.Fatalf("npm ci in %s: %v\n%s", folder, err, out)
	}
	// Whoever did the same meanwhile was first.
	if err := os.Rename(fresh, installed); err != nil {
		if _, missing := os.Stat(installed); missing != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(installed, "node_modules")
}
