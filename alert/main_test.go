package alert

import (
	"context"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

// TestMain has the system trust the certificate of test servers, as an operator does with one
// of their own.
func TestMain(m *testing.M) {
	s := httptest.NewTLSServer(nil)
	s.Close()
	file, err := os.CreateTemp("", "tidegate-cert-*.pem")
	if err == nil {
		err = pem.Encode(file, &pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	}
	if err != nil {
		panic(err)
	}
	os.Setenv("SSL_CERT_FILE", file.Name())
	testenv.Main(removing{m, file.Name()})
}

type removing struct {
	*testing.M
	file string
}

func (r removing) Run() int {
	defer os.Remove(r.file)
	return r.M.Run()
}

// store is a database with alerts.
type store struct {
	*ledger.Ledger
	t   *testing.T
	url string
	db  *pgxpool.Pool
}

func newStore(t *testing.T) *store {
	url := testenv.Database(t)
	s := &store{t: t, url: url, db: testenv.Must(pgxpool.New(t.Context(), url))}
	t.Cleanup(s.db.Close)
	s.Ledger = s.open()
	return s
}

// open is what another process has.
func (s *store) open() *ledger.Ledger {
	l := testenv.Must(ledger.Open(s.t.Context(), ledger.Config{URL: s.url}))
	s.t.Cleanup(l.Close)
	return l
}

func (s *store) exec(sql string, args ...any) {
	s.t.Helper()
	if _, err := s.db.Exec(s.t.Context(), sql, args...); err != nil {
		s.t.Fatal(err)
	}
}

// reach stores that a port has reached a cap.
func (s *store) reach(port, limit, cap string) uuid.UUID {
	s.t.Helper()
	s.exec("insert into ports (id) values ($1) on conflict do nothing", port)
	start, _ := budget.Month.Bounds(time.Now())
	a := ledger.Alert{PortID: port, Limit: limit, Unit: budget.Tokens, Period: budget.Month, PeriodStart: start, Threshold: cap, Reached: 1000, Used: 1234, NoticedAt: time.Now()}
	if limit != budget.PortLimit {
		a.Counter, a.Value = 7, "<ada>"
	}
	got, err := s.ClaimAlerts(s.t.Context(), []ledger.Alert{a})
	if err != nil || len(got) != 1 {
		s.t.Fatalf("%v, %v", got, err)
	}
	return got[0].ID
}

// line is what became of an alert at a receiver.
func (s *store) line(id uuid.UUID, receiver string) (found ledger.SentAlert) {
	s.t.Helper()
	for _, l := range testenv.Must(s.Alerts(s.t.Context(), ledger.AlertFilter{}, nil, 1000)) {
		if l.ID == id && l.Receiver == receiver {
			found = l
		}
	}
	return found
}

// receivers reads a file.
func receivers(t *testing.T, yaml string) []*Receiver {
	t.Helper()
	path := filepath.Join(t.TempDir(), "alerts.yaml")
	if err := os.WriteFile(path, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	return testenv.Must(ReadFile(path))
}

// run delivers until the test ends, or the function it returns is called.
func run(t *testing.T, cfg Config) (d *Deliverer, stop func()) {
	d = New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { _ = d.Run(ctx) })
	stop = func() { cancel(); group.Wait() }
	t.Cleanup(stop)
	return d, stop
}

// got are requests as a server got them.
type got struct {
	mu   sync.Mutex
	list []request
}

type request struct {
	path, body string
	header     http.Header
}

func (g *got) of(path string) (list []request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.list {
		if r.path == path {
			list = append(list, r)
		}
	}
	return list
}

const key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func hookOf(t *testing.T, name, url string, more ...string) string {
	t.Setenv("ALERT_KEY", key)
	return fmt.Sprintf("  - {name: %s, kind: webhook, url: \"%s\", secret: env:ALERT_KEY%s}\n", name, url, strings.Join(append([]string{""}, more...), ", "))
}
