package scripts

import (
	"os/exec"
	"strings"
	"testing"
)

func TestTemporaryFilesAreInMemoryWhereThereIsRoom(t *testing.T) {
	const roomy, small, executable, noexec = "echo Avail; echo 8000000", "echo Avail; echo 65536", "echo rw,relatime", "echo rw,nosuid,nodev,noexec,relatime"
	for _, c := range []struct{ df, findmnt, tmpdir, want string }{
		{roomy, executable, "", "/dev/shm"},
		{roomy, executable, "/var/tmp", "/var/tmp"},
		{small, executable, "", "/tmp"},
		{roomy, noexec, "", "/tmp"},
		{"exit 1", executable, "", "/tmp"},
		{roomy, "exit 1", "", "/tmp"},
	} {
		m := newMachine(t, map[string]string{"df": c.df, "findmnt": c.findmnt})
		cmd := exec.Command("./tmpdir.sh")
		cmd.Env = []string{"PATH=" + m.dir, "CALLS=/dev/null", "TMPDIR=" + c.tmpdir}
		out, err := cmd.Output()
		if got := strings.TrimSpace(string(out)); err != nil || got != c.want {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
}
