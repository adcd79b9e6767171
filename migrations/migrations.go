// Package migrations holds the schema and applies it.
package migrations

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/tern/v2/migrate"
)

//go:embed *.sql
var files embed.FS

// Files are the migrations of this build.
func Files() fs.FS { return files }

// lockKey serialises processes that start at the same moment. Tern takes a lock
// of its own, but only after it has created its version table.
const lockKey = 0x71de6a7e

// Apply brings the database at url to this build's schema. Several processes may
// call it at once: one works, the others wait and find nothing left to do. A
// failed migration is rolled back whole. It returns [ErrPooler] where sessions are shared.
func Apply(ctx context.Context, url string) error {
	conn, err := connect(ctx, url)
	if unreadable := (*pgconn.ParseConfigError)(nil); errors.As(err, &unreadable) {
		return fmt.Errorf("migrations: %s", parsing(unreadable))
	}
	if err != nil {
		return fmt.Errorf("migrations: connect to Postgres: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// The session's end releases the lock, however this function ends.
	if _, err := conn.Exec(ctx, "select pg_advisory_lock($1)", lockKey); err != nil {
		return fmt.Errorf("migrations: wait for other processes: %w", err)
	}
	migrator, err := migrate.NewMigrator(ctx, conn, "public.schema_version")
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	if err := migrator.LoadMigrations(files); err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	have, err := migrator.GetCurrentVersion(ctx)
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	if newest := int32(len(migrator.Migrations)); have > newest {
		return fmt.Errorf("migrations: the database has schema %d, this build knows up to %d: run a newer tidegate", have, newest)
	}
	if err := migrator.Migrate(ctx); err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	return nil
}

// parsing says why an address cannot be used, and shows nothing of it: pgx hides a password
// only where it finds one.
func parsing(err error) string {
	for _, what := range []string{"invalid port", "failed to configure TLS", "failed to parse as keyword/value", "invalid connect_timeout"} {
		if strings.Contains(err.Error(), "`: "+what) {
			return "the database's address cannot be parsed: " + what
		}
	}
	return "the database's address cannot be parsed: is it postgres://user:password@host:port/database, or host=… user=… dbname=…? In the password of a URL, write % / ? # @ : and space as %25 %2F %3F %23 %40 %3A and %20"
}

// MayPass reports whether err is the state of the server, or of the way to it, rather than
// of the database: it cannot be reached, is still starting, or ends sessions as in a
// failover. Then the same may succeed later.
func MayPass(err error) bool {
	var connect *pgconn.ConnectError
	var network net.Error
	var answered *pgconn.PgError
	switch {
	case errors.Is(err, ErrPooler):
		return false
	case errors.As(err, &connect):
		return true
	case errors.As(err, &answered): // connection exceptions and operator intervention
		return strings.HasPrefix(answered.Code, "08") || strings.HasPrefix(answered.Code, "57P")
	}
	return errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF)
}
