package admin_test

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/admin"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/identity/pgstore"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

// noon is when the tests happen: a Monday, the 23rd.
var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// world is the admin API on a real ledger and a real nats-server.
type world struct {
	testing.TB
	URL    string
	ledger *ledger.Ledger
	dbURL  string
	nats   *nats.Conn // of somebody else than the API
	tokens *identity.Tokens
	login  *identity.Login
	clock  *clock
	log    *testenv.Buffer

	all, onlyP1, noPermission string // API tokens
}

// databaseAtNoon lets the database's clock say the same as the API's: bookings go by it where they
// count in the windows of limits.
func databaseAtNoon(w *world) { testenv.NewClock(w, w.dbURL).Stop(noon) }

func newWorld(t testing.TB, before ...func(*world)) *world {
	t.Helper()
	server := testenv.NATS(t)
	w := &world{TB: t, dbURL: testenv.Database(t), nats: testenv.Connect(t, server), clock: &clock{now: noon}, log: new(testenv.Buffer)}
	for _, f := range before {
		f(w)
	}
	var err error
	if w.ledger, err = ledger.Open(t.Context(), ledger.Config{URL: w.dbURL}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.ledger.Close)
	store, err := pgstore.Open(t.Context(), w.dbURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	w.tokens = identity.NewTokens(store, nil)
	w.all = w.token("all", nil, admin.Permission)
	w.onlyP1 = w.token("one port", []string{"p1"}, admin.Permission)
	w.noPermission = w.token("no permission", nil, "expenses.scan")

	sessions, err := identity.NewSessions(identity.SessionConfig{Key: make([]byte, identity.KeyBytes)})
	if err != nil {
		t.Fatal(err)
	}
	operator := identity.Caller{Subject: "local", Name: "operator", Permissions: []string{admin.Permission}}
	if w.login, err = identity.NewLogin(identity.LoginConfig{Sessions: sessions, LinkCaller: &operator}); err != nil {
		t.Fatal(err)
	}
	handler, err := admin.New(admin.Config{
		Backlog: func() events.Backlog { return events.Backlog{Messages: 3, OldestAt: noon} },
		Ledger:  w.ledger, Conn: testenv.Connect(t, server), Now: w.clock.Now, Login: w.login, Logger: slog.New(slog.NewTextHandler(w.log, nil)),
		Auth: &identity.Authenticator{Tokens: w.tokens, Sessions: sessions, LoginPath: "/login"},
	})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(handler)
	t.Cleanup(web.Close)
	w.URL = web.URL
	return w
}

// exec writes what only other roles do.
func (w *world) exec(sql string) {
	w.Helper()
	conn, err := pgx.Connect(w.Context(), w.dbURL)
	if err != nil {
		w.Fatal(err)
	}
	defer conn.Close(w.Context())
	if _, err := conn.Exec(w.Context(), sql); err != nil {
		w.Fatal(err)
	}
}

func (w *world) token(name string, ports []string, permissions ...string) string {
	w.Helper()
	shown, _, err := w.tokens.Create(w.Context(), identity.TokenRequest{Name: name, Permissions: permissions, Ports: ports, CreatedBy: "test"})
	if err != nil {
		w.Fatal(err)
	}
	return shown
}

// clock is the API's.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }

func (c *clock) set(t time.Time) { c.mu.Lock(); defer c.mu.Unlock(); c.now = t }

// usage is one booked call of 110 tokens.
func (w *world) usage(port string, at time.Time, change ...func(*events.Usage)) {
	w.Helper()
	id := events.NewUUIDv7(at)
	u := events.Usage{ID: id.String(), PortID: port, UserID: "u1", Feature: "ocr", Provider: "anthropic", Model: "claude", InputTokens: 100, OutputTokens: 10}
	for _, c := range change {
		c(&u)
	}
	booking, err := w.ledger.Book(w.Context(), []ledger.Entry{{ID: id, At: events.UUIDv7Time(id), Usage: u}})
	if err != nil || booking.Outcomes[0].Fate != ledger.Booked {
		w.Fatalf("booking: %+v, %v", booking, err)
	}
}

// hold makes holds, as a gate does.
func (w *world) hold(requests ...events.ReserveRequest) {
	w.Helper()
	held, err := w.ledger.Reservations.Hold(w.Context(), requests, nil)
	if err != nil {
		w.Fatal(err)
	}
	for i, v := range held.Verdicts {
		if held.Faults[i] != nil || !v.Allowed {
			w.Fatalf("%+v: %+v, %v", requests[i], v, held.Faults[i])
		}
	}
}

// answer is what a caller sees.
type answer struct {
	*http.Response
	text    string
	problem struct {
		Type, Title, Detail string
		Status              int
		Errors              []struct{ Field, Value, Rule string }
	}
}

type request struct {
	method, path string
	token        string
	body         string
	header       []string // name, value, …
}

func (w *world) do(r request) answer {
	w.Helper()
	req, err := http.NewRequestWithContext(w.Context(), r.method, w.URL+r.path, strings.NewReader(r.body))
	if err != nil {
		w.Fatal(err)
	}
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	if r.method == http.MethodPut || r.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(r.header); i += 2 {
		if r.header[i+1] == "" {
			req.Header.Del(r.header[i])
			continue
		}
		req.Header.Set(r.header[i], r.header[i+1])
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(req)
	if err != nil {
		w.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		w.Fatal(err)
	}
	client.CloseIdleConnections()
	a := answer{Response: response, text: string(body)}
	if response.Header.Get("Content-Type") == "application/problem+json" {
		if err := json.Unmarshal(body, &a.problem); err != nil {
			w.Fatalf("%s %s: the problem document %s: %v", r.method, r.path, body, err)
		}
		if a.problem.Status != a.StatusCode || a.problem.Title == "" || a.problem.Detail == "" || a.problem.Type == "" {
			w.Errorf("%s %s: an incomplete problem document: %s", r.method, r.path, body)
		}
		w.checkExplained(a.problem.Type)
	} else if a.StatusCode >= 400 {
		w.Errorf("%s %s: status %d without a problem document: %s", r.method, r.path, a.StatusCode, body)
	}
	w.checkContract(a)
	return a
}

// checkExplained fails the test when the type of a problem leads nowhere.
func (w *world) checkExplained(kind string) {
	w.Helper()
	page, heading, found := strings.Cut(strings.TrimPrefix(kind, "https://github.com/tidegate/tidegate/blob/main/"), "#")
	text, err := os.ReadFile("../" + page)
	if err != nil || !found || !strings.Contains(string(text), "\n### "+heading+"\n") {
		w.Errorf("nothing explains the problem %s: %v", kind, err)
	}
}

// get reads JSON as the caller who may do everything.
func get[T any](w *world, path string) (v T) {
	w.Helper()
	a := w.do(request{method: "GET", path: path, token: w.all})
	a.want(w, http.StatusOK)
	a.into(w, &v)
	return v
}

func (a answer) into(w *world, v any) {
	w.Helper()
	if err := json.Unmarshal([]byte(a.text), v); err != nil {
		w.Fatalf("%s: %v", a.text, err)
	}
}

func (a answer) want(w *world, status int) {
	w.Helper()
	if a.StatusCode != status {
		w.Fatalf("%s %s: got %d, want %d: %s", a.Request.Method, a.Request.URL.Path, a.StatusCode, status, a.text)
	}
}

// wantField wants a 422 that names the field and whose rule contains the text.
func (a answer) wantField(w *world, field, value, rule string) {
	w.Helper()
	if a.StatusCode != http.StatusUnprocessableEntity || len(a.problem.Errors) != 1 || a.problem.Errors[0].Field != field ||
		a.problem.Errors[0].Value != value || !strings.Contains(a.problem.Errors[0].Rule, rule) {
		w.Errorf("%s %s: got %d %s\nwant 422 for %s = %s: …%s…", a.Request.Method, a.Request.URL, a.StatusCode, a.text, field, value, rule)
	}
}

const budgetPath = "/api/v1/ports/p1/ai-budget"

// put stores a budget of p1 as the caller who may do everything.
func (w *world) put(body, ifMatch string) answer {
	w.Helper()
	return w.do(request{method: "PUT", path: budgetPath, token: w.all, body: body, header: []string{"If-Match", ifMatch}})
}
