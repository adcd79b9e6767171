package dev

import (
	"context"
	"os/exec"
	"path/filepath"
	"runtime"
)

// settings are given on the command line, so that a newer Tidegate brings its own
// to an old cluster and no file in it decides who may connect.
func (p *Postgres) settings(socketDir string) []string {
	s := []string{
		"listen_addresses=",
		"unix_socket_directories=" + socketDir,
		"unix_socket_permissions=0700",
		"port=5432", // names the socket, nothing listens there
		"cluster_name=tidegate",

		"timezone=UTC",
		"log_timezone=UTC",
		"log_destination=stderr",
		"logging_collector=off",
		"log_line_prefix=%b|",           // what pgLog reads
		"log_min_error_statement=panic", // statements hold data
		"lc_messages=C",

		// A ledger takes many small commits and few long queries.
		"shared_buffers=256MB",
		"max_wal_size=2GB",
		"checkpoint_timeout=15min",
		"jit=off",
	}
	if p.lz4 {
		s = append(s, "wal_compression=lz4")
	}
	if p.cfg.NoSync {
		s = append(s, "fsync=off", "full_page_writes=off", "shared_buffers=64MB")
	}
	return s
}

// knows reports whether the server accepts a setting that depends on how it was
// built.
func (p *Postgres) knows(ctx context.Context, setting string) bool {
	cmd := exec.CommandContext(ctx, filepath.Join(p.installation.bin, "postgres"))
	names, release, err := confine(cmd, p.owner, p.data)
	if err != nil {
		return false
	}
	defer release()
	cmd.Args = append(cmd.Args, "-D", names[0], "-c", setting, "-C", "wal_compression")
	cmd.Env, cmd.Dir = environment, "/"
	runtime.LockOSThread() // its end would end cmd
	defer runtime.UnlockOSThread()
	return cmd.Run() == nil
}
