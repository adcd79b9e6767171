package dev

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

const (
	socketName = ".s.PGSQL.5432"
	// maxSocketPath is the shorter of what Linux (107 bytes) and macOS (103) allow.
	maxSocketPath = 103
	// shortDirs names the directories that stand in where Dir is too long a path.
	shortDirs = "tidegate-postgres-"
)

// prepareSocket makes the private directory of the socket: Dir/socket, or, when
// that is too long a path for a socket, a new one under the temporary directory,
// which Dir/socket then links to. The link tells the next start what to clear
// away after a kill -9.
func (p *Postgres) prepareSocket() error {
	link := filepath.Join(p.dir, "socket")
	p.removeShortSocket()
	if fits(link) {
		p.socket = link
		return p.owner.makeDir(link)
	}
	removeSocketDir(link) // there if the cluster was moved here from a shorter path
	for _, tmp := range []string{os.TempDir(), "/tmp"} {
		short, err := os.MkdirTemp(tmp, shortDirs) // 0700 and of a new name: nobody can have prepared it
		if err != nil {
			continue
		}
		if !fits(short) {
			os.Remove(short)
			continue
		}
		p.socket = short
		if p.owner.switched {
			if err := os.Lchown(short, p.owner.uid, p.owner.gid); err != nil {
				return fmt.Errorf("dev: %w", err)
			}
		}
		if err := os.Symlink(short, link); err != nil {
			return fmt.Errorf("dev: %w", err)
		}
		return nil
	}
	return fmt.Errorf("dev: no directory short enough for a Unix socket (%d bytes) in %s or /tmp: set TMPDIR to a short one", maxSocketPath, os.TempDir())
}

func fits(dir string) bool { return len(filepath.Join(dir, socketName)) <= maxSocketPath }

// removeShortSocket removes the directory that Dir/socket links to, if it is one
// that prepareSocket made, and the link. It removes no other file.
func (p *Postgres) removeShortSocket() {
	link := filepath.Join(p.dir, "socket")
	short, err := os.Readlink(link)
	if err != nil {
		return // a directory, or nothing
	}
	if strings.HasPrefix(filepath.Base(short), shortDirs) {
		removeSocketDir(short)
	}
	os.Remove(link)
}

func removeSocketDir(dir string) {
	os.Remove(filepath.Join(dir, socketName))
	os.Remove(filepath.Join(dir, socketName+".lock"))
	os.Remove(dir)
}

// URL is the address of the database, for pgx and for psql alike.
func (p *Postgres) URL() string { return p.DatabaseURL(superuser) }

// DatabaseURL is the address of another database in the cluster.
func (p *Postgres) DatabaseURL(name string) string {
	// libpq does not read "+" as a space, url.Values writes it so.
	escape := func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
	return "postgres://" + superuser + "@/" + escape(name) + "?host=" + escape(p.socket)
}
