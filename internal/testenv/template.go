package testenv

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/dev"
	"github.com/tidegate/tidegate/migrations"
)

// migrated is the database in every cluster of ours that fresh ones are copies of.
const migrated = "tidegate_template"

// Cluster returns a directory with a cluster in it, as [dev.StartPostgres] would make it.
func Cluster(t testing.TB) (dir string) {
	t.Helper()
	awaitQuiet()
	dir = t.TempDir()
	if err := copyCluster(t.Context(), dir); err != nil {
		t.Fatalf("testenv: %v", err)
	}
	return dir
}

// startPostgres starts a new cluster in dir.
func startPostgres(ctx context.Context, dir string) (*dev.Postgres, error) {
	if err := copyCluster(ctx, dir); err != nil {
		return nil, err
	}
	return dev.StartPostgres(ctx, dev.PostgresConfig{Dir: dir, NoSync: true})
}

// copyCluster copies what is made once for all test binaries, because initdb takes a second
// of a processor and the migrations half of one.
func copyCluster(ctx context.Context, dir string) error {
	data, err := template(ctx)
	if err != nil {
		return fmt.Errorf("make the Postgres cluster that others are copies of: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "cp", "-a", data, filepath.Join(dir, "data")).CombinedOutput(); err != nil {
		return fmt.Errorf("copy a Postgres cluster: %w\n%s", err, out)
	}
	return nil
}

// template returns the data of a cluster that was stopped. It is kept in the user's cache
// directory for as long as the code that makes it, and Postgres, stay the same.
func template(ctx context.Context) (data string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	key, err := templateKey()
	if err != nil {
		return "", err
	}
	tools := filepath.Join(cache, "tidegate-tools")
	dir := filepath.Join(tools, "postgres-"+key)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	lock, err := lockFile(filepath.Join(dir, "lock"))
	if err != nil {
		return "", err
	}
	defer lock.Close()
	now := time.Now()
	if err := os.Chtimes(dir, now, now); err != nil {
		return "", err
	}
	data = filepath.Join(dir, "data")
	if _, err := os.Stat(data); err == nil {
		return data, nil
	}
	if err := removeUnused(tools); err != nil {
		return "", err
	}
	return data, makeTemplate(ctx, dir, data)
}

func makeTemplate(ctx context.Context, dir, data string) error {
	making := filepath.Join(dir, "making")
	if err := os.RemoveAll(making); err != nil { // by somebody who was killed
		return err
	}
	pg, err := dev.StartPostgres(ctx, dev.PostgresConfig{Dir: making, NoSync: true})
	if err != nil {
		return err
	}
	err = makeMigrated(ctx, pg)
	if stopped := pg.Stop(context.WithoutCancel(ctx)); err == nil {
		err = stopped
	}
	if err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(making, "data"), data); err != nil {
		return err
	}
	return os.RemoveAll(making)
}

func makeMigrated(ctx context.Context, pg *dev.Postgres) error {
	conn, err := pgx.Connect(ctx, pg.DatabaseURL("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+migrated+" TEMPLATE template0"); err != nil {
		return err
	}
	return migrations.Apply(ctx, pg.DatabaseURL(migrated))
}

// templateKey changes with whatever makes a cluster and the tables in it. The migrations are
// those of this binary: somebody may be writing another one.
func templateKey() (string, error) {
	root, err := moduleDir()
	if err != nil {
		return "", err
	}
	version, err := dev.PostgresVersion()
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	fmt.Fprintln(sum, version)
	err = fs.WalkDir(migrations.Files(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(migrations.Files(), name)
		fmt.Fprintf(sum, "%s\n%s", name, text)
		return err
	})
	if err != nil {
		return "", err
	}
	for _, pattern := range []string{"dev/*.go", "migrations/*.go", "internal/testenv/template.go"} {
		names, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return "", err
		}
		for _, name := range names { // in order
			f, err := os.Open(name)
			if err != nil {
				return "", err
			}
			fmt.Fprintln(sum, filepath.Base(name))
			_, err = io.Copy(sum, f)
			f.Close()
			if err != nil {
				return "", err
			}
		}
	}
	return hex.EncodeToString(sum.Sum(nil)[:6]), nil
}

// removeUnused removes clusters that no test has copied for a week.
func removeUnused(tools string) error {
	dirs, err := filepath.Glob(filepath.Join(tools, "postgres-*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if info, err := os.Stat(dir); err == nil && time.Since(info.ModTime()) > 7*24*time.Hour {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	return nil
}
