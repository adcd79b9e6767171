package events_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/tidegate/tidegate/events"
)

func reserving(t *testing.T, nc *nats.Conn, policy events.Policy) (*events.Client, *events.Publisher) {
	t.Helper()
	p := newPublisher(t, nc, events.PublisherConfig{})
	return newClient(t, nc, events.ClientConfig{WhenUnavailable: policy, Publisher: p, Service: "receipts"}), p
}

func TestReservation_SettleAndRelease(t *testing.T) {
	nc := startBus(t).connect()
	usageStream(t, nc)
	asked := make(chan string, 10)
	gate(t, nc, events.SubjectReserve, func(r micro.Request) {
		asked <- r.Subject() + " " + string(r.Data())
		v := events.Verdict{Allowed: true, ReservationID: "r1", GrantedTokens: 2000, ExpiresAt: time.Now().Add(time.Minute)}
		r.Respond(v.AppendJSON(nil))
	})
	gate(t, nc, events.SubjectRelease, func(r micro.Request) {
		asked <- r.Subject() + " " + string(r.Data())
		r.Respond([]byte(`{"released":true}`))
	})
	client, p := reserving(t, nc, events.FailClosed)
	request := events.ReserveRequest{PortID: "p1", Feature: "ocr", UserID: "u1", RunID: "run-1", EstimatedTokens: 2000}

	settled, err := client.Reserve(t.Context(), request)
	if err != nil || !settled.Allowed || settled.GrantedTokens != 2000 {
		t.Fatalf("%+v, %v", settled, err)
	}
	if a := <-asked; a != `ai.budget.reserve.p1 {"feature":"ocr","user_id":"u1","run_id":"run-1","service":"receipts","estimated_tokens":2000}` {
		t.Errorf("Reserve asked %s", a)
	}
	cost := events.Usage{Provider: "anthropic", Model: "claude-sonnet", InputTokens: 1000}
	settled.Settle(cost)
	settled.Settle(cost) // a second call on one reservation: its tokens count, the hold is gone
	if err := settled.Release(t.Context()); err != nil {
		t.Error(err)
	}
	if err := p.Flush(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, u := range storedUsages(t, nc) {
		got = append(got, u.PortID+" "+u.Feature+" "+u.UserID+" "+u.RunID+" "+u.ReservationID)
	}
	if diff := cmp.Diff([]string{"p1 ocr u1 run-1 r1", "p1 ocr u1 run-1 "}, got); diff != "" {
		t.Error("settled (-want +got):\n", diff)
	}

	released, err := client.Reserve(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	<-asked
	for range 2 {
		if err := released.Release(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if a := <-asked; a != `ai.budget.release.p1 {"reservation_id":"r1"}` || len(asked) != 0 {
		t.Errorf("Release asked %s and %d times more", a, len(asked))
	}
}

func TestReservation_WithoutAnAnswer(t *testing.T) {
	t.Parallel()
	nc := startBus(t).connect()
	usageStream(t, nc)
	for policy, allowed := range map[events.Policy]bool{events.FailOpen: true, events.FailClosed: false} {
		client, p := reserving(t, nc, policy)
		r, err := client.Reserve(t.Context(), events.ReserveRequest{PortID: "p1", Feature: "ocr"})
		if !errors.Is(err, events.ErrUnavailable) || r.Allowed != allowed {
			t.Errorf("policy %d: %+v, %v", policy, r.Verdict, err)
		}
		if err := r.Release(t.Context()); err != nil {
			t.Errorf("releasing what was never held: %v", err)
		}
		r.Settle(events.Usage{Provider: "anthropic", Model: "claude-sonnet"}) // the call was made all the same
		if err := p.Close(within(t, 10*time.Second)); err != nil || p.Stats().Published != 1 {
			t.Errorf("%v, %+v", err, p.Stats())
		}
		var field *events.FieldError
		if r, err := client.Reserve(t.Context(), events.ReserveRequest{PortID: "p1", TTLSeconds: -1}); !errors.As(err, &field) || r.Allowed != allowed {
			t.Errorf("a request that breaks the contract: %+v, %v", r.Verdict, err)
		}
	}
	plain := newClient(t, nc, events.ClientConfig{WhenUnavailable: events.FailOpen})
	if r, err := plain.Reserve(t.Context(), events.ReserveRequest{PortID: "p1"}); err == nil || r.Allowed {
		t.Errorf("without a publisher: %+v, %v; want it refused whatever the policy, since its usage would be lost", r.Verdict, err)
	}
}
