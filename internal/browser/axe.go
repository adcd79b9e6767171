package browser

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The versions of the npm packages that the tests use, and their checksums.
var (
	//go:embed npm/package.json
	packageJSON []byte
	//go:embed npm/package-lock.json
	packageLock []byte
)

// Axe checks the page as it is now with axe-core, all rules of WCAG 2.2 A and AA and
// its best practices. Each violation fails the test, named with its elements.
func (p *Page) Axe() {
	p.t.Helper()
	if !Eval[bool](p, "'axe' in window") {
		script, err := os.ReadFile(filepath.Join(NodeModules(p.t), "axe-core", "axe.min.js"))
		if err != nil {
			p.t.Fatalf("browser: %v", err)
		}
		p.Do(string(script)) // through the debugger, which the page's policy does not bind
	}
	// It computes for a second, which on a machine with as much else to do takes many.
	report := evalWithin[string](p, 4*patience, `axe.run(document, {resultTypes: ['violations'], rules: {'target-size': {enabled: true}}}).then((r) => JSON.stringify({
		passes: r.passes.length,
		violations: r.violations.map((v) => ({id: v.id, help: v.help,
			nodes: v.nodes.map((n) => n.target.flat().join(' >>> ') + ': ' + n.failureSummary)})),
	}))`)
	var result struct {
		Passes     int
		Violations []struct {
			ID, Help string
			Nodes    []string
		}
	}
	if err := json.Unmarshal([]byte(report), &result); err != nil {
		p.t.Fatalf("browser: axe answered %s: %v", report, err)
	}
	if result.Passes == 0 {
		p.t.Error("axe checked nothing")
	}
	for _, v := range result.Violations {
		p.t.Errorf("axe: %s: %s\n\t%s", v.ID, v.Help, strings.Join(v.Nodes, "\n\t"))
	}
	if len(result.Violations) > 0 {
		p.evidence("axe-violation")
	}
}

// nodeModules installs what npm/package-lock.json pins, once for each version of
// that file, in the user's cache directory, and
// returns its node_modules.
func NodeModules(t testing.TB) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatalf("browser: %v", err)
	}
	sum := sha256.Sum256(packageLock)
	dir := filepath.Join(cache, "tidegate-tools", "npm-"+hex.EncodeToString(sum[:6]))
	modules, done := filepath.Join(dir, "node_modules"), filepath.Join(dir, "installed")
	if err := install(dir, done); err != nil {
		t.Fatalf("browser: install axe-core and typescript: %v", err)
	}
	return modules
}

func install(dir, done string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	lock, err := os.Create(filepath.Join(dir, "lock")) // test binaries run side by side
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	if _, err := os.Stat(done); err == nil {
		return nil
	}
	for name, content := range map[string][]byte{"package.json": packageJSON, "package-lock.json": packageLock} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	cmd := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci: %w (on Debian, apt-get install -y nodejs npm)\n%s", err, out)
	}
	return os.WriteFile(done, nil, 0o644)
}
