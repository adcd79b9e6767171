package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/internal/testenv"
)

// An interactive bash completes what is typed; the others are told in their own words.
func TestShellsComplete(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program := filepath.Join(dir, "tidegate")
	if err := os.Link(testenv.Binary(t, "cmd/tidegate"), program); err != nil {
		if err := exec.Command("cp", testenv.Binary(t, "cmd/tidegate"), program).Run(); err != nil { // another file system
			t.Fatal(err)
		}
	}
	bash := exec.Command("script", "--quiet", "--command", "bash --norc -i", "/dev/null")
	bash.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "HISTFILE=", "TERM=dumb")
	bash.Stdin = strings.NewReader("source <(tidegate completion bash)\ntidegate budget limits l\t\nexit\n")
	out, err := bash.Output()
	if err != nil || !strings.Contains(string(out), "See: tidegate budget limits ls --help") {
		t.Errorf("%v\n%s", err, out)
	}
	for shell, want := range map[string]string{
		"zsh":  "autoload -U +X bashcompinit && bashcompinit\ncomplete -o default -C " + program + " tidegate\n",
		"fish": "\n    " + program + "\nend\ncomplete -c tidegate -a \"(__complete_tidegate)\"\n",
	} {
		if out, err := exec.Command(program, "completion", shell).Output(); err != nil || !strings.HasSuffix(string(out), want) {
			t.Errorf("%s: %v\n%s", shell, err, out)
		}
	}
}
