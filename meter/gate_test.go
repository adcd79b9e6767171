package meter_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/meter"
)

func TestHoldsAreSettledOrReleased(t *testing.T) {
	lost := errors.New("connection refused")
	respond := func(status int, body string) roundTripper {
		return func(r *http.Request) (*http.Response, error) {
			io.Copy(io.Discard, r.Body)
			return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
		}
	}
	for _, tt := range []struct {
		name     string
		base     roundTripper
		settled  string
		released []string
	}{
		{"a success names the hold", respond(200, chatReply), "hold-1", nil},
		{"a success without usage too", respond(201, `{}`), "hold-1", nil},
		{"an error status gives it back", respond(429, `{}`), "", []string{"p1 hold-1"}},
		{"no connection gives it back", func(*http.Request) (*http.Response, error) { return nil, lost }, "", []string{"p1 hold-1"}},
		{"a connection lost after sending gives it back: the SDK will retry", func(r *http.Request) (*http.Response, error) {
			io.Copy(io.Discard, r.Body)
			return nil, lost
		}, "", []string{"p1 hold-1"}},
		{"a timeout after sending keeps it", func(r *http.Request) (*http.Response, error) {
			io.Copy(io.Discard, r.Body)
			return nil, context.DeadlineExceeded
		}, "hold-1", nil},
		{"a stream that starts with an error gives it back", respond(200, "data: {\"error\":{\"message\":\"overloaded\"}}\n\n"), "", []string{"p1 hold-1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, g := new(ledger), &gate{holds: true}
			transport := meter.NewTransport(meter.Config{Port: "p1", Recorder: l, Reserver: g, HoldTTL: 90 * time.Second, Base: tt.base})
			resp, err := transport.RoundTrip(httptest.NewRequest("POST", "https://h/v1/chat/completions", strings.NewReader(chatRequest)))
			if err == nil {
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			var settled string
			for _, u := range l.all() {
				settled += u.ReservationID
			}
			if settled != tt.settled {
				t.Errorf("settled %q, want %q", settled, tt.settled)
			}
			if diff := cmp.Diff(tt.released, g.released); diff != "" {
				t.Errorf("released: want (-), got (+):\n%s", diff)
			}
			want := events.CheckRequest{PortID: "p1", Feature: "unnamed", Provider: "openai", Model: "m", EstimatedTokens: 20 + 100, EstimatedInputTokens: 20, EstimatedOutputTokens: 100}
			if g.ttl != 90 {
				t.Errorf("the hold lives %d s, want 90", g.ttl)
			}
			if diff := cmp.Diff([]events.CheckRequest{want}, g.asked); diff != "" {
				t.Errorf("asked: want (-), got (+):\n%s", diff)
			}
		})
	}
}

// TestGateThatFails: whatever the error is, the verdict is acted on.
func TestGateThatFails(t *testing.T) {
	silent := errors.New("no gate answered")
	for _, tt := range []struct {
		name string
		gate *gate
		rows int
	}{
		{"fail open", &gate{err: silent}, 1},
		{"fail closed", &gate{err: silent, closed: true}, 0},
		{"fail open, reserving", &gate{err: silent, holds: true}, 1},
		{"fail closed, reserving", &gate{err: silent, holds: true, closed: true}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := newStand(t, says("application/json", chatReply))
			client, l, transport := metered(t, tt.gate)
			resp := post(t, t.Context(), client, server.URL, chatRequest)
			_, err := io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if len(l.all()) != tt.rows || server.requests.Load() != int64(tt.rows) || transport.Stats().GateErrors != 1 {
				t.Errorf("%d rows, %d requests, stats %+v; want %d rows and one error counted", len(l.all()), server.requests.Load(), transport.Stats(), tt.rows)
			}
			if refused := errors.Is(err, silent); refused != tt.gate.closed {
				t.Errorf("reading says %v", err)
			}
		})
	}
}

// TestCancelledWhileAsking: the caller gave up; that is no refusal.
func TestCancelledWhileAsking(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	g := &gate{holds: true}
	asking := gateFunc(func(ctx context.Context, r events.ReserveRequest) (*events.Reservation, error) {
		cancel()
		return g.Reserve(ctx, r)
	})
	transport := meter.NewTransport(meter.Config{Port: "p1", Reserver: struct {
		gateFunc
		releaser
	}{asking, g}})
	req := httptest.NewRequest("POST", "https://h/v1/chat/completions", strings.NewReader(chatRequest)).WithContext(ctx)
	if _, err := transport.RoundTrip(req); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v, want context.Canceled", err)
	}
	if diff := cmp.Diff([]string{"p1 hold-1"}, g.released); diff != "" {
		t.Errorf("released: want (-), got (+):\n%s", diff)
	}
}

type gateFunc func(context.Context, events.ReserveRequest) (*events.Reservation, error)

func (f gateFunc) Reserve(ctx context.Context, r events.ReserveRequest) (*events.Reservation, error) {
	return f(ctx, r)
}

type releaser interface {
	Release(ctx context.Context, port, reservationID string) error
}

func TestRefusedWithoutAnSDK(t *testing.T) {
	server := newStand(t, says("application/json", chatReply))
	client, _, _ := metered(t, &gate{refuseFrom: 1})
	client.Timeout = time.Minute // makes http.Client wrap bodies
	resp := post(t, t.Context(), client, server.URL, chatRequest)
	defer resp.Body.Close()
	refused, ok := meter.Refused(resp)
	if !ok || resp.StatusCode != http.StatusPaymentRequired || resp.Header.Get("X-Should-Retry") != "false" {
		t.Fatalf("response %v is not marked as refused", resp)
	}
	const want = "meter: port p1: call of about 120 tokens refused: hard_cap_reached (1000 used and 0 held of 1000)"
	if refused.Error() != want {
		t.Errorf("error %q, want %q", refused, want)
	}

	other := post(t, t.Context(), server.Client(), server.URL, chatRequest)
	defer other.Body.Close()
	if _, ok := meter.Refused(other); ok {
		t.Error("a response of the provider's counts as refused")
	}
}

func TestStreamStopsAtTheHardCap(t *testing.T) {
	forty := strings.Repeat("x", 160) // tokens
	ended := make(chan struct{}, 2)
	endless := func(w http.ResponseWriter, r *http.Request) {
		defer func() { ended <- struct{}{} }()
		w.Header().Set("Content-Type", "text/event-stream")
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, chatChunk(forty)); err != nil {
				return
			}
			w.(http.Flusher).Flush()
		}
	}
	for _, tt := range []struct {
		name  string
		holds bool
		asks  [][2]int64 // the estimates in the questions: input and output
	}{
		{"checked", false, [][2]int64{{20, 100}, {20, 80}, {20, 160}}},
		{"reserved: asked only for what the hold does not cover", true, [][2]int64{{20, 100}, {0, 20 + 160 - 120}, {0, 20 + 240 - 120}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := newStand(t, endless)
			l, g := new(ledger), &gate{refuseFrom: 3, holds: tt.holds}
			base := http.DefaultTransport.(*http.Transport).Clone()
			defer base.CloseIdleConnections()
			cfg := meter.Config{Base: base, Port: "p1", Feature: "chat", User: "u1", Recorder: l, Gate: g, CheckOnly: !tt.holds, RecheckTokens: 80}
			client := &http.Client{Transport: meter.NewTransport(cfg)}
			resp := post(t, t.Context(), client, server.URL, chatRequest)
			defer resp.Body.Close()
			// One event at a time, so that the questions come at known places.
			buf := make([]byte, len(chatChunk(forty)))
			var err error
			var read int64
			for err == nil {
				if _, err = io.ReadFull(resp.Body, buf); err == nil {
					read++
				}
			}
			var refused *meter.RefusedError
			if !errors.As(err, &refused) || !refused.Streaming {
				t.Fatalf("err = %v, want a RefusedError while streaming", err)
			}
			select {
			case <-ended: // although nobody has closed the body
			case <-time.After(10 * time.Second):
				t.Error("the provider goes on generating")
			}
			if _, again := resp.Body.Read(buf); !errors.Is(again, refused) {
				t.Errorf("reading on says %v, want the same error", again)
			}
			var asked [][2]int64
			for _, r := range g.asked {
				asked = append(asked, [2]int64{r.EstimatedInputTokens, r.EstimatedOutputTokens})
				if err := r.Validate(); err != nil || r.Model != "m" {
					t.Errorf("it asked %+v, %v", r, err)
				}
			}
			if diff := cmp.Diff(tt.asks, asked); diff != "" {
				t.Errorf("asked: want (-), got (+):\n%s", diff)
			}
			rows := l.all()
			if len(rows) != 1 || rows[0].Status != events.StatusPartial || rows[0].OutputTokens != 40*read {
				t.Errorf("recorded %+v, want one partial row with %d output tokens", rows, 40*read)
			}
		})
	}
}
