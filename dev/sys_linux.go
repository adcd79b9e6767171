package dev

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

// confine makes cmd run as o, in a process group of its own (Ctrl-C is ours to
// handle: it must not stop Postgres before the last batch is booked), and end
// when the thread that starts it ends. cmd reaches dirs under the returned names.
//
// Another user may be unable to enter the parents of dirs (/root is 0700), so it
// gets them as open files. release closes them, once cmd has started.
func confine(cmd *exec.Cmd, o owner, dirs ...string) (names []string, release func(), err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGINT}
	if !o.switched {
		return dirs, func() {}, nil
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(o.uid), Gid: uint32(o.gid)}
	release = func() {
		for _, f := range cmd.ExtraFiles {
			f.Close()
		}
	}
	for i, dir := range dirs {
		f, err := os.Open(dir)
		if err != nil {
			release()
			return nil, nil, fmt.Errorf("dev: %w", err)
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		names = append(names, "/proc/self/fd/"+strconv.Itoa(3+i))
	}
	return names, release, nil
}

// servesFrom reports whether process pid is a postmaster at work in data: such a
// one has it as its working directory. A pid file alone proves nothing, since
// pids are used again.
func servesFrom(pid int, data string) bool {
	cwd, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid), "cwd"))
	if err != nil {
		return false
	}
	want, err := os.Stat(data)
	return err == nil && os.SameFile(cwd, want)
}
