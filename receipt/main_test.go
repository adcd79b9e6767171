package receipt_test

import (
	"bytes"
	"context"
	"encoding/json"
	"image"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/receipt"
	"github.com/tidegate/tidegate/receipt/receipttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gate answers as it is told and counts what it is asked. The real one is met in
// the tests in test/e2e.
type gate struct {
	mu       sync.Mutex
	verdict  events.Verdict
	checkErr error
	holdErr  error
	refuse   events.RefusalReason // of reservations
	asked    []string
}

func (g *gate) note(s string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked = append(g.asked, s)
}

func (g *gate) Check(_ context.Context, r events.CheckRequest) (events.Verdict, error) {
	g.note("check " + r.PortID + " " + r.Feature + " " + r.UserID)
	return g.verdict, g.checkErr
}

func (g *gate) Reserve(_ context.Context, r events.ReserveRequest) (*events.Reservation, error) {
	g.note("reserve " + r.PortID + " " + r.Feature + " " + r.UserID)
	v := g.verdict
	if g.refuse != "" {
		v.Allowed, v.Reason = false, g.refuse
	} else if g.holdErr == nil {
		v.ReservationID = "hold-1"
	}
	return &events.Reservation{Verdict: v}, g.holdErr
}

func (g *gate) Release(_ context.Context, port, id string) error {
	g.note("release " + port + " " + id)
	return nil
}

// book takes usage events.
type book struct {
	mu   sync.Mutex
	rows []events.Usage
}

func (b *book) Record(u events.Usage) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rows = append(b.rows, u)
}

func (b *book) all() []events.Usage {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]events.Usage(nil), b.rows...)
}

// reader is a provider that does what it is told.
type reader func(ctx context.Context, metered *http.Client, picture image.Image) (receipt.Receipt, *events.Usage, error)

func (r reader) Name() string { return "reader" }
func (r reader) Read(ctx context.Context, metered *http.Client, picture image.Image) (receipt.Receipt, *events.Usage, error) {
	return r(ctx, metered, picture)
}

var groceries = receipt.Receipt{Merchant: "Harbour Supply", Date: time.Date(2025, 3, 14, 0, 0, 0, 0, time.UTC), Total: new(receipt.Amount(10390)), Currency: "MYR",
	Items: []receipt.Item{{Description: "Rope", Quantity: 2, Amount: new(receipt.Amount(8400))}, {Description: "Brush"}}}

func reads(context.Context, *http.Client, image.Image) (receipt.Receipt, *events.Usage, error) {
	return groceries, &events.Usage{Provider: "reader", Model: "reader-1"}, nil
}

// tokenStore holds API tokens in memory.
type tokenStore struct {
	mu     sync.Mutex
	tokens map[string]identity.Token
}

func (s *tokenStore) CreateToken(_ context.Context, t identity.Token) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[t.ID] = t
	return nil
}

func (s *tokenStore) TokenByID(_ context.Context, id string) (identity.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t, ok := s.tokens[id]; ok {
		return t, nil
	}
	return identity.Token{}, identity.ErrTokenNotFound
}

func (s *tokenStore) RevokeToken(context.Context, string, string, time.Time) error { return nil }
func (s *tokenStore) TouchToken(context.Context, string, time.Time) error          { return nil }
func (s *tokenStore) ListTokens(context.Context, string, int) ([]identity.Token, error) {
	return nil, nil
}

// world is a running service.
type world struct {
	t      *testing.T
	url    string
	gate   *gate
	book   *book
	tokens *identity.Tokens
	token  string // for every port
}

func open() *gate { return &gate{verdict: events.Verdict{Allowed: true}} }

// start serves until the test ends. What change does not set has working defaults.
func start(t *testing.T, g *gate, change func(*receipt.Config)) *world {
	t.Helper()
	w := &world{t: t, gate: g, book: new(book)}
	w.tokens = identity.NewTokens(&tokenStore{tokens: map[string]identity.Token{}}, nil)
	w.token = w.newToken([]string{receipt.Permission}, nil)
	cfg := receipt.Config{Gate: g, Recorder: w.book, Auth: &identity.Authenticator{Tokens: w.tokens}, Provider: reader(reads), Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	handler, err := receipt.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	w.url = server.URL
	return w
}

func (w *world) newToken(permissions, ports []string) string {
	w.t.Helper()
	shown, _, err := w.tokens.Create(w.t.Context(), identity.TokenRequest{Name: "test", Permissions: permissions, Ports: ports, CreatedBy: "test"})
	if err != nil {
		w.t.Fatal(err)
	}
	return shown
}

// form is a multipart form with one part.
func form(t testing.TB, name string, data []byte) (body []byte, contentType string) {
	t.Helper()
	var b bytes.Buffer
	f := multipart.NewWriter(&b)
	part, err := f.CreateFormFile(name, "receipt.jpg")
	if err == nil {
		_, err = part.Write(data)
	}
	if err != nil || f.Close() != nil {
		t.Fatal(err)
	}
	return b.Bytes(), f.FormDataContentType()
}

// reply is what a scan answers, as a client sees it.
type reply struct {
	status int
	header http.Header
	text   string

	Source         string         `json:"source"`
	Reason         string         `json:"reason"`
	Detail         string         `json:"detail"`
	Receipt        map[string]any `json:"receipt"`
	Usage          map[string]any `json:"usage"`
	SoftCapWarning map[string]any `json:"soft_cap_warning"`
	Budget         map[string]any `json:"budget"`
	ResetsAt       string         `json:"resets_at"`
	Type           string         `json:"type"`
	Title          string         `json:"title"`
}

func (w *world) scan(port string) reply {
	w.t.Helper()
	body, contentType := form(w.t, "image", receipttest.JPEG(w.t, image.NewGray(image.Rect(0, 0, 8, 8))))
	return w.post("/api/v1/ports/"+port+"/scan-receipt", w.token, contentType, bytes.NewReader(body))
}

func (w *world) post(path, token, contentType string, body io.Reader) reply {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.url+path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return w.do(req)
}

func (w *world) do(req *http.Request) reply {
	w.t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	r := reply{status: resp.StatusCode, header: resp.Header, text: string(text)}
	if err := json.Unmarshal(text, &r); err != nil {
		w.t.Fatalf("%s %s: %d %s is no JSON: %v", req.Method, req.URL, resp.StatusCode, text, err)
	}
	return r
}
