// Package scripts holds the tests of the scripts beside it.
package scripts

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// machine is a PATH with the commands a shell script needs, and stubs.
type machine struct{ dir string }

func newMachine(t *testing.T, stubs map[string]string) machine {
	t.Helper()
	m := machine{dir: t.TempDir()}
	for _, tool := range []string{"bash", "cat", "env", "grep", "mktemp", "rm", "sort", "tail", "touch", "xargs", "chmod", "echo"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(m.dir, tool)); err != nil {
			t.Fatal(err)
		}
	}
	for name, script := range stubs {
		text := "#!/usr/bin/env bash\necho \"" + name + " $*\" >>\"$CALLS\"\n" + script + "\n"
		if err := os.WriteFile(filepath.Join(m.dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// deps runs deps.sh there and returns what it printed and which stubs it called.
func (m machine) deps(t *testing.T, args ...string) (output string, calls []string, ok bool) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "calls")
	cmd := exec.Command("./deps.sh", args...)
	cmd.Env = []string{"PATH=" + m.dir, "CALLS=" + log, "BIN=" + m.dir}
	out, err := cmd.CombinedOutput()
	b, _ := os.ReadFile(log)
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "id ") {
			calls = append(calls, line)
		}
	}
	return string(out), calls, err == nil
}

const (
	root      = "echo 0"
	user      = "echo 1000"
	installer = `case "$*" in install*) for p in tesseract node; do echo '#!/bin/sh' >"$BIN/$p"; chmod +x "$BIN/$p"; done;; esac`
)

func TestDepsIsQuietWhenAllIsThere(t *testing.T) {
	m := newMachine(t, map[string]string{"go": "", "tesseract": "", "node": "", "id": root, "apt-get": ""})
	if out, calls, ok := m.deps(t, "tesseract", "node"); out != "" || len(calls) > 0 || !ok {
		t.Errorf("ok %t, printed %q, called %q", ok, out, calls)
	}
}

func TestDepsInstallsWhatIsMissingOnce(t *testing.T) {
	for _, who := range []struct {
		name  string
		stubs map[string]string
	}{
		{"root", map[string]string{"id": root}},
		{"sudo", map[string]string{"id": user, "sudo": `[ "$2" = true ] && exit; shift; exec "$@"`}},
	} {
		t.Run(who.name, func(t *testing.T) {
			who.stubs["go"], who.stubs["apt-get"] = "", installer
			m := newMachine(t, who.stubs)
			out, calls, ok := m.deps(t, "tesseract", "node")
			var apt []string
			for _, call := range calls {
				if strings.HasPrefix(call, "apt-get") {
					apt = append(apt, call)
				}
			}
			want := "apt-get update; apt-get install -y --no-install-recommends tesseract-ocr nodejs"
			if got := strings.Join(apt, "; "); got != want || !ok {
				t.Errorf("ok %t, ran %q, want %q; it printed %s", ok, got, want, out)
			}
			if out, calls, ok := m.deps(t, "tesseract", "node"); out != "" || len(calls) > 0 || !ok {
				t.Errorf("the second time: ok %t, printed %q, called %q", ok, out, calls)
			}
		})
	}
}

func TestDepsSaysInOneLineWhatToInstall(t *testing.T) {
	for name, c := range map[string]struct {
		stubs map[string]string
		want  string
	}{
		"no rights":      {map[string]string{"go": "", "id": user, "apt-get": installer}, "sudo apt-get install tesseract-ocr nodejs"},
		"sudo asks":      {map[string]string{"go": "", "id": user, "sudo": "exit 1", "apt-get": installer}, "sudo apt-get install tesseract-ocr nodejs"},
		"macOS":          {map[string]string{"go": "", "id": user, "brew": ""}, "brew install node tesseract"},
		"another system": {map[string]string{"go": "", "id": root}, "what Debian calls tesseract-ocr nodejs"},
		"no Go":          {map[string]string{"id": root, "apt-get": installer}, "Go 1.26 is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			out, calls, ok := newMachine(t, c.stubs).deps(t, "tesseract", "node")
			if ok || !strings.Contains(out, c.want) || strings.Count(out, "\n") != 1 {
				t.Errorf("ok %t, printed %q, want one line with %q", ok, out, c.want)
			}
			for _, call := range calls {
				if strings.HasPrefix(call, "apt-get") {
					t.Errorf("it ran %q", call)
				}
			}
		})
	}
}

func TestDepsReportsAFailedInstallation(t *testing.T) {
	for name, apt := range map[string]string{"apt-get fails": "echo no network; exit 100", "apt-get installs nothing": ""} {
		m := newMachine(t, map[string]string{"go": "", "id": root, "apt-get": apt})
		if out, _, ok := m.deps(t, "node"); ok || !strings.Contains(out, "nodejs") {
			t.Errorf("%s: ok %t, printed %q", name, ok, out)
		}
	}
}
