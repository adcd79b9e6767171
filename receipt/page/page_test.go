package page_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"image"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/internal/browser"
	"github.com/tidegate/tidegate/receipt"
	"github.com/tidegate/tidegate/receipt/receipttest"
)

// service is a receipt service whose gate and provider do what the test says.
type service struct {
	mu      sync.Mutex
	verdict events.Verdict
	read    receipt.Receipt
	err     error
	scans   []string      // ports
	reading chan struct{} // closed when a reading may end; nil: at once

	url, link string
}

func (s *service) Check(_ context.Context, r events.CheckRequest) (events.Verdict, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scans = append(s.scans, r.PortID)
	return s.verdict, nil
}

func (s *service) Reserve(context.Context, events.ReserveRequest) (*events.Reservation, error) {
	return &events.Reservation{}, nil
}
func (s *service) Release(context.Context, string, string) error { return nil }
func (s *service) Record(events.Usage)                           {}
func (s *service) Name() string                                  { return "stand-in" }

func (s *service) Read(context.Context, *http.Client, image.Image) (receipt.Receipt, *events.Usage, error) {
	s.mu.Lock()
	reading := s.reading
	s.mu.Unlock()
	if reading != nil {
		<-reading
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read, &events.Usage{Provider: "stand-in", Model: "stand-in-1", InputTokens: 1200, OutputTokens: 90, RequestID: "req_7"}, s.err
}

// set changes what happens from now on.
func (s *service) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func newService(t *testing.T, permissions ...string) *service {
	t.Helper()
	s := &service{verdict: events.Verdict{Allowed: true}, read: receipt.Receipt{
		Merchant: "Harbour Supply", Date: time.Date(2025, 3, 14, 0, 0, 0, 0, time.UTC), Total: new(receipt.Amount(10390)), Currency: "MYR",
		Items: []receipt.Item{{Description: "Mooring rope", Quantity: 2, Amount: new(receipt.Amount(8400))}, {Description: "Deck brush", Amount: new(receipt.Amount(1990))}},
	}}
	sessions, err := identity.NewSessions(identity.SessionConfig{Key: make([]byte, identity.KeyBytes)})
	if err != nil {
		t.Fatal(err)
	}
	login, err := identity.NewLogin(identity.LoginConfig{Sessions: sessions, LinkCaller: &identity.Caller{Subject: "ada", Name: "Ada Lovelace", Permissions: permissions}})
	if err != nil {
		t.Fatal(err)
	}
	handler, err := receipt.New(receipt.Config{Gate: s, Recorder: s, Provider: s, Login: login, Auth: &identity.Authenticator{Sessions: sessions, LoginPath: "/login"}})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	path, _ := login.NewLink(time.Now())
	s.url, s.link = server.URL, server.URL+path
	return s
}

// drop drops a file on the page.
func drop(t *testing.T, p *browser.Page, kind string, data []byte) {
	t.Helper()
	p.Do(fmt.Sprintf(`{
		const bytes = Uint8Array.from(atob(%q), (c) => c.charCodeAt(0));
		const transfer = new DataTransfer();
		transfer.items.add(new File([bytes], 'receipt', {type: %q}));
		document.body.dispatchEvent(new DragEvent('drop', {dataTransfer: transfer, bubbles: true, cancelable: true}));
	}`, base64.StdEncoding.EncodeToString(data), kind))
}

// choose puts a file into the file input.
func choose(t *testing.T, p *browser.Page, kind string, data []byte) {
	t.Helper()
	p.Do(fmt.Sprintf(`{
		const bytes = Uint8Array.from(atob(%q), (c) => c.charCodeAt(0));
		const transfer = new DataTransfer();
		transfer.items.add(new File([bytes], 'receipt', {type: %q}));
		const input = document.querySelector('#choose');
		input.files = transfer.files;
		input.dispatchEvent(new Event('change', {bubbles: true}));
	}`, base64.StdEncoding.EncodeToString(data), kind))
}

// looks checks the page with axe, wide and narrow, light and dark.
func looks(p *browser.Page, name string) {
	for _, l := range []struct {
		scheme string
		width  int64
	}{{"light", 1280}, {"dark", 360}} {
		p.Size(l.width, 800)
		p.Prefers("prefers-color-scheme", l.scheme, "prefers-reduced-motion", "reduce")
		p.Screenshot(fmt.Sprintf("%s-%s-%d", name, l.scheme, l.width))
		p.Axe()
		if over := browser.Eval[int](p, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
			p.Fail("%s: the page is %d px too wide at %d", name, over, l.width)
		}
	}
	p.Prefers()
	p.Size(1280, 800)
}

func value(t *testing.T, p *browser.Page, field, want string) {
	t.Helper()
	if got := browser.Eval[string](p, fmt.Sprintf("document.querySelector('form.receipt [name=%s]').value", field)); got != want {
		t.Errorf("%s is %q, want %q", field, got, want)
	}
}

func TestReceiptPage(t *testing.T) {
	b := browser.Start(t)
	photo := receipttest.JPEG(t, receipttest.Draw(t, receipttest.Groceries, 16))

	t.Run("Scans", func(t *testing.T) {
		s, p := newService(t, receipt.Permission), b.Page(t)
		p.Open(s.url)
		p.See("Sign in", "tidegate login-link") // which knows all ways
		looks(p, "signed-out")
		p.Open(s.link)
		p.See("Scan a receipt", "Ada Lovelace", "up to 10 MiB", "Drop a photo of the receipt here")
		looks(p, "empty")

		// A receipt that is dropped before anyone said for which port waits for that.
		drop(t, p, "image/jpeg", photo)
		p.See("Say whose budget pays")
		p.Role("combobox", "Port").Fill("marina-7")
		p.Type(kb.Tab)
		p.See("Please check what was read", "Read by stand-in-1: 1,290 tokens (req_7).")
		p.SeeNot("Soft cap reached.", "Say whose budget pays")
		for field, want := range map[string]string{"merchant": "Harbour Supply", "date": "2025-03-14", "total": "103.90", "currency": "MYR"} {
			value(t, p, field, want)
		}
		if got := browser.Eval[string](p, "[...document.querySelectorAll('.items input')].map((i) => i.value).join('|')"); got != "2|Mooring rope|84.00||Deck brush|19.90" {
			t.Errorf("items %q", got)
		}
		looks(p, "read")

		// Corrected, and taken away as JSON.
		p.Role("textbox", "Total").Fill("nine")
		p.Role("button", "Copy as JSON").Click()
		p.See("Write it like 103.90")
		p.Role("combobox", "Currency").Fill("XYZ")
		p.Role("button", "Copy as JSON").Click()
		p.See("Three letters, such as EUR")
		p.Role("combobox", "Currency").Fill("myr")
		p.Role("textbox", "Total").Fill("1.234,50")
		p.Role("button", "Add an item").Click()
		p.Type("Coffee")
		p.Do(`Object.defineProperty(navigator, 'clipboard', {value: {writeText: async (text) => { window.copied = text; }}})`)
		p.Role("button", "Copy as JSON").Click()
		p.See("Copied.")
		want := `{"merchant":"Harbour Supply","date":"2025-03-14","total":1234.5,"currency":"MYR","items":[{"description":"Mooring rope","quantity":2,"amount":84},{"description":"Deck brush","quantity":null,"amount":19.9},{"description":"Coffee","quantity":null,"amount":null}]}`
		if got := browser.Eval[string](p, "JSON.stringify(JSON.parse(window.copied))"); got != want {
			t.Errorf("copied %s\nwant %s", got, want)
		}

		// The next one, with the soft cap reached.
		p.Role("button", "Next receipt").Click()
		p.SeeNot("Please check what was read")
		soft, hard := int64(800), int64(1_000_000)
		s.set(func() {
			s.verdict = events.Verdict{Allowed: true, SoftCapWarning: true, Enabled: true, Period: "month", UsedTokens: 900, SoftCapTokens: &soft, HardCapTokens: &hard, ResetsAt: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)}
		})
		reading := make(chan struct{})
		s.set(func() {
			s.reading = reading
			s.read.Currency, s.read.Total = "JPY", new(receipt.Amount(120000))
		})
		p.Size(360, 640)
		choose(t, p, "image/jpeg", photo)
		p.See("Reading…")
		p.Until(`document.querySelector('.photo').offsetHeight > 100`)
		p.Until(`(() => { const r = document.querySelector('.progress').getBoundingClientRect(); return r.height > 0 && r.top >= 0 && r.bottom <= innerHeight })()`)
		p.Screenshot("reading")
		p.Size(1280, 800)
		close(reading)
		p.See("Soft cap reached. This port has used 900 tokens of its AI budget; its soft cap is 800, and at 1,000,000 receipts have to be typed until 1 December 2026, 00:00 UTC.", "Before it, the port had used 900 of 1,000,000 tokens.")
		value(t, p, "total", "1200") // yen have no hundredths
		looks(p, "soft-cap")

		// And with the hard cap reached: nothing is read, everything can be typed.
		s.set(func() { s.verdict.Allowed, s.verdict.Reason = false, events.ReasonHardCapReached })
		choose(t, p, "image/jpeg", photo)
		p.See("Please type this receipt", "AI budget used up.", "1 December 2026, 00:00 UTC", "The port has used 900 of 1,000,000 tokens.", "The photo goes to stand-in")
		p.SeeNot("Soft cap reached.", "Read by")
		for _, field := range []string{"merchant", "date", "total"} {
			value(t, p, field, "")
		}
		value(t, p, "currency", "MYR") // as the last one that was taken away
		looks(p, "typed")
		p.Role("textbox", "Merchant").Fill("Corner Cafe")
		p.Role("button", "Copy as JSON").Click()
		p.See("Copied.")
		for _, port := range s.scans {
			if port != "marina-7" {
				t.Errorf("a scan was for %q", port)
			}
		}
	})

	t.Run("Explains", func(t *testing.T) {
		s, p := newService(t, receipt.Permission), b.Page(t)
		p.Open(s.link)
		p.Open(s.url + "/?port=p1")
		p.See("Ada Lovelace")
		choose(t, p, "text/plain", []byte("TOTAL 9.00"))
		p.See("This is no JPEG, PNG or WebP picture.")
		choose(t, p, "image/png", []byte("TOTAL 9.00"))
		p.See("This kind of file is not taken: this is no JPEG, PNG or WebP picture.")
		s.set(func() { s.err = receipt.ErrNotConfigured })
		choose(t, p, "image/jpeg", photo)
		p.See("No AI right now. No AI is set up to read receipts here.")
		s.set(func() { s.err, s.read = nil, receipt.Receipt{} })
		choose(t, p, "image/jpeg", photo)
		p.See("Nothing could be read. No receipt could be read on the picture.")
		p.Role("button", "Sign out").Click()
		p.See("It works once")
		p.Open(s.url)
		p.See("It works once")
		p.Open(s.url + "/elsewhere")
		p.See("There is nothing at this address")
		looks(p, "nothing-here")
	})

	t.Run("Forbidden", func(t *testing.T) {
		s, p := newService(t, "something.else"), b.Page(t)
		p.Open(s.link)
		p.Open(s.url)
		p.See("You may not scan receipts", "expenses.scan")
		looks(p, "forbidden")
	})
}
