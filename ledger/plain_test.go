package ledger_test

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

// Tenants and probes are told what is wrong, and no name or address.
func TestPlainNamesNothing(t *testing.T) {
	good := testenv.Must(url.Parse(testenv.Database(t)))
	missing := *good
	missing.Path = "/no_such_database"
	dial := func(address string) error {
		_, err := pgx.Connect(t.Context(), address)
		return err
	}
	conn := testenv.Must(pgx.Connect(t.Context(), good.String()))
	_, query := conn.Exec(t.Context(), `select secret_column from "Secret Table"`)
	for _, c := range []struct {
		err  error
		want string
	}{
		{dial("postgres://secret_user:secret@127.0.0.1:1/secret_db"), "cannot be reached"},
		{dial("postgres://u@secret.invalid:1/secret_db"), "cannot be reached"},
		{dial(missing.String()), "SQLSTATE 3D000"},
		{dial("postgres://u:secret@h:port/secret_db"), "cannot be read"},
		{query, "SQLSTATE 42P01"},
		{errors.Join(conn.Close(t.Context()), conn.Ping(t.Context())), "closed"},
	} {
		got := ledger.Plain(fmt.Errorf("ledger: reading: %w", c.err))
		if !strings.HasPrefix(got, "ledger: reading: ") || !strings.Contains(got, c.want) {
			t.Errorf("%v is told as %q, want %q", c.err, got, c.want)
		}
		for _, secret := range []string{"secret", "no_such", "127.0.0.1", ":1", "Secret", good.Query().Get("host"), "tidegate"} {
			if strings.Contains(got, secret) {
				t.Errorf("%q names %s", got, secret)
			}
		}
	}
}
