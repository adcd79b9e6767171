package dev

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// owner is the user Postgres runs as: it refuses to run as root.
type owner struct {
	name     string
	uid, gid int
	switched bool // another user than ours
}

// findOwner is the user who owns the cluster in data, or the one who shall.
func findOwner(data string) (owner, error) {
	me := owner{name: "uid " + strconv.Itoa(os.Getuid()), uid: os.Geteuid(), gid: os.Getegid()}
	info, err := os.Stat(data)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if me.uid == 0 {
			return servantOfRoot()
		}
		return me, nil
	case err != nil:
		return owner{}, fmt.Errorf("dev: %w", err)
	}
	st := info.Sys().(*syscall.Stat_t)
	o := owner{name: "uid " + strconv.Itoa(int(st.Uid)), uid: int(st.Uid), gid: int(st.Gid), switched: int(st.Uid) != me.uid}
	if u, err := user.LookupId(strconv.Itoa(o.uid)); err == nil {
		o.name = u.Username
	}
	if o.switched && me.uid != 0 {
		return owner{}, fmt.Errorf("dev: the Postgres cluster in %s belongs to %s: run as that user or as root, or choose another directory with --data", data, o.name)
	}
	if o.uid == 0 {
		return owner{}, fmt.Errorf("dev: the Postgres cluster in %s belongs to root, and Postgres refuses to run as root: `chown -R postgres %[1]s`", data)
	}
	return o, nil
}

// servantOfRoot is an unprivileged user: Debian's postgres, or nobody.
func servantOfRoot() (owner, error) {
	for _, name := range []string{"postgres", "_postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errUID := strconv.Atoi(u.Uid)
		gid, errGID := strconv.Atoi(u.Gid)
		if errUID == nil && errGID == nil && uid > 0 {
			return owner{name: name, uid: uid, gid: gid, switched: true}, nil
		}
	}
	return owner{}, errors.New("dev: Postgres refuses to run as root, and there is no user postgres or nobody to run it as: " +
		"run Tidegate as an ordinary user, or name a running Postgres with --database-url")
}

// makeDir makes a private directory of the owner, or checks the one that is there.
func (o owner) makeDir(path string) error {
	err := os.Mkdir(path, 0o700)
	if errors.Is(err, fs.ErrExist) {
		info, err := os.Lstat(path)
		if err != nil {
			return fmt.Errorf("dev: %w", err)
		}
		if uid := int(info.Sys().(*syscall.Stat_t).Uid); !info.IsDir() || uid != o.uid {
			return fmt.Errorf("dev: %s must be a directory of %s, but belongs to uid %d: move it away", path, o.name, uid)
		}
		return nil
	}
	if err == nil && o.switched {
		err = os.Lchown(path, o.uid, o.gid)
	}
	if err != nil {
		return fmt.Errorf("dev: make %s for user %s: %w", filepath.Base(path), o.name, err)
	}
	return nil
}
