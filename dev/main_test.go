package dev_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/tidegate/tidegate/dev"
	"github.com/tidegate/tidegate/internal/testenv"
)

// A test binary started with this variable is a program that a test kills: it
// runs the function of that name on the directory in os.Args[1].
const roleVar = "TIDEGATE_DEV_TEST_ROLE"

var roles = map[string]func(dir string) error{
	"write-rows":     writeRows,
	"write-messages": writeMessages,
	"start-and-stop": startAndStop,
}

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVar); role != "" {
		if err := roles[role](os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	testenv.Main(m)
}

// program is this binary in another process, in one of the roles.
type program struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
}

func startProgram(t *testing.T, role, dir string) *program {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, dir)
	cmd.Env = append(os.Environ(), roleVar+"="+role)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return &program{cmd: cmd, lines: bufio.NewScanner(out)}
}

// line returns the next line the program prints.
func (p *program) line(t *testing.T) string {
	t.Helper()
	if !p.lines.Scan() {
		t.Fatalf("the program ended early: %v", p.lines.Err())
	}
	return p.lines.Text()
}

// kill ends the program as kill -9 does and returns the last line it had printed.
func (p *program) kill(t *testing.T) (last string) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for p.lines.Scan() {
		last = p.lines.Text()
	}
	return last
}

// startPostgres starts what survives everything but a crash of the machine.
func startPostgres(t *testing.T, dir string) *dev.Postgres {
	t.Helper()
	pg, err := dev.StartPostgres(t.Context(), dev.PostgresConfig{Dir: dir, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pg.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return pg
}

func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || !strings.Contains(string(b), ") Z ")
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q lacks %q", err, part)
		}
	}
}
