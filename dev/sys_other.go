//go:build !linux

package dev

import (
	"errors"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// confine makes cmd run in a process group of its own: Ctrl-C is ours to handle,
// it must not stop Postgres before the last batch is booked. Outside Linux a
// killed Tidegate leaves its Postgres behind; the next start stops it.
func confine(cmd *exec.Cmd, o owner, dirs ...string) (names []string, release func(), err error) {
	if o.switched {
		return nil, nil, errors.New("dev: Postgres refuses to run as root: run Tidegate as an ordinary user, or name a running Postgres with --database-url")
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return dirs, func() {}, nil
}

// servesFrom reports whether process pid is a postmaster at work in data: its
// command line names both.
func servesFrom(pid int, data string) bool {
	out, err := exec.Command("ps", "-o", "args=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && strings.Contains(string(out), "postgres") && strings.Contains(string(out), data)
}
