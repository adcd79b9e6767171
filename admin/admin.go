// Package admin is the HTTP API of those who manage budgets, and the pages above it.
// Every route of the API asks for [Permission], or for [View] where nothing is changed;
// callers that are limited to some ports see and touch no others.
package admin

//go:generate go test -run ^TestAPIDocument$ -update .

import (
	"cmp"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/admin/page"
	"github.com/tidegate/tidegate/consumer/quarantine"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/identity/safehttp"
	"github.com/tidegate/tidegate/ledger"
)

// What a caller must hold: Permission to change anything, and one of the two to see it.
const (
	Permission = "admin.manage_settings"
	View       = "admin.view"
)

// maxBodyBytes is plenty: the only body is a budget.
const maxBodyBytes = 16 << 10

// Config makes a handler.
type Config struct {
	// Ledger is what the API reads and writes. Required.
	Ledger *ledger.Ledger
	// Conn is where the gates hear of changed budgets and deleted ports. One that is
	// lost heals by itself, when they next read everything. It is also where the quarantine
	// is. Required.
	Conn *nats.Conn
	// Auth finds out who calls. Required.
	Auth *identity.Authenticator
	// Login serves /login and /logout. nil: nobody signs in with a browser here.
	Login *identity.Login
	// Backlog is what waits in the usage stream to be booked. nil: the overview does not say.
	Backlog func() events.Backlog
	// Logger gets what an operator should know. Default slog.Default().
	Logger *slog.Logger
	// Now is the clock, read once per request. Default time.Now.
	Now func() time.Time
}

type api struct {
	cfg        Config
	log        *slog.Logger
	quarantine quarantine.Store
	standing   recent[[]standing]      // of all ports
	spent      recent[ledger.Spent]    // by all ports
	users      recent[ledger.TopUsers] // of all ports
}

// New returns the handler of everything below /: the API, the pages and the login.
func New(cfg Config) (http.Handler, error) { return newHandler(cfg, routes) }

func newHandler(cfg Config, routes []route) (http.Handler, error) {
	if cfg.Ledger == nil || cfg.Conn == nil || cfg.Auth == nil {
		return nil, errors.New("admin: Ledger, Conn and Auth are required")
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	js, err := jetstream.New(cfg.Conn)
	if err != nil {
		return nil, err
	}
	a := &api{cfg: cfg, log: cfg.Logger, quarantine: quarantine.Open(js)}
	a.standing.read, a.spent.read = a.readStandings, a.readSpent
	mux := http.NewServeMux()
	a.mount(mux, routes)
	mux.Handle("/", page.Handler())
	if cfg.Login != nil {
		login := cfg.Login.Handler()
		mux.Handle("/login", login)
		mux.Handle("/login/", login)
		mux.Handle("/logout", login)
	}
	return safehttp.SecureHeaders(safehttp.SameOrigin(safehttp.LimitBody(maxBodyBytes, mux))), nil
}
