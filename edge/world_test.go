package edge_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/dev"
	"github.com/tidegate/tidegate/edge"
	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/internal/openapi/contract"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/internal/testenv/system"
)

// world is the whole system: NATS, Postgres, a consumer, a gate, and the edge over HTTP.
type world struct {
	testing.TB
	*system.System
	url    string
	nats   dev.NATSConfig
	server *dev.NATS
	store  *switchable

	all, onlyA, reportA, reserveA, admin string // API tokens
}

// switchable is the store of tokens, which a test may take away.
type switchable struct {
	identity.TokenStore
	mu    sync.Mutex
	away  error
	asked int
}

func (s *switchable) TokenByID(ctx context.Context, id string) (identity.Token, error) {
	s.mu.Lock()
	away := s.away
	s.asked++
	s.mu.Unlock()
	if away != nil {
		return identity.Token{}, away
	}
	return s.TokenStore.TokenByID(ctx, id)
}

func (s *switchable) set(away error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = away
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{TB: t, nats: dev.NATSConfig{Dir: t.TempDir(), Addr: testenv.FreeAddr(t)}}
	w.startNATS()
	t.Cleanup(func() { w.server.Shutdown() })
	w.System = system.Start(t, w.server.ClientURL())
	w.store = &switchable{TokenStore: w.Store}
	w.all = w.Token(w, nil, edge.PermissionReport, edge.PermissionReserve)
	w.onlyA = w.Token(w, []string{"a"}, edge.PermissionReport, edge.PermissionReserve)
	w.reportA = w.Token(w, []string{"a"}, edge.PermissionReport)
	w.reserveA = w.Token(w, []string{"a"}, edge.PermissionReserve)
	w.admin = w.Token(w, nil, "admin.manage_settings")
	w.url = w.serve(edge.Config{Registerer: prometheus.NewRegistry()}, 30*time.Second)
	return w
}

// serve runs an edge of that configuration, to which requests may take so long to come.
func (w *world) serve(cfg edge.Config, patience time.Duration) string {
	w.Helper()
	cfg.Conn = w.Connect(w)
	cfg.Tokens = w.store
	e := testenv.Must(edge.New(cfg))
	web := httptest.NewUnstartedServer(e)
	web.Config.ReadTimeout = patience
	web.Start()
	w.Cleanup(func() {
		web.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = e.Close(ctx)
	})
	return web.URL
}

func (w *world) startNATS() { w.server = testenv.Must(dev.StartNATS(w.nats)) }

func (w *world) setBudget(port string, hard int64) {
	w.Helper()
	w.SetBudget(w, port, hard)
}

// booked is how many events the ledger has of a port, and of how many tokens.
func (w *world) booked(port string) (rows, tokens int64) {
	w.Helper()
	if err := w.DB.QueryRow(w.Context(), "select count(*), coalesce(sum(total_tokens), 0)::bigint from ai_usage_ledger where port_id = $1", port).Scan(&rows, &tokens); err != nil {
		w.Fatal(err)
	}
	return rows, tokens
}

// wantBooked waits until the port has that, and all of the stream is settled.
func (w *world) wantBooked(port string, rows, tokens int64) {
	w.Helper()
	testenv.Eventually(w, "the events are booked", func() bool {
		r, n := w.booked(port)
		return r == rows && n == tokens
	})
}

type request struct {
	method, path, token string
	body                string
	kind                string   // default application/json, if there is a body
	header              []string // name, value, …
	at                  string   // default: the world's edge
}

// answer is what a service sees.
type answer struct {
	*http.Response
	text string
	body struct {
		Accepted, Refused int
		Events            []struct {
			Index                            int
			Status, ID, Reason, Field, Value string
			Rule                             string
		}
		Allowed       bool
		Reason        string
		UsedTokens    int64  `json:"used_tokens"`
		HeldTokens    int64  `json:"held_tokens"`
		HardCapTokens *int64 `json:"hard_cap_tokens"`
		ReservationID string `json:"reservation_id"`
		GrantedTokens int64  `json:"granted_tokens"`
		Type, Title   string
		Detail        string
		Errors        []struct{ Field, Value, Rule string }
	}
}

func (w *world) do(r request) answer {
	w.Helper()
	if r.at == "" {
		r.at = w.url
	}
	req := testenv.Must(http.NewRequestWithContext(w.Context(), r.method, r.at+r.path, strings.NewReader(r.body)))
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	if r.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.kind != "" {
		req.Header.Set("Content-Type", r.kind)
	}
	for i := 0; i < len(r.header); i += 2 {
		req.Header.Add(r.header[i], r.header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.Fatal(err)
	}
	defer resp.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	a := answer{Response: resp, text: string(testenv.Must(io.ReadAll(resp.Body)))}
	if strings.HasSuffix(a.Header.Get("Content-Type"), "json") {
		if err := json.Unmarshal([]byte(a.text), &a.body); err != nil {
			w.Fatalf("%s %s: %s: %v", r.method, r.path, a.text, err)
		}
	}
	w.checkContract(a)
	return a
}

// report posts to /v1/usage.
func (w *world) report(token, body string, header ...string) answer {
	w.Helper()
	return w.do(request{method: "POST", path: "/v1/usage", token: token, body: body, header: header})
}

func (a answer) want(w *world, status int) answer {
	w.Helper()
	if a.StatusCode != status {
		w.Fatalf("%s %s: got %d, want %d: %s", a.Request.Method, a.Request.URL.Path, a.StatusCode, status, a.text)
	}
	return a
}

// wantProblem wants a problem document whose type and detail contain the words.
func (a answer) wantProblem(w *world, status int, kind, detail string) answer {
	w.Helper()
	a.want(w, status)
	if !strings.HasSuffix(a.body.Type, "#"+kind) || !strings.Contains(a.body.Detail, detail) {
		w.Errorf("%s %s: got %s, want the problem %s: …%s…", a.Request.Method, a.Request.URL.Path, a.text, kind, detail)
	}
	if (status == 503 || status == 429) && a.Header.Get("Retry-After") == "" {
		w.Errorf("a %d without Retry-After: %s", status, a.text)
	}
	return a
}

// description is edge/openapi.json, which every answer in these tests is held against.
var description = sync.OnceValues(func() (*contract.Contract, error) { return contract.Read(documentPath) })

// checkContract fails the test when the document does not name such an answer for its
// operation, or nothing explains the problem.
func (w *world) checkContract(a answer) {
	w.Helper()
	testenv.Must(description()).Check(w, a.Response, a.text)
	if page, heading, ok := strings.Cut(strings.TrimPrefix(a.body.Type, "https://github.com/tidegate/tidegate/blob/main/"), "#"); ok {
		if text, err := os.ReadFile("../" + page); err != nil || !strings.Contains(string(text), "\n### "+heading+"\n") {
			w.Errorf("nothing explains the problem %s: %v", a.body.Type, err)
		}
	}
}
