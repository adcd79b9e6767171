package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/identity/pgstore"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
	"github.com/tidegate/tidegate/migrations"
	"github.com/tidegate/tidegate/receipt"
	"github.com/tidegate/tidegate/receipt/anthropic"
	"github.com/tidegate/tidegate/receipt/openai"
	"github.com/tidegate/tidegate/receipt/receipttest"
	"github.com/tidegate/tidegate/receipt/tesseract"
)

// scanner is a receipt service beside a running system.
type scanner struct {
	*system
	stand  *receipttest.Stand
	login  *identity.Login
	url    string
	token  string
	cookie string // of a session, used instead of the token
}

// scanReply is what a scan answers.
type scanReply struct {
	status         int
	text           string
	Source, Reason string
	Receipt        *struct {
		Merchant, Date, Currency string
		Total                    float64
	}
	Usage *struct {
		Provider, Model string
		InputTokens     int64  `json:"input_tokens"`
		OutputTokens    int64  `json:"output_tokens"`
		TotalTokens     int64  `json:"total_tokens"`
		RequestID       string `json:"request_id"`
		ResponseID      string `json:"response_id"`
	}
	SoftCapWarning *struct {
		UsedTokens int64 `json:"used_tokens"`
	} `json:"soft_cap_warning"`
	ResetsAt time.Time `json:"resets_at"`
}

// scanner serves receipts with the provider, which is told where its stand listens.
func (s *system) scanner(policy events.Policy, provider func(url string) receipt.Provider) *scanner {
	t := s.t
	t.Helper()
	c := &scanner{system: s, stand: &receipttest.Stand{}}
	stand := httptest.NewServer(c.stand)
	t.Cleanup(stand.Close)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	tokens := identity.NewTokens(s.tokens, nil)
	sessions := testenv.Must(identity.NewSessions(identity.SessionConfig{Key: testenv.Must(identity.LoadKey(filepath.Join(t.TempDir(), "session.key")))}))
	ada := &identity.Caller{Subject: "ada", Permissions: []string{receipt.Permission}}
	c.login = testenv.Must(identity.NewLogin(identity.LoginConfig{Sessions: sessions, LinkCaller: ada}))
	shown, _, err := tokens.Create(t.Context(), identity.TokenRequest{Name: "scanner", Permissions: []string{receipt.Permission}, CreatedBy: "test"})
	if err != nil {
		t.Fatal(err)
	}
	c.token = shown
	handler := testenv.Must(receipt.New(receipt.Config{
		Gate:     testenv.Must(events.NewClient(s.nc, events.ClientConfig{WhenUnavailable: policy, Publisher: s.publisher, Service: "receipt"})),
		Recorder: s.publisher, Auth: &identity.Authenticator{Tokens: tokens, Sessions: sessions}, Login: c.login, Provider: provider(stand.URL), Transport: transport,
	}))
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	c.url = server.URL
	return c
}

func (c *scanner) scan(port string, picture []byte) (r scanReply) {
	c.t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part := testenv.Must(form.CreateFormFile("image", "receipt.jpg"))
	_, _ = part.Write(picture)
	_ = form.Close()
	req := testenv.Must(http.NewRequestWithContext(c.t.Context(), http.MethodPost, c.url+"/api/v1/ports/"+port+"/scan-receipt", &body))
	req.Header.Set("Content-Type", form.FormDataContentType())
	if c.cookie != "" {
		req.Header.Set("Cookie", c.cookie)
	} else {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	text := testenv.Must(io.ReadAll(resp.Body))
	if err := json.Unmarshal(text, &r); err != nil {
		c.t.Fatalf("%d %s: %v", resp.StatusCode, text, err)
	}
	r.status, r.text = resp.StatusCode, string(text)
	return r
}

// signIn opens a login link: API tokens are in Postgres, sessions are not.
func (c *scanner) signIn() {
	c.t.Helper()
	path, _ := c.login.NewLink(time.Now())
	c.open(path)
}

// open opens a login link and keeps the session.
func (c *scanner) open(path string) {
	c.t.Helper()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Get(c.url + path)
	if err != nil {
		c.t.Fatal(err)
	}
	resp.Body.Close()
	for _, cookie := range resp.Cookies() {
		if cookie.Name == identity.CookieName {
			c.cookie = cookie.Name + "=" + cookie.Value
		}
	}
	if c.cookie == "" {
		c.t.Fatalf("the login link gave no session: %s %v", resp.Status, resp.Header)
	}
}

// drawn is a photo of a receipt that tesseract can read. To draw it, and for a service to make it
// ready for its provider, takes half a second of a processor.
func drawn(t testing.TB) []byte {
	return receipttest.JPEG(t, receipttest.Draw(t, receipttest.Groceries, 26))
}

// small is a photo for a stand, which looks at none.
func small(t testing.TB) []byte {
	return receipttest.JPEG(t, receipttest.Draw(t, receipttest.Groceries, 6))
}

var scanProviders = map[string]func(url string) receipt.Provider{
	"openai": func(url string) receipt.Provider {
		return openai.New(openai.Config{APIKey: "key", BaseURL: url + "/v1"})
	},
	"anthropic": func(url string) receipt.Provider { return anthropic.New(anthropic.Config{APIKey: "key", BaseURL: url}) },
}

func TestScanRecordsWhatTheProviderSays(t *testing.T) {
	t.Parallel()
	for name, provider := range scanProviders {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, options{})
			s.setBudget("p1", -1, 100_000, events.PeriodMonth)
			c := s.scanner(events.FailClosed, provider)
			r := c.scan("p1", small(t))
			if r.Source != "ai" || r.Receipt.Total != 103.9 || r.SoftCapWarning != nil || r.Usage.TotalTokens != receipttest.TotalTokens {
				t.Fatalf("%s", r.text)
			}
			testenv.Eventually(s.t, "the reading is booked", func() bool { return s.booked("p1") == receipttest.TotalTokens && s.verified() })
			var feature, provider, model, request, response, user, measured string
			var input, output int64
			if err := s.db.QueryRow(t.Context(), "select feature, provider, model, request_id, response_id, user_id, measured_by::text, input_tokens, output_tokens from ai_usage_ledger").
				Scan(&feature, &provider, &model, &request, &response, &user, &measured, &input, &output); err != nil {
				t.Fatal(err)
			}
			if feature != "ocr" || provider != name || model != r.Usage.Model || request != r.Usage.RequestID || response != r.Usage.ResponseID || request == "" || user == "" || input != r.Usage.InputTokens || output != r.Usage.OutputTokens {
				t.Errorf("booked %s %s %s %s %s %s %s %d %d, the answer says %+v", feature, provider, model, request, response, user, measured, input, output, *r.Usage)
			}
			// The hold is settled: what is left is the cap less what was really spent.
			testenv.Eventually(s.t, "the hold turned into use", func() bool {
				v := s.check("p1", 0)
				return v.UsedTokens == receipttest.TotalTokens && v.HeldTokens == 0
			})
		})
	}
}

func TestScanIsBlockedAtTheCap(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	c := s.scanner(events.FailClosed, scanProviders["anthropic"])
	s.setBudget("spent", -1, 1000, events.PeriodMonth)
	s.spend("spent", 1000, time.Time{})
	s.setBudget("nearly", -1, 3000, events.PeriodMonth) // less is left than a reading may cost
	s.spend("nearly", 1000, time.Time{})
	for _, port := range []string{"spent", "nearly"} {
		r := c.scan(port, small(t))
		if r.status != 200 || r.Source != "manual" || r.Reason != "budget-exceeded" || r.Receipt != nil || r.Usage != nil || r.SoftCapWarning != nil || !r.ResetsAt.After(time.Now()) {
			t.Errorf("%s: %d %s", port, r.status, r.text)
		}
	}
	if n := len(c.stand.Requests()); n != 0 {
		t.Errorf("%d requests went to the provider", n)
	}
	if n := s.rows(); n != 2 {
		t.Errorf("%d rows are booked, want the two that were spent before", n)
	}
	// Another port is not concerned.
	if r := c.scan("other", small(t)); r.Source != "ai" {
		t.Errorf("another port: %s", r.text)
	}
}

func TestScanWarnsAtTheSoftCap(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	c := s.scanner(events.FailClosed, scanProviders["openai"])
	s.setBudget("p1", 800, 100_000, events.PeriodMonth)
	s.spend("p1", 900, time.Time{})
	if r := c.scan("p1", small(t)); r.Source != "ai" || r.SoftCapWarning == nil || r.SoftCapWarning.UsedTokens != 900 {
		t.Errorf("%s", r.text)
	}
}

func TestScanOfNonsenseIsPaidFor(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	c := s.scanner(events.FailClosed, scanProviders["openai"])
	c.stand.Text = "I would rather talk about something else."
	if r := c.scan("p1", small(t)); r.Source != "manual" || r.Reason != "unreadable-reply" || r.Usage.TotalTokens != receipttest.TotalTokens {
		t.Errorf("%s", r.text)
	}
	testenv.Eventually(s.t, "it is booked all the same", func() bool { return s.booked("p1") == receipttest.TotalTokens })
}

// Drawn here, read by the real tesseract, counted in the real ledger.
func TestScanWithTesseract(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	c := s.scanner(events.FailClosed, func(string) receipt.Provider { return tesseract.New(tesseract.Config{}) })
	s.setBudget("p1", 500, 1000, events.PeriodMonth)
	photo := drawn(t)
	r := c.scan("p1", photo)
	if r.Source != "ai" || r.Receipt.Merchant != "HARBOUR SUPPLY SDN BHD" || r.Receipt.Date != "2025-03-14" || r.Receipt.Total != 103.9 || r.Receipt.Currency != "MYR" || r.Usage.TotalTokens != 0 {
		t.Fatalf("%s\nThe test needs tesseract. On Debian: apt-get install -y tesseract-ocr", r.text)
	}
	testenv.Eventually(s.t, "the reading is booked", func() bool { return s.rows() == 1 })
	var provider, model string
	if err := s.db.QueryRow(t.Context(), "select provider, model from ai_usage_ledger where total_tokens = 0 and feature = 'ocr'").Scan(&provider, &model); err != nil || provider != "tesseract" || model != r.Usage.Model {
		t.Errorf("booked as %s %s, %v", provider, model, err)
	}
	// It costs nothing, but the cap holds for it too.
	s.spend("p1", 1000, time.Time{})
	if r := c.scan("p1", photo); r.Source != "manual" || r.Reason != "budget-exceeded" {
		t.Errorf("at the cap: %s", r.text)
	}
}

// Postgres stops: the gate still knows what was used, so the scan goes on, and what
// it cost is booked when Postgres is back.
func TestScanWithoutPostgres(t *testing.T) {
	t.Parallel()
	pg := testenv.PrivatePostgres(t)
	if err := migrations.Apply(t.Context(), pg.URL()); err != nil {
		t.Fatal(err)
	}
	s := &system{t: t, nats: testenv.NATS(t), url: pg.URL(), now: time.Now}
	s.nc = testenv.Connect(t, s.nats)
	s.js = testenv.Must(jetstream.New(s.nc))
	s.publisher = testenv.Must(events.NewPublisher(s.nc, events.PublisherConfig{}))
	t.Cleanup(func() { _ = s.publisher.Close(context.Background()) })
	s.client = testenv.Must(events.NewClient(s.nc, events.ClientConfig{WhenUnavailable: events.FailClosed, Publisher: s.publisher, Timeout: 5 * time.Second}))
	s.ledger = testenv.Must(ledger.Open(t.Context(), ledger.Config{URL: s.url}))
	t.Cleanup(s.ledger.Close)
	s.tokens = testenv.Must(pgstore.Open(t.Context(), s.url))
	t.Cleanup(s.tokens.Close)
	s.db = testenv.Must(pgxpool.New(t.Context(), s.url))
	t.Cleanup(s.db.Close)
	s.run()
	s.setBudget("p1", 100_000, 200_000, events.PeriodMonth)
	s.setBudget("spent", -1, 0, events.PeriodMonth)
	c := s.scanner(events.FailClosed, scanProviders["anthropic"])
	c.signIn()
	if err := pg.Kill(); err != nil {
		t.Fatal(err)
	}
	if r := c.scan("p1", small(t)); r.status != 200 || r.Source != "ai" || r.Receipt.Total != 103.9 || r.Usage.TotalTokens != receipttest.TotalTokens {
		t.Errorf("without Postgres: %d %s", r.status, r.text)
	}
	if r := c.scan("spent", small(t)); r.Source != "manual" || r.Reason != "budget-exceeded" {
		t.Errorf("without Postgres, at the cap: %s", r.text)
	}
	if err := pg.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(s.t, "the reading is booked", func() bool {
		var tokens int64
		err := s.db.QueryRow(t.Context(), "select coalesce(sum(total_tokens), 0)::bigint from ai_usage_ledger where port_id = 'p1'").Scan(&tokens)
		return err == nil && tokens == receipttest.TotalTokens
	})
}

// No gate runs: the policy decides, and what is spent is booked once there is
// somebody to book it.
func TestScanWithoutAGate(t *testing.T) {
	t.Parallel()
	s := start(t, options{noRoles: true})
	if r := s.scanner(events.FailClosed, scanProviders["openai"]).scan("p1", small(t)); r.status != 200 || r.Source != "manual" || r.Reason != "gate-unavailable" {
		t.Errorf("fail closed: %d %s", r.status, r.text)
	}
	if r := s.scanner(events.FailOpen, scanProviders["openai"]).scan("p1", small(t)); r.Source != "ai" {
		t.Errorf("fail open: %s", r.text)
	}
	s.run()
	testenv.Eventually(s.t, "the reading is booked", func() bool { return s.booked("p1") == receipttest.TotalTokens })
}

// TestReceiptCommand is the service as a process of its own, which knows nothing but
// the address of NATS: it signs in by the link it prints, scans, and when it is told
// to stop, answers the scan in flight and reports what that cost.
func TestReceiptCommand(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	c := &scanner{system: s, stand: &receipttest.Stand{}}
	arrived := make(chan struct{})
	c.stand.Then = func(n int, _ http.ResponseWriter, r *http.Request) bool {
		if n == 2 { // the second takes its time
			close(arrived)
			<-r.Context().Done()
		}
		return n == 2
	}
	stand := httptest.NewServer(c.stand)
	t.Cleanup(stand.Close)
	addr := testenv.FreeAddr(t)
	c.url = "http://" + addr
	cmd := exec.Command(testenv.Binary(t, "cmd/receipt"), "--http", addr, "--nats-url", s.nats.ClientURL(), "--data", t.TempDir(), "--provider", "claude", "--base-url", stand.URL)
	cmd.Env = append(os.Environ(), "ANTHROPIC_API_KEY=key")
	out := &testenv.Buffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		if t.Failed() {
			t.Logf("its output:\n%s", out)
		}
	})
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	for _, path := range []string{"/readyz", "/healthz", "/"} {
		testenv.Eventually(s.t, path+" answers 200", func() bool {
			resp, err := http.Get(c.url + path)
			if err != nil {
				return false
			}
			resp.Body.Close()
			return resp.StatusCode == http.StatusOK
		})
	}
	link := regexp.MustCompile(`/login\?code=\S+`).FindString(out.String())
	c.open(link)
	if r := c.scan("p1", small(t)); r.Source != "ai" || r.Receipt.Total != 103.9 {
		t.Fatalf("%s", r.text)
	}
	testenv.Eventually(s.t, "the reading is booked", func() bool { return s.booked("p1") == receipttest.TotalTokens })

	second := make(chan scanReply, 1)
	go func() {
		defer close(second) // also when the scan fails the test
		second <- c.scan("p2", small(t))
	}()
	testenv.Await(t, "the second scan is with the provider", arrived)
	_ = cmd.Process.Signal(syscall.SIGTERM)
	r := testenv.Await(t, "it is answered", second)
	if r.status != 200 || r.Source != "manual" || r.Reason != "provider-unavailable" || r.Usage == nil || r.Usage.InputTokens == 0 {
		t.Errorf("in flight at the stop: %d %s", r.status, r.text)
	}
	if err := testenv.Await(t, "the process ends", ended); err != nil {
		t.Errorf("it ended with %v", err)
	}
	testenv.Eventually(s.t, "what the provider had read is booked", func() bool { return r.Usage != nil && s.booked("p2") == r.Usage.TotalTokens })
}
