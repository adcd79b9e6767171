package dev

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// superuser owns the private cluster, and the database of the same name in it.
const superuser = "tidegate"

// environment keeps the caller's PG* variables and locale away from the cluster.
var environment = []string{"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL=C", "TZ=UTC"}

// initialize makes the cluster in data unless there is one. It works in a
// directory beside it and renames that when all is done, so that a cluster is
// whole or absent.
func (p *Postgres) initialize(ctx context.Context) error {
	if _, err := os.Stat(p.data); !errors.Is(err, fs.ErrNotExist) {
		if err != nil {
			return fmt.Errorf("dev: %w", err)
		}
		if _, err := os.Stat(filepath.Join(p.data, "PG_VERSION")); err != nil {
			return fmt.Errorf("dev: %s is there but is no Postgres cluster: move it away, or choose another directory with --data", p.data)
		}
		return nil
	}
	unfinished := p.data + ".unfinished"
	if err := os.RemoveAll(unfinished); err != nil {
		return fmt.Errorf("dev: %w", err)
	}
	if err := p.owner.makeDir(unfinished); err != nil {
		return err
	}
	if err := p.initdb(ctx, unfinished); err != nil {
		return err
	}
	if err := os.Rename(unfinished, p.data); err != nil {
		return fmt.Errorf("dev: %w", err)
	}
	return syncDir(filepath.Dir(p.data))
}

func (p *Postgres) initdb(ctx context.Context, dir string) error {
	// Trust is safe: only the owner and root can enter the socket's directory.
	cmd := exec.CommandContext(ctx, filepath.Join(p.installation.bin, "initdb"),
		"--encoding=UTF8", "--no-locale", "--data-checksums", "--auth=trust", "--username="+superuser, "--no-instructions")
	names, release, err := confine(cmd, p.owner, dir)
	if err != nil {
		return err
	}
	defer release()
	cmd.Args = append(cmd.Args, "--pgdata="+names[0])
	if p.cfg.NoSync {
		cmd.Args = append(cmd.Args, "--no-sync")
	}
	cmd.Env, cmd.Dir = environment, "/"
	runtime.LockOSThread() // its end would end cmd
	defer runtime.UnlockOSThread()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("dev: initdb as user %s: %w\n\t%s", p.owner.name, err, strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", "\n\t"))
	}
	return nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("dev: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("dev: sync %s: %w", dir, err)
	}
	return nil
}
