package receipt_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity/safehttp"
	"github.com/tidegate/tidegate/receipt"
	"github.com/tidegate/tidegate/receipt/receipttest"
)

var resets = time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)

func capped(used int64) events.Verdict {
	soft, hard := int64(800), int64(1000)
	return events.Verdict{Allowed: used < hard, Enabled: true, Period: events.PeriodMonth, ResetsAt: resets, UsedTokens: used,
		SoftCapTokens: &soft, HardCapTokens: &hard, RemainingTokens: new(max(hard-used, 0)), SoftCapWarning: used >= soft}
}

func TestReadsAReceipt(t *testing.T) {
	w := start(t, open(), nil)
	r := w.scan("p1")
	want := `{"source":"ai","receipt":{"merchant":"Harbour Supply","date":"2025-03-14","total":103.90,"currency":"MYR","items":[` +
		`{"description":"Rope","quantity":2,"amount":84.00},{"description":"Brush","quantity":null,"amount":null}]},` +
		`"usage":{"provider":"reader","model":"reader-1","input_tokens":0,"output_tokens":0,"total_tokens":0,` +
		`"details":{"cache_read_input_tokens":0,"cache_write_input_tokens":0,"reasoning_output_tokens":0},"measured_by":"provider","calls":1},` +
		`"soft_cap_warning":null,"budget":null}` + "\n"
	if r.status != 200 || r.text != want {
		t.Errorf("%d %s\nwant %s", r.status, r.text, want)
	}
	if r.header.Get("Content-Type") != "application/json" || r.header.Get("Cache-Control") != "no-store" || !strings.HasPrefix(r.header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("%v", r.header)
	}
	rows := w.book.all()
	if len(rows) != 1 || rows[0].PortID != "p1" || rows[0].Feature != "ocr" || rows[0].UserID == "" || rows[0].Provider != "reader" || rows[0].Validate() != nil {
		t.Errorf("recorded %+v", rows)
	}
	if want := []string{"check p1 ocr " + rows[0].UserID}; !slices.Equal(w.gate.asked, want) {
		t.Errorf("the gate was asked %q, want %q", w.gate.asked, want)
	}
}

func TestBlockedAndTheProviderIsNotAsked(t *testing.T) {
	for reason, want := range map[events.RefusalReason]string{
		events.ReasonHardCapReached: "budget-exceeded", events.ReasonEstimateExceedsHardCap: "budget-exceeded",
		events.ReasonGateStale: "gate-unavailable", events.ReasonGateUnavailable: "gate-unavailable", "": "gate-unavailable",
	} {
		g := &gate{verdict: capped(1000)}
		g.verdict.Reason = reason
		w := start(t, g, func(c *receipt.Config) {
			c.Provider = reader(func(context.Context, *http.Client, image.Image) (receipt.Receipt, *events.Usage, error) {
				t.Error("the provider was asked")
				return groceries, nil, nil
			})
		})
		r := w.scan("p1")
		if r.status != 200 || r.Source != "manual" || r.Reason != want || r.Detail == "" || r.Receipt != nil || r.Usage != nil || r.SoftCapWarning != nil {
			t.Errorf("%s: %d %s", reason, r.status, r.text)
		}
		if want == "budget-exceeded" && (r.ResetsAt != "2026-12-01T00:00:00Z" || r.Budget["used_tokens"] != 1000.0 || !strings.Contains(r.Detail, "1 December 2026, 00:00 UTC")) {
			t.Errorf("%s: %s", reason, r.text)
		}
		if len(w.book.all()) > 0 {
			t.Errorf("%s: recorded %+v", reason, w.book.all())
		}
	}
}

func TestWarnsAtTheSoftCap(t *testing.T) {
	w := start(t, &gate{verdict: capped(900)}, nil)
	r := w.scan("p1")
	if r.Source != "ai" || r.SoftCapWarning["used_tokens"] != 900.0 || r.SoftCapWarning["soft_cap_tokens"] != 800.0 || r.SoftCapWarning["remaining_tokens"] != 100.0 || r.SoftCapWarning["message"] == "" {
		t.Errorf("%s", r.text)
	}
	w = start(t, &gate{verdict: capped(100)}, nil)
	if r := w.scan("p1"); r.SoftCapWarning != nil || r.Budget["remaining_tokens"] != 900.0 {
		t.Errorf("below it: %s", r.text)
	}
}

func TestWhateverGoesWrongTheReceiptCanBeTyped(t *testing.T) {
	spent := &events.Usage{Provider: "reader", Model: "reader-1", InputTokens: 100, OutputTokens: 20}
	fails := func(usage *events.Usage, err error) receipt.Provider {
		return reader(func(context.Context, *http.Client, image.Image) (receipt.Receipt, *events.Usage, error) {
			return receipt.Receipt{}, usage, err
		})
	}
	for name, c := range map[string]struct {
		provider receipt.Provider
		want     string
		spent    float64
	}{
		"no provider":    {nil, "provider-not-configured", 0},
		"not configured": {fails(nil, fmt.Errorf("%w: no key", receipt.ErrNotConfigured)), "provider-not-configured", 0},
		"down":           {fails(nil, errors.New("connection refused")), "provider-unavailable", 0},
		"too slow":       {fails(spent, context.DeadlineExceeded), "provider-unavailable", 120},
		"nonsense":       {fails(spent, fmt.Errorf("%w: hello", receipt.ErrUnreadableReply)), "unreadable-reply", 120},
		"an empty page":  {fails(spent, nil), "unreadable-receipt", 120},
		"panic": {reader(func(context.Context, *http.Client, image.Image) (receipt.Receipt, *events.Usage, error) {
			panic("a bug")
		}), "provider-unavailable", 0},
		"hangs": {reader(func(ctx context.Context, _ *http.Client, _ image.Image) (receipt.Receipt, *events.Usage, error) {
			<-ctx.Done()
			return receipt.Receipt{}, nil, ctx.Err()
		}), "provider-unavailable", 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, open(), func(cfg *receipt.Config) { cfg.Provider, cfg.Timeout = c.provider, 500*time.Millisecond })
			r := w.scan("p1")
			if r.status != 200 || r.Source != "manual" || r.Reason != c.want || r.Detail == "" || r.Receipt != nil {
				t.Errorf("%d %s, want %s", r.status, r.text, c.want)
			}
			total := 0.0
			if r.Usage != nil {
				total = r.Usage["total_tokens"].(float64)
			}
			booked := 0.0
			for _, u := range w.book.all() {
				booked += float64(u.TotalTokens())
			}
			if total != c.spent || booked != c.spent {
				t.Errorf("the answer says %v tokens, %v were recorded, want %v", total, booked, c.spent)
			}
		})
	}
}

func TestPolicyDecidesWithoutAGate(t *testing.T) {
	down := fmt.Errorf("asking: %w", events.ErrUnavailable)
	for name, c := range map[string]struct {
		allowed bool
		source  string
	}{"fail open": {true, "ai"}, "fail closed": {false, "manual"}} {
		g := &gate{checkErr: down, holdErr: down, verdict: events.Verdict{Allowed: c.allowed}}
		if !c.allowed {
			g.verdict.Reason = events.ReasonGateUnavailable
		}
		w := start(t, g, nil)
		r := w.scan("p1")
		if r.Source != c.source || r.SoftCapWarning != nil || r.Budget != nil {
			t.Errorf("%s: %s", name, r.text)
		}
	}
}

// The server stops while a provider takes its time: the scan is still answered.
func TestStoppingAnswersScansInFlight(t *testing.T) {
	began := make(chan struct{})
	g := open()
	w := start(t, g, nil) // for its tokens
	handler, err := receipt.New(receipt.Config{Gate: g, Recorder: w.book, Auth: w.auth(), Provider: reader(func(ctx context.Context, _ *http.Client, _ image.Image) (receipt.Receipt, *events.Usage, error) {
		close(began)
		<-ctx.Done()
		return receipt.Receipt{}, &events.Usage{Provider: "reader", Model: "reader-1", InputTokens: 7, Status: events.StatusPartial}, context.Cause(ctx)
	})})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- safehttp.Serve(ctx, listener, handler) }()
	w.url = "http://" + listener.Addr().String()
	answered := make(chan reply, 1)
	go func() {
		defer close(answered) // also when the scan fails the test
		answered <- w.scan("p1")
	}()
	<-began
	stop()
	if r := <-answered; r.status != 200 || r.Source != "manual" || r.Reason != "provider-unavailable" || r.Usage["input_tokens"] != 7.0 {
		t.Errorf("%d %s", r.status, r.text)
	}
	if err := <-served; err != nil {
		t.Errorf("the server ends with %v", err)
	}
}

func TestBusy(t *testing.T) {
	began, goOn := make(chan struct{}), make(chan struct{})
	w := start(t, open(), func(cfg *receipt.Config) {
		cfg.MaxScans = 1
		cfg.Provider = reader(func(context.Context, *http.Client, image.Image) (receipt.Receipt, *events.Usage, error) {
			close(began)
			<-goOn
			return groceries, nil, nil
		})
	})
	first := make(chan reply, 1)
	go func() {
		defer close(first)
		first <- w.scan("p1")
	}()
	<-began
	if r := w.scan("p1"); r.status != 503 || r.header.Get("Retry-After") != "5" || !strings.HasSuffix(r.Type, "#busy") {
		t.Errorf("%d %s", r.status, r.text)
	}
	close(goOn)
	if r := <-first; r.Source != "ai" {
		t.Errorf("the first one: %s", r.text)
	}
}

func TestAmountsAreNumbersWithTwoDecimals(t *testing.T) {
	for a, want := range map[receipt.Amount]string{0: "0.00", 5: "0.05", 10390: "103.90", -2: "-0.02", -12345: "-123.45", receipt.MaxAmount: "100000000000.00"} {
		got, err := json.Marshal(a)
		if err != nil || string(got) != want || !json.Valid(got) {
			t.Errorf("%d: %s, %v, want %s", a, got, err, want)
		}
	}
}

// A small picture is read while large ones wait for their turn.
func TestALargePictureDelaysNoSmallOne(t *testing.T) {
	const many = 6
	w := start(t, open(), nil)
	body, contentType := form(t, "image", receipttest.PNG(t, image.NewGray(image.Rect(0, 0, 1600, 1500))))
	var answered atomic.Int64
	var large sync.WaitGroup
	for range many {
		large.Go(func() {
			if r := w.post("/api/v1/ports/p1/scan-receipt", w.token, contentType, bytes.NewReader(body)); r.Source != "ai" {
				t.Errorf("a large one: %d %s", r.status, r.text)
			}
			answered.Add(1)
		})
	}
	for checked := 0; checked < many; time.Sleep(time.Millisecond) {
		w.gate.mu.Lock()
		checked = len(w.gate.asked)
		w.gate.mu.Unlock()
	}
	if r := w.scan("p2"); r.Source != "ai" {
		t.Errorf("the small one: %d %s", r.status, r.text)
	}
	if n := answered.Load(); n > many/2 {
		t.Errorf("%d of %d large ones were read before the small one", n, many)
	}
	large.Wait()
}
