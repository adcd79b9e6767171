package meter_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/meter"
)

// ledger collects what a Transport records.
type ledger struct {
	mu   sync.Mutex
	rows []events.Usage
}

func (l *ledger) Record(u events.Usage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rows = append(l.rows, u)
}

func (l *ledger) all() []events.Usage {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]events.Usage(nil), l.rows...)
}

// stand plays a provider: the n-th request gets the n-th answer, the last one for ever.
type stand struct {
	*httptest.Server
	requests atomic.Int64
	answers  []http.HandlerFunc
}

func newStand(t *testing.T, answers ...http.HandlerFunc) *stand {
	s := &stand{answers: answers}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		n := int(s.requests.Add(1))
		s.answers[min(n, len(s.answers))-1](w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// says answers with body at once.
func says(contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("X-Request-Id", "req_1")
		w.Header().Set("Request-Id", "req_1")
		io.WriteString(w, body)
	}
}

// stallsAfter answers with the beginning of a body and then waits for the client
// to go away.
func stallsAfter(contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		says(contentType, body)(w, r)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
}

func fails(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Retry-After-Ms", "1")
	http.Error(w, `{"error":{"message":"down","type":"server_error"}}`, http.StatusInternalServerError)
}

// metered is a client whose calls are metered into a fresh ledger.
func metered(t *testing.T, g *gate) (*http.Client, *ledger, *meter.Transport) {
	l := new(ledger)
	base := http.DefaultTransport.(*http.Transport).Clone()
	t.Cleanup(base.CloseIdleConnections)
	cfg := meter.Config{Base: base, Port: "p1", User: "u1", Feature: "chat", Recorder: l}
	if g != nil {
		cfg.Gate = g
		if g.holds {
			cfg.Reserver = g
		}
	}
	transport := meter.NewTransport(cfg)
	return &http.Client{Transport: transport}, l, transport
}

func expect(u events.Usage, by events.MeasuredBy, status events.Status) []events.Usage {
	u.PortID, u.UserID, u.Feature, u.MeasuredBy, u.Status = "p1", "u1", "chat", by, status
	return []events.Usage{u}
}

func wantRows(t *testing.T, l *ledger, want []events.Usage) {
	t.Helper()
	if diff := cmp.Diff(want, l.all()); diff != "" {
		t.Errorf("recorded: want (-), got (+):\n%s", diff)
	}
}

func onePartial(t *testing.T, l *ledger) {
	t.Helper()
	rows := l.all()
	if len(rows) != 1 || rows[0].Status != events.StatusPartial || rows[0].MeasuredBy != events.MeasuredByPartial || rows[0].InputTokens == 0 {
		t.Errorf("recorded %+v, want one partial row with its input", rows)
	}
}

// gate answers from a script and writes down what it is asked.
type gate struct {
	refuseFrom int            // from the n-th question on, 0: never
	refusal    events.Verdict // how, unless that is left out
	holds      bool           // it is a Reserver, too
	err        error          // beside every verdict
	closed     bool           // and then it refuses

	mu       sync.Mutex
	asked    []events.CheckRequest
	ttl      int64 // of the last reserve
	reserved int
	released []string
}

func (g *gate) Check(_ context.Context, r events.CheckRequest) (events.Verdict, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked = append(g.asked, r)
	if g.refuseFrom > 0 && len(g.asked) >= g.refuseFrom {
		if g.refusal.Reason != "" {
			return g.refusal, g.err
		}
		hard := int64(1000)
		return events.Verdict{Reason: events.ReasonHardCapReached, Enabled: true, HardCapTokens: &hard, UsedTokens: 1000}, g.err
	}
	return events.Verdict{Allowed: !g.closed}, g.err
}

func (g *gate) Reserve(ctx context.Context, r events.ReserveRequest) (*events.Reservation, error) {
	v, err := g.Check(ctx, events.CheckRequest{
		PortID: r.PortID, Feature: r.Feature, Provider: r.Provider, Model: r.Model, UserID: r.UserID, RunID: r.RunID,
		EstimatedTokens: r.EstimatedTokens, EstimatedInputTokens: r.EstimatedInputTokens, EstimatedOutputTokens: r.EstimatedOutputTokens,
	})
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ttl = r.TTLSeconds
	if v.Allowed {
		g.reserved++
		v.ReservationID, v.GrantedTokens = fmt.Sprintf("hold-%d", g.reserved), r.EstimatedTokens
	}
	return &events.Reservation{Verdict: v}, err
}

func (g *gate) Release(_ context.Context, port, reservation string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.released = append(g.released, port+" "+reservation)
	return nil
}

var (
	_ meter.Gate     = (*events.Client)(nil)
	_ meter.Reserver = (*events.Client)(nil)
	_ meter.Recorder = (*events.Publisher)(nil)
)
