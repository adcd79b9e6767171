// Package python_test builds the Python client, installs it into an empty environment, and runs
// its tests and the snippets of its page against the real system.
package python_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tidegate/tidegate/edge"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/internal/testenv/system"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestPython(t *testing.T) {
	python, env := install(t), append(os.Environ(), run(t)...)
	env = append(env, "PYTHONDONTWRITEBYTECODE=1", "TIDEGATE_SNIPPETS="+snippets(t))
	tests := testenv.Must(filepath.Abs("tests"))
	for _, file := range testenv.Must(filepath.Glob(filepath.Join(tests, "test_*.py"))) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel() // most of the time they wait
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, python, "-W", "error", "-m", "unittest", "discover", "-s", tests, "-p", filepath.Base(file))
			cmd.Dir, cmd.Env = t.TempDir(), env // the tests see what is installed, not what is beside them
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		})
	}
}

// snippets is a file with what the pages show, in the order in which one reads them: a JSON list.
func snippets(t *testing.T) string {
	t.Helper()
	all := slices.Concat(
		testenv.Snippets(t, "docs/integrations/python.md", "python"), // ends with a client that is closed
		testenv.Snippets(t, "clients/python/README.md", "python"),
		testenv.Snippets(t, "README.md", "python"),
	)
	file := filepath.Join(t.TempDir(), "snippets.json")
	if err := os.WriteFile(file, testenv.Must(json.Marshal(all)), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// install does what docs/integrations/python.md says, and returns the Python of the environment,
// otherwise empty, into which the package is installed. Nothing is downloaded.
func install(t *testing.T) string {
	t.Helper()
	dir, python := t.TempDir(), builder(t)
	if err := os.CopyFS(filepath.Join(dir, "clients", "python"), os.DirFS(".")); err != nil { // building writes into it
		t.Fatal(err)
	}
	empty := filepath.Join(dir, "environment", "bin", "python")
	// The pip of that environment, with the setuptools that are here instead of those that it would fetch.
	pip := fmt.Sprintf("#!/bin/sh\nexec %s -m pip --python %s \"$@\" --quiet --no-index --no-build-isolation --no-deps --no-compile\n", python, empty)
	if err := os.WriteFile(filepath.Join(dir, "pip"), []byte(pip), 0o700); err != nil {
		t.Fatal(err)
	}
	tools := testenv.Must(exec.Command(python, "-c", "import os, setuptools; print(os.path.dirname(os.path.dirname(setuptools.__file__)), end='')").Output())
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-ec", python+" -m venv --without-pip environment\n"+testenv.Snippets(t, "docs/integrations/python.md", "sh")[0])
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "PYTHONPATH="+string(tools), "PIP_DISABLE_PIP_VERSION_CHECK=1", "PIP_NO_INPUT=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return empty
}

// builder is a Python that can build a package: the first on the PATH, or Debian's.
func builder(t *testing.T) string {
	t.Helper()
	for _, python := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(python, "-c", "import importlib.util as u, sys; sys.exit(None in map(u.find_spec, ('pip', 'setuptools', 'wheel', 'venv')))").Run() == nil {
			return python
		}
	}
	t.Fatal("no Python 3 has what builds a package (on Debian: apt-get install python3-pip python3-setuptools python3-wheel python3-venv)")
	return ""
}

// run starts the system and an edge, and returns the environment in which the tests find them.
func run(t *testing.T) []string {
	t.Helper()
	s := system.Start(t, testenv.NATS(t).ClientURL())
	e := testenv.Must(edge.New(edge.Config{Conn: s.Connect(t), Tokens: s.Store}))
	web := httptest.NewServer(e)
	t.Cleanup(func() {
		web.Close()
		_ = e.Close(context.Background())
	})
	for _, port := range []string{"capped-1", "capped-2", "capped-3", "capped-4", "capped-5", "async-capped-1", "async-capped-2", "async-capped-3"} {
		s.SetBudget(t, port, 1000)
	}
	s.SetBudget(t, "docs", 8000)
	token := func(ports ...string) string { return s.Token(t, ports, edge.PermissionReport, edge.PermissionReserve) }
	return []string{"TIDEGATE_URL=" + web.URL, "TIDEGATE_TOKEN=" + token(), "TIDEGATE_TOKEN_OF_OTHER=" + token("other")}
}
