package testenv_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestDatabasesAreFreshAndMigrated(t *testing.T) {
	for range 3 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			conn, err := pgx.Connect(t.Context(), testenv.Database(t))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(t.Context())
			var ports int
			if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM ports").Scan(&ports); err != nil {
				t.Fatal(err)
			}
			if ports != 0 {
				t.Errorf("a fresh database has %d ports", ports)
			}
			if _, err := conn.Exec(t.Context(), "INSERT INTO ports (id) VALUES ('p1')"); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestEmptyDatabaseHasNoTables(t *testing.T) {
	conn, err := pgx.Connect(t.Context(), testenv.EmptyDatabase(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var tables int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").Scan(&tables); err != nil {
		t.Fatal(err)
	}
	if tables != 0 {
		t.Errorf("an empty database has %d tables", tables)
	}
}

func TestNATSCLISpeaksToTheServer(t *testing.T) {
	n := testenv.NATS(t)
	nc := testenv.Connect(t, n)
	sub, err := nc.SubscribeSync("greetings")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(testenv.NATSCLI(t), "--server", n.ClientURL(), "pub", "greetings", "ahoy").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	msg, err := sub.NextMsgWithContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(string(msg.Data)); got != "ahoy" {
		t.Errorf("received %q", got)
	}
}
