package testenv

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidegate/tidegate/dev"
)

// cluster is the Postgres that the tests of one binary share.
type cluster struct {
	start     sync.Once
	postgres  *dev.Postgres
	databases *pgxpool.Pool // makes and drops them: to connect costs as much as that does
	err       error
	strategy  string       // of CREATE DATABASE
	made      atomic.Int64 // databases
}

// Database makes a fresh database, migrated, for this test alone and returns its
// URL. It is dropped after the test; when the test failed it is kept, and the
// test's output says how to look at it. Near midnight, UTC, it waits until that is over.
func Database(t testing.TB) string {
	t.Helper()
	return fresh(t, migrated)
}

// EmptyDatabase is [Database] without the migrations.
func EmptyDatabase(t testing.TB) string {
	t.Helper()
	return fresh(t, "template0")
}

// PrivatePostgres starts a cluster for this test alone, for one that stops,
// kills or restarts it. Its database is empty. It is gone after the test.
func PrivatePostgres(t testing.TB) *dev.Postgres {
	t.Helper()
	awaitQuiet()
	pg, err := startPostgres(t.Context(), filepath.Join(t.TempDir(), "postgres"))
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	t.Cleanup(func() {
		if err := pg.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return pg
}

func shared(t testing.TB) *cluster {
	t.Helper()
	dir := sharedDir(t, "postgres")
	c := &env.cluster
	c.start.Do(func() {
		if version, err := dev.PostgresVersion(); err == nil && version >= 15 {
			c.strategy = " STRATEGY file_copy" // as before 15: page by page through the log it takes twice as long
		}
		if c.postgres, c.err = startPostgres(context.Background(), dir); c.err == nil {
			c.databases, c.err = pgxpool.New(context.Background(), c.postgres.DatabaseURL("postgres"))
		}
	})
	if c.err != nil {
		t.Fatalf("testenv: %v", c.err)
	}
	return c
}

func (c *cluster) stop(ctx context.Context) error {
	if c.databases != nil {
		c.databases.Close()
	}
	if c.postgres == nil {
		return nil
	}
	return c.postgres.Stop(ctx)
}

func fresh(t testing.TB, from string) string {
	t.Helper()
	awaitQuiet()
	c := shared(t)
	name := fmt.Sprintf("test_%d", c.made.Add(1))
	if _, err := c.databases.Exec(t.Context(), "CREATE DATABASE "+name+" TEMPLATE "+from+c.strategy); err != nil {
		t.Fatalf("testenv: make a database: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			keep(t, c.postgres, name)
			return
		}
		if _, err := c.databases.Exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("testenv: drop the database: %v", err)
		}
	})
	return c.postgres.DatabaseURL(name)
}

// keep saves the database of a failed test and says how to open it: its server
// ends with the test binary.
func keep(t testing.TB, pg *dev.Postgres, name string) {
	t.Helper()
	env.mu.Lock()
	defer env.mu.Unlock()
	env.kept = true
	if err := os.WriteFile(filepath.Join(env.dir, "kept"), []byte(t.Name()+"\n"), 0o600); err != nil {
		t.Errorf("testenv: %v", err)
	}
	t.Logf("testenv: the test's database is kept for a while. To look at it, start its server\n\tgo run ./internal/testenv/serve %s\nand connect\n\tpsql '%s'",
		filepath.Join(env.dir, "postgres"), pg.DatabaseURL(name))
}
