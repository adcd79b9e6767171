package dev

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ErrNoPostgres says what to install. [StartPostgres] returns it, wrapped, when
// the machine has no Postgres server.
var ErrNoPostgres = errors.New("no Postgres server on this machine: " +
	"`apt-get install postgresql` (Debian, Ubuntu) or `brew install postgresql@17` (macOS), or name a running one with --database-url")

// places are where packages put servers that they keep off the PATH.
var places = []string{
	"/usr/lib/postgresql/*/bin",
	"/opt/homebrew/opt/postgresql*/bin",
	"/usr/local/opt/postgresql*/bin",
}

// installation is one Postgres server on this machine.
type installation struct {
	bin   string // directory of initdb and postgres
	major int
}

// installations finds the servers of this machine, the one on the PATH first,
// then the newest first.
func installations() []installation {
	var found, first []installation
	for _, place := range places {
		dirs, _ := filepath.Glob(place) // the patterns are well formed
		for _, dir := range dirs {
			if i, ok := inspect(dir); ok {
				found = append(found, i)
			}
		}
	}
	slices.SortStableFunc(found, func(a, b installation) int { return b.major - a.major })
	if path, err := exec.LookPath("postgres"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			if i, ok := inspect(filepath.Dir(real)); ok {
				first = append(first, i)
			}
		}
	}
	return append(first, found...)
}

func inspect(dir string) (installation, bool) {
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return installation{}, false
	}
	out, err := exec.Command(filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return installation{}, false
	}
	major, ok := majorVersion(string(out))
	return installation{bin: dir, major: major}, ok
}

var versionNumber = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// majorVersion reads "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)".
func majorVersion(s string) (int, bool) {
	m := versionNumber.FindStringSubmatch(s)
	if m == nil {
		return 0, false
	}
	n, err := strconv.Atoi(m[1])
	return n, err == nil
}

// PostgresVersion is the major version of a cluster that [StartPostgres] would make.
func PostgresVersion() (int, error) {
	found := installations()
	if len(found) == 0 {
		return 0, fmt.Errorf("dev: %w", ErrNoPostgres)
	}
	return found[0].major, nil
}

// choose picks the installation for the cluster in data: the one that made it,
// or the preferred one when there is none yet.
func choose(data string) (installation, error) {
	found := installations()
	if len(found) == 0 {
		return installation{}, fmt.Errorf("dev: %w", ErrNoPostgres)
	}
	b, err := os.ReadFile(filepath.Join(data, "PG_VERSION"))
	if errors.Is(err, os.ErrNotExist) {
		return found[0], nil
	}
	if err != nil {
		return installation{}, fmt.Errorf("dev: %w", err)
	}
	version := strings.TrimSpace(string(b))
	var have []string
	for _, i := range found {
		if strconv.Itoa(i.major) == version {
			return i, nil
		}
		have = append(have, fmt.Sprintf("%d in %s", i.major, i.bin))
	}
	return installation{}, fmt.Errorf("dev: %s was made by Postgres %s, but this machine has only %s: "+
		"install Postgres %[2]s, or move the data with pg_upgrade, or choose another directory with --data",
		data, version, strings.Join(have, ", "))
}
