package ledger_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/reservation"
	"github.com/tidegate/tidegate/internal/testenv"
)

// An idempotency key stands for one request: that request finds its hold again, any
// other is told of both.
func TestReserve_AKeyIsForOneRequest(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.capped(t, "p1", 1000)
	first := events.ReserveRequest{PortID: "p1", Feature: "ocr", UserID: "Jürgen", Service: "a", EstimatedTokens: 2000, AcceptLess: true, IdempotencyKey: "k"}
	reserve := func(requests ...events.ReserveRequest) *reservation.Held {
		t.Helper()
		r, err := s.Reservations.Hold(t.Context(), requests, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	held := reserve(first).Verdicts[0]
	if !held.Allowed || held.GrantedTokens != 1000 {
		t.Fatalf("%+v, want all 1,000 of the cap", held)
	}
	for name, change := range map[string]func(*events.ReserveRequest){
		"the same":              func(*events.ReserveRequest) {},
		"another service":       func(r *events.ReserveRequest) { r.Service = "b" },
		"the default, in words": func(r *events.ReserveRequest) { r.TTLSeconds = 300 },
	} {
		again := first
		change(&again)
		got := reserve(again)
		if v := got.Verdicts[0]; got.Faults[0] != nil || v.ReservationID != held.ReservationID || v.GrantedTokens != 1000 || !v.ExpiresAt.Equal(held.ExpiresAt) {
			t.Errorf("%s: %+v, %v; want the hold %s again", name, v, got.Faults[0], held.ReservationID)
		}
	}
	for want, change := range map[string]func(*events.ReserveRequest){
		`"estimated_tokens":1000,`: func(r *events.ReserveRequest) { r.EstimatedTokens = 1000 }, // what was granted is not what was asked
		`"estimated_tokens":2001,`: func(r *events.ReserveRequest) { r.EstimatedTokens = 2001 },
		`"feature":"summary"`:      func(r *events.ReserveRequest) { r.Feature = "summary" },
		`"user_id":"Anna"`:         func(r *events.ReserveRequest) { r.UserID = "Anna" },
		`"ttl_seconds":60`:         func(r *events.ReserveRequest) { r.TTLSeconds = 60 },
		`"ttl_seconds":300}`:       func(r *events.ReserveRequest) { r.AcceptLess = false },
	} {
		other := first
		change(&other)
		got := reserve(first, other)
		var conflict *reservation.KeyConflict
		if err := got.Faults[1]; !errors.As(err, &conflict) || conflict.Key != "k" || !strings.Contains(conflict.Now, want) ||
			!strings.Contains(err.Error(), `was {"feature":"ocr","user_id":"Jürgen","estimated_tokens":2000,"ttl_seconds":300,"accept_less":true}, this one is {`) {
			t.Errorf("%+v: %v, want a conflict that names both, this one with %s", other, err, want)
		}
		if got.Verdicts[1].Allowed || got.Leased[1] || got.Faults[0] != nil {
			t.Errorf("%+v: %+v, want no verdict, and the first request's hold beside it", other, got)
		}
	}
	if n := one[int](t, s.db, "select count(*)::int from ai_budget_holds"); n != 1 {
		t.Errorf("%d holds, want 1", n)
	}
}

// Both requests of a key may wait at the same moment.
func TestReserve_AKeyIsForOneRequestOfABatch(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	a := events.ReserveRequest{PortID: "p1", EstimatedTokens: 1, IdempotencyKey: "k"}
	b := events.ReserveRequest{PortID: "p1", EstimatedTokens: 2, IdempotencyKey: "k"}
	got := s.reserve(t, []events.ReserveRequest{a, b, a})
	var conflict *reservation.KeyConflict
	if !errors.As(got.Faults[1], &conflict) || got.Faults[0] != nil || got.Faults[2] != nil || got.Verdicts[2].ReservationID != got.Verdicts[0].ReservationID {
		t.Errorf("%+v, want the first request's hold twice and a conflict between", got)
	}
}

// A retry that comes when the day has ended finds the hold of the first try. It is answered
// for the new day; the hold counts in the one in which it was made, which its id tells.
func TestARetryAfterMidnightFindsTheHoldOfTheDayBefore(t *testing.T) {
	t.Parallel()
	url := testenv.Database(t)
	clock := testenv.NewClock(t, url)
	midnight := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	clock.Stop(midnight.Add(-100 * time.Millisecond))
	s := openStore(t, url)
	hard := int64(30)
	s.set(t, "p1", events.Budget{Enabled: true, HardCapTokens: &hard, Period: events.PeriodDay}, nil)
	request := []events.ReserveRequest{{PortID: "p1", EstimatedTokens: 5, IdempotencyKey: "k"}}
	first := s.reserve(t, request).Verdicts[0]
	clock.Stop(midnight.Add(200 * time.Millisecond))
	again := s.reserve(t, request)
	v := again.Verdicts[0]
	if v.ReservationID != first.ReservationID || !v.PeriodStart.Equal(midnight) || !first.PeriodStart.Before(midnight) {
		t.Errorf("first %+v, again %+v; want the same hold, for each day", first, v)
	}
	if made := events.UUIDv7Time(uuid.MustParse(v.ReservationID)); !made.Before(midnight) || v.HeldTokens != 0 || again.Standings[0].Held != 0 {
		t.Errorf("made at %s, and %d held on the new day: %+v", made, again.Standings[0].Held, v)
	}
}

// What a hold was asked for is not known when an older version made it, or once its user
// was erased. Then its key finds it, as it always did.
func TestReserve_AHoldWhoseRequestIsNotKnown(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	r := events.ReserveRequest{PortID: "p1", UserID: "anna", EstimatedTokens: 1, IdempotencyKey: "k"}
	held := s.reserve(t, []events.ReserveRequest{r}).Verdicts[0]
	s.erase(t, "anna", 0)
	if n := one[int](t, s.db, "select count(*)::int from ai_budget_holds h where h::text like '%anna%'"); n != 0 {
		t.Error("a hold names the erased user")
	}
	r.EstimatedTokens = 2
	if got := s.reserve(t, []events.ReserveRequest{r}); got.Faults[0] != nil || got.Verdicts[0].ReservationID != held.ReservationID {
		t.Errorf("%+v, want the hold %s", got, held.ReservationID)
	}
}
