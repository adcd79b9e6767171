package typescript_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/tidegate/tidegate/edge"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/internal/testenv/system"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// world is the whole system, and a server through which the tests in TypeScript look at it.
type world struct {
	testing.TB
	*system.System
	edge http.Handler

	mu     sync.Mutex
	faulty map[string]int // requests by key

	natsURL, edgeURL, controlURL string
}

func newWorld(t testing.TB) *world {
	t.Helper()
	server := testenv.NATS(t)
	w := &world{TB: t, System: system.Start(t, server.ClientURL()), natsURL: server.ServiceURL(), faulty: map[string]int{}}
	e := testenv.Must(edge.New(edge.Config{Conn: w.Connect(t), Tokens: w.Store}))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = e.Close(ctx)
	})
	w.edge = e
	w.edgeURL = w.serve(e)
	control := http.NewServeMux()
	control.HandleFunc("POST /budget/{port}", w.setBudget)
	control.HandleFunc("POST /booked/{port}", w.awaitBooked)
	control.HandleFunc("POST /requests/{key}", func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		defer w.mu.Unlock()
		_ = json.MarshalWrite(rw, w.faulty[r.PathValue("key")])
	})
	control.HandleFunc("/faulty/{key}/{fault}/{requests}/", w.serveFaulty)
	w.controlURL = w.serve(control)
	return w
}

func (w *world) serve(h http.Handler) string {
	server := httptest.NewServer(h)
	w.Cleanup(server.Close)
	return server.URL
}

// token makes an API token for these ports, or for all.
func (w *world) token(ports ...string) string {
	w.Helper()
	return w.Token(w, ports, edge.PermissionReport, edge.PermissionReserve)
}

// env is what the programs under test are told.
func (w *world) env() []string {
	return []string{"EDGE_URL=" + w.edgeURL, "NATS_URL=" + w.natsURL, "CONTROL_URL=" + w.controlURL, "TOKEN=" + w.token(), "TOKEN_OF_A=" + w.token("a")}
}

func (w *world) setBudget(rw http.ResponseWriter, r *http.Request) {
	budget := events.SetRequest{PortID: r.PathValue("port"), Enabled: true}
	err := json.UnmarshalRead(r.Body, &budget)
	if err == nil {
		_, err = w.Budgets.Set(r.Context(), budget)
	}
	if err != nil {
		http.Error(rw, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = rw.Write([]byte("{}"))
}

// call is a row of the ledger.
type call struct {
	ID         string `json:"id"`
	User       string `json:"user,omitempty"`
	Run        string `json:"run,omitempty"`
	Feature    string `json:"feature"`
	Provider   string `json:"provider"`
	Model      string `json:"model"`
	Input      int64  `json:"input"`
	Output     int64  `json:"output"`
	CacheRead  int64  `json:"cache_read"`
	CacheWrite int64  `json:"cache_write"`
	Reasoning  int64  `json:"reasoning"`
	Request    string `json:"request,omitempty"`
	Response   string `json:"response,omitempty"`
	MeasuredBy string `json:"measured_by"`
	Status     string `json:"status"`
}

// counts says how many calls of a port are booked, and what a check says is held. A reserve that is asked again, by the edge on a
// machine that is busy too, has a key from then on, and may leave a hold behind: such holds count if again is true.
func (w *world) counts(ctx context.Context, port string, again bool) (rows int, held int64, err error) {
	var asked int64
	err = w.DB.QueryRow(ctx, `select (select count(*) from ai_usage_ledger where port_id = $1),
		(select coalesce(sum(tokens), 0)::bigint from ai_budget_holds where port_id = $1 and idempotency_key ~ '^[0-9a-f]{8}-')`, port).Scan(&rows, &asked)
	if err != nil {
		return 0, 0, err
	}
	verdict, err := w.Budgets.Check(ctx, events.CheckRequest{PortID: port})
	if !again {
		verdict.HeldTokens -= asked
	}
	return rows, verdict.HeldTokens, err
}

// booked is what the ledger has of a port, the largest first.
func (w *world) booked(ctx context.Context, port string) (calls []call, err error) {
	var text []byte
	err = w.DB.QueryRow(ctx, `select coalesce(json_agg(json_build_object('id', id, 'user', user_id, 'run', run_id, 'feature', feature, 'provider', provider, 'model', model,
		'input', input_tokens, 'output', output_tokens, 'cache_read', cache_read_input_tokens, 'cache_write', cache_write_input_tokens, 'reasoning', reasoning_output_tokens,
		'request', request_id, 'response', response_id, 'measured_by', measured_by, 'status', status) order by input_tokens desc, output_tokens desc), '[]') from ai_usage_ledger where port_id = $1`, port).Scan(&text)
	if err == nil {
		err = json.Unmarshal(text, &calls)
	}
	return calls, err
}

// awaitBooked answers once the port has so many calls, and so much is held.
func (w *world) awaitBooked(rw http.ResponseWriter, r *http.Request) {
	var want struct {
		Rows  int
		Held  int64
		Again bool
	}
	err := json.UnmarshalRead(r.Body, &want, json.MatchCaseInsensitiveNames(true))
	for end := time.Now().Add(15 * time.Second); err == nil; time.Sleep(30 * time.Millisecond) {
		var rows int
		var held int64
		if rows, held, err = w.counts(r.Context(), r.PathValue("port"), want.Again); err != nil {
			break
		}
		if rows == want.Rows && held == want.Held {
			var calls []call
			if calls, err = w.booked(r.Context(), r.PathValue("port")); err == nil {
				_ = json.MarshalWrite(rw, map[string]any{"calls": calls})
				return
			}
		} else if rows > want.Rows || time.Now().After(end) {
			err = fmt.Errorf("%d calls are booked and %d tokens held, want %d and %d", rows, held, want.Rows, want.Held)
		}
	}
	http.Error(rw, err.Error(), http.StatusInternalServerError)
}

// serveFaulty is the edge, whose first requests of a key have a fault.
func (w *world) serveFaulty(rw http.ResponseWriter, r *http.Request) {
	key, fault := r.PathValue("key"), r.PathValue("fault")
	most, _ := strconv.Atoi(r.PathValue("requests"))
	edge := http.StripPrefix(strings.Join([]string{"/faulty", key, fault, r.PathValue("requests")}, "/"), w.edge)
	w.mu.Lock()
	w.faulty[key]++
	good := w.faulty[key] > most
	w.mu.Unlock()
	switch {
	case good, fault == "gone-for-delete" && r.Method != http.MethodDelete, fault == "large" && r.ContentLength <= 2_000:
		edge.ServeHTTP(rw, r)
	case fault == "busy":
		rw.Header().Set("Retry-After", "1")
		rw.WriteHeader(http.StatusServiceUnavailable)
	case fault == "busy-for-long":
		rw.Header().Set("Retry-After", "60")
		rw.WriteHeader(http.StatusServiceUnavailable)
	case fault == "large": // as a proxy says it
		rw.WriteHeader(http.StatusRequestEntityTooLarge)
	case fault == "not-tidegate":
		_, _ = rw.Write([]byte("{}"))
	case fault == "mute":
		_, _ = io.Copy(io.Discard, r.Body) // only then is it noticed that the caller is gone
		<-r.Context().Done()
	case fault == "lost": // done, and nobody hears of it
		edge.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	default:
		panic(http.ErrAbortHandler)
	}
}
