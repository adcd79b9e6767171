// Package system runs the whole of Tidegate, but for its doors, in a test's process: for the tests of
// what stands before it.
package system

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/consumer"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/gate"
	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/identity/pgstore"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

// System is a consumer and a gate on NATS and Postgres.
type System struct {
	DB      *pgxpool.Pool
	Ledger  *ledger.Ledger
	Store   *pgstore.Store
	Budgets *events.Client
	Metrics *prometheus.Registry // of the gate
	natsURL string
}

// Start runs the system on the NATS server at a URL until the test ends.
func Start(t testing.TB, natsURL string) *System {
	t.Helper()
	database := testenv.Database(t)
	s := &System{natsURL: natsURL, Metrics: prometheus.NewRegistry()}
	s.DB = testenv.Must(pgxpool.New(t.Context(), database))
	t.Cleanup(s.DB.Close)
	s.Ledger = testenv.Must(ledger.Open(t.Context(), ledger.Config{URL: database}))
	t.Cleanup(s.Ledger.Close)
	s.Store = testenv.Must(pgstore.Open(t.Context(), database))
	t.Cleanup(s.Store.Close)
	testenv.Background(t, testenv.Must(consumer.New(consumer.Config{Conn: s.Connect(t), Ledger: s.Ledger, AckWait: time.Second})).Run)
	g := testenv.Must(gate.New(gate.Config{Conn: s.Connect(t), Ledger: s.Ledger, Registerer: s.Metrics}))
	testenv.Background(t, g.Run)
	<-g.Ready()
	s.Budgets = testenv.Must(events.NewClient(s.Connect(t), events.ClientConfig{WhenUnavailable: events.FailClosed}))
	return s
}

// Connect connects as Tidegate's own roles do, until the test ends.
func (s *System) Connect(t testing.TB) *nats.Conn {
	t.Helper()
	nc := testenv.Must(events.Connect(s.natsURL))
	t.Cleanup(nc.Close)
	return nc
}

// Token makes an API token for these ports; nil: for all.
func (s *System) Token(t testing.TB, ports []string, permissions ...string) string {
	t.Helper()
	shown, _, err := identity.NewTokens(s.Store, nil).Create(t.Context(), identity.TokenRequest{Name: "a test's", Permissions: permissions, Ports: ports, CreatedBy: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return shown
}

// SetBudget gives a port a hard cap.
func (s *System) SetBudget(t testing.TB, port string, hard int64) {
	t.Helper()
	if _, err := s.Budgets.Set(t.Context(), events.SetRequest{PortID: port, Enabled: true, HardCapTokens: &hard}); err != nil {
		t.Fatal(err)
	}
}
