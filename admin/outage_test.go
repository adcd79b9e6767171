package admin_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/admin"
	"github.com/tidegate/tidegate/dev"
	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
	"github.com/tidegate/tidegate/migrations"
)

// A database that does not answer in time is an outage, and nothing that lasts.
func TestSlowDatabase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put(monthly, "0").want(w, 200)
	hasty, err := admin.NewWithTimeout(admin.Config{Ledger: w.ledger, Conn: w.nats, Auth: &identity.Authenticator{Tokens: w.tokens}}, 200*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(hasty)
	defer server.Close()
	w.URL = server.URL

	db := w.connect()
	tx, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "lock table system_settings in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	a := w.do(request{method: "GET", path: budgetPath, token: w.all})
	if a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || !strings.HasSuffix(a.problem.Type, "#unavailable") {
		t.Errorf("while it is locked: %d %s", a.StatusCode, a.text)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "it answers again", func() bool { // a busy machine may take 200 ms over one answer
		return w.do(request{method: "GET", path: budgetPath, token: w.all}).StatusCode == http.StatusOK
	})
}

// What is our own fault is told to the operator, not to the caller.
func TestBug(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if _, err := w.connect().Exec(t.Context(), "alter table ai_usage_totals rename to elsewhere"); err != nil {
		t.Fatal(err)
	}
	a := w.do(request{method: "GET", path: "/api/v1/ports/p1/ai-usage", token: w.all})
	if a.StatusCode != http.StatusInternalServerError || strings.Contains(a.text, "totals") {
		t.Errorf("got %d %s", a.StatusCode, a.text)
	}
	if log := w.log.String(); !strings.Contains(log, "ai_usage_totals") || !strings.Contains(log, "/ai-usage") {
		t.Errorf("the log does not say what is wrong: %s", log)
	}
}

func (w *world) connect() *pgx.Conn {
	w.Helper()
	db, err := pgx.Connect(w.Context(), w.dbURL)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = db.Close(context.Background()) })
	return db
}

// Postgres stops, and comes back: so does the API.
func TestPostgresAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := dev.PostgresConfig{Dir: filepath.Join(t.TempDir(), "postgres"), NoSync: true}
	pg, err := dev.StartPostgres(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	url := pg.URL()
	if err := migrations.Apply(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(t.Context(), ledger.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	handler, err := admin.New(admin.Config{Ledger: l, Conn: w.nats, Auth: &identity.Authenticator{Tokens: w.tokens}}) // the tokens are elsewhere
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	defer server.Close()
	w.URL = server.URL
	w.put(monthly, "0").want(w, 200)
	if err := pg.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 3 { // connections that broke, then none
		if a := w.do(request{method: "GET", path: budgetPath, token: w.all}); a.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("while it is away: %d %s", a.StatusCode, a.text)
		}
	}
	if pg, err = dev.StartPostgres(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := pg.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	if got := get[budget](w, budgetPath); got.Version != 1 {
		t.Errorf("afterwards: %+v", got)
	}
}

// What takes long may: neither of the server's deadlines ends it.
func TestSlowDeletion(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.usage("p1", noon)
	handler, err := admin.New(admin.Config{Ledger: w.ledger, Conn: w.nats, Auth: &identity.Authenticator{Tokens: w.tokens}})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(handler)
	server.Config.ReadTimeout, server.Config.WriteTimeout = 300*time.Millisecond, 300*time.Millisecond
	server.Start()
	defer server.Close()
	w.URL = server.URL

	tx, err := w.connect().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "lock table ai_usage_totals in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	var holding sync.WaitGroup
	defer holding.Wait()
	holding.Go(func() {
		time.Sleep(time.Second)
		if err := tx.Rollback(context.Background()); err != nil {
			t.Error(err)
		}
	})
	a := w.do(request{method: "DELETE", path: "/api/v1/ports/p1", token: w.all})
	a.want(w, http.StatusOK)
	if !strings.Contains(a.text, `"deleted_rows":1`) {
		t.Errorf("the answer is %s", a.text)
	}
}
