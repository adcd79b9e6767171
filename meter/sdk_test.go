package meter_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/meter"
)

func TestOneCallIsOneUsage(t *testing.T) {
	for _, s := range sdks {
		t.Run(s.name, func(t *testing.T) {
			server := newStand(t, says("application/json", s.reply))
			client, l, _ := metered(t, nil)
			text, err := s.call(t.Context(), client, server.URL)
			if err != nil || text != "A harbour." {
				t.Errorf("the SDK says %q, %v", text, err)
			}
			wantRows(t, l, expect(s.want, events.MeasuredByProvider, events.StatusOK))
		})
		t.Run(s.name+" streaming", func(t *testing.T) {
			server := newStand(t, says("text/event-stream", s.streamBody(len(s.events))))
			client, l, _ := metered(t, nil)
			if err := s.stream(t.Context(), client, server.URL, func() bool { return true }); err != nil {
				t.Error(err)
			}
			wantRows(t, l, expect(s.want, events.MeasuredByProvider, events.StatusOK))
		})
	}
}

func TestCancelledHalfWayIsOnePartial(t *testing.T) {
	for _, s := range sdks {
		t.Run(s.name+" streaming", func(t *testing.T) {
			server := newStand(t, stallsAfter("text/event-stream", s.streamBody(1)))
			client, l, _ := metered(t, nil)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s.stream(ctx, client, server.URL, func() bool { cancel(); return true })
			wantRows(t, l, expect(s.wantCut, events.MeasuredByPartial, events.StatusPartial))
		})
		t.Run(s.name+" streaming, closed by its reader", func(t *testing.T) {
			server := newStand(t, stallsAfter("text/event-stream", s.streamBody(1)))
			client, l, _ := metered(t, nil)
			s.stream(t.Context(), client, server.URL, func() bool { return false })
			wantRows(t, l, expect(s.wantCut, events.MeasuredByPartial, events.StatusPartial))
		})
		for name, begin := range map[string]http.HandlerFunc{
			" before an answer":          func(http.ResponseWriter, *http.Request) {},
			" in the middle of the JSON": says("application/json", s.reply[:len(s.reply)/2]),
		} {
			t.Run(s.name+name, func(t *testing.T) {
				begun := make(chan struct{})
				server := newStand(t, func(w http.ResponseWriter, r *http.Request) {
					begin(w, r)
					if name != " before an answer" {
						w.(http.Flusher).Flush()
					}
					close(begun)
					<-r.Context().Done()
				})
				client, l, _ := metered(t, nil)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go func() { <-begun; cancel() }()
				if _, err := s.call(ctx, client, server.URL); !errors.Is(err, context.Canceled) {
					t.Errorf("err = %v, want context.Canceled", err)
				}
				onePartial(t, l)
			})
		}
	}
}

func TestRetriesAreNotBookedTwice(t *testing.T) {
	for _, s := range sdks {
		t.Run(s.name, func(t *testing.T) {
			server := newStand(t, fails, says("application/json", s.reply))
			gate := &gate{holds: true}
			client, l, _ := metered(t, gate)
			if _, err := s.call(t.Context(), client, server.URL); err != nil {
				t.Error(err)
			}
			want := s.want
			want.ReservationID = "hold-2"
			wantRows(t, l, expect(want, events.MeasuredByProvider, events.StatusOK))
			if n := server.requests.Load(); n != 2 {
				t.Errorf("%d requests, want 2", n)
			}
			if diff := cmp.Diff([]string{"p1 hold-1"}, gate.released); diff != "" {
				t.Errorf("released: want (-), got (+):\n%s", diff)
			}
		})
	}
}

// TestRefusedLeavesNothing: at the hard cap no request leaves, the SDK does not
// try again, and the caller gets the typed error.
func TestRefusedLeavesNothing(t *testing.T) {
	for _, s := range sdks {
		for _, streaming := range []bool{false, true} {
			t.Run(map[bool]string{false: s.name, true: s.name + " streaming"}[streaming], func(t *testing.T) {
				server := newStand(t, says("application/json", s.reply))
				gate := &gate{refuseFrom: 1}
				client, l, transport := metered(t, gate)
				var err error
				if streaming {
					err = s.stream(t.Context(), client, server.URL, func() bool { return true })
				} else {
					_, err = s.call(t.Context(), client, server.URL)
				}
				var refused *meter.RefusedError
				if !errors.As(err, &refused) {
					t.Fatalf("err = %v (%T), want a RefusedError", err, err)
				}
				if refused.Port != "p1" || refused.Verdict.Reason != events.ReasonHardCapReached || refused.Streaming {
					t.Errorf("refused = %+v", refused)
				}
				if n := server.requests.Load(); n != 0 {
					t.Errorf("%d requests left the process", n)
				}
				if len(gate.asked) != 1 {
					t.Errorf("the gate was asked %d times, want once: the SDK must not retry", len(gate.asked))
				}
				if rows := l.all(); len(rows) != 0 {
					t.Errorf("recorded %+v", rows)
				}
				if got := transport.Stats(); got != (meter.Stats{Refused: 1}) {
					t.Errorf("stats = %+v", got)
				}
			})
		}
	}
}
