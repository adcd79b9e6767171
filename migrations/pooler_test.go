package migrations_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/migrations"
)

// pooler stands before Postgres and does with the startup message what it is told to.
func pooler(t *testing.T, database string, do func(*pgproto3.StartupMessage) (refusal string)) (address string) {
	t.Helper()
	to := testenv.Must(url.Parse(database))
	l := testenv.Must(net.Listen("tcp", "127.0.0.1:0"))
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer client.Close()
				front := pgproto3.NewBackend(client, client)
				first, err := front.ReceiveStartupMessage()
				if err != nil {
					return
				}
				startup := first.(*pgproto3.StartupMessage)
				if refusal := do(startup); refusal != "" {
					front.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "08P01", Message: refusal})
					_ = front.Flush()
					return
				}
				server, err := net.Dial("unix", filepath.Join(to.Query().Get("host"), ".s.PGSQL.5432"))
				if err != nil {
					return
				}
				defer server.Close()
				if _, err := server.Write(testenv.Must(startup.Encode(nil))); err != nil {
					return
				}
				go func() { _, _ = io.Copy(server, client); server.Close() }()
				_, _ = io.Copy(client, server)
			}()
		}
	}()
	return fmt.Sprintf("postgres://%s@%s%s?sslmode=disable", to.User, l.Addr(), to.Path)
}

// A pooler that shares sessions is refused, and not tried again and again.
func TestAPoolerThatDropsSettingsIsRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		do   func(*pgproto3.StartupMessage) string
		ok   bool
	}{
		{"passes all on", func(*pgproto3.StartupMessage) string { return "" }, true},
		{"drops them", func(m *pgproto3.StartupMessage) string { delete(m.Parameters, "tidegate.session"); return "" }, false},
		{"has another's session", func(m *pgproto3.StartupMessage) string { m.Parameters["tidegate.session"] = "another"; return "" }, false},
		{"refuses them", func(*pgproto3.StartupMessage) string { return "unsupported startup parameter: tidegate.session" }, false},
	} {
		err := migrations.Apply(t.Context(), pooler(t, testenv.EmptyDatabase(t), c.do))
		if (err == nil) != c.ok || !c.ok && (!errors.Is(err, migrations.ErrPooler) || migrations.MayPass(err)) {
			t.Errorf("a pooler that %s: %v, may pass: %t", c.name, err, migrations.MayPass(err))
		}
	}
}
