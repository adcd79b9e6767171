package events_test

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/micro"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

// A gate that has no room is asked again, within the deadline. What may have been done
// already is asked again only where doing it twice is as good as once.
func TestClient_AsksABusyGateAgain(t *testing.T) {
	nc := startBus(t).connect()
	usageStream(t, nc)
	client, _ := reserving(t, nc, events.FailClosed)
	calls := map[string]func(ctx context.Context) error{
		"check": func(ctx context.Context) error {
			_, err := client.Check(ctx, events.CheckRequest{PortID: "p1"})
			return err
		},
		"get": func(ctx context.Context) error { _, err := client.Get(ctx, "p1"); return err },
		"usage": func(ctx context.Context) error {
			_, err := client.Usage(ctx, events.ReportRequest{PortID: "p1"})
			return err
		},
		"release": func(ctx context.Context) error { return client.Release(ctx, "p1", "r1") },
		"set": func(ctx context.Context) error {
			_, err := client.Set(ctx, events.SetRequest{PortID: "p1"})
			return err
		},
		"reserve": func(ctx context.Context) error {
			_, err := client.Reserve(ctx, events.ReserveRequest{PortID: "p1"})
			return err
		},
		"reserve, with a key": func(ctx context.Context) error {
			_, err := client.Reserve(ctx, events.ReserveRequest{PortID: "p1", IdempotencyKey: "k"})
			return err
		},
	}
	var asked, faults atomic.Int64
	var code, headers atomic.Value
	for _, base := range []string{events.SubjectCheck, events.SubjectBudgetGet, events.SubjectReport, events.SubjectRelease, events.SubjectBudgetSet, events.SubjectReserve} {
		gate(t, nc, base, func(r micro.Request) {
			if asked.Add(1) <= faults.Load() {
				_ = r.Error(code.Load().(string), "no", []byte(`{}`), micro.WithHeaders(headers.Load().(micro.Headers)))
				return
			}
			_ = r.Respond([]byte(`{}`))
		})
	}
	ask := func(what string, fault string, times int64, nothingDone bool) (int64, error) {
		asked.Store(0)
		faults.Store(times)
		code.Store(fault)
		headers.Store(micro.Headers{})
		if nothingDone {
			headers.Store(micro.Headers{events.TryAgainHeader: {"true"}})
		}
		err := calls[what](t.Context())
		return asked.Load(), err
	}
	for what := range calls {
		if n, err := ask(what, "503", 3, true); err != nil || n != 4 {
			t.Errorf("%s: asked %d times, %v; want an answer to the fourth", what, n, err)
		}
		want, once := int64(4), what == "set" || what == "reserve"
		if once {
			want = 1
		}
		if n, err := ask(what, "503", 3, false); n != want || (err != nil) != once || err != nil && !errors.Is(err, events.ErrUnavailable) {
			t.Errorf("%s, which may have been done: asked %d times, %v; want %d", what, n, err, want)
		}
		for _, fault := range []string{"400", "409", "413", "500"} {
			var service *events.ServiceError
			if n, err := ask(what, fault, 3, false); n != 1 || !errors.As(err, &service) || strconv.Itoa(service.Code) != fault {
				t.Errorf("%s: asked %d times after a %s, %v; want once", what, n, fault, err)
			}
		}
	}

	faults.Store(1 << 60)
	code.Store("503")
	headers.Store(micro.Headers{events.TryAgainHeader: {"true"}})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var service *events.ServiceError
	begun := time.Now()
	if err := calls["set"](ctx); !errors.As(err, &service) || service.Description != "no" || time.Since(begun) > 2*time.Second {
		t.Errorf("a gate that stays busy: %v after %s, want what it said, at the deadline", err, time.Since(begun))
	}
}

// A question that has no answer is asked again within the deadline: the gate that had it may
// be dead. A reservation then has a key, so that asking often holds once.
func TestClient_AsksAgainWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	nc := startBus(t).connect()
	usageStream(t, nc)
	client, _ := reserving(t, nc, events.FailClosed)
	asked := make(chan events.ReserveRequest, 10)
	for _, base := range []string{events.SubjectCheck, events.SubjectReserve, events.SubjectRelease, events.SubjectBudgetSet} {
		silent := 2
		gate(t, nc, base, func(r micro.Request) {
			var request events.ReserveRequest
			if base == events.SubjectReserve {
				if _, err := events.DecodeRequest(base, r.Subject(), r.Data(), &request); err != nil {
					t.Error(err)
				}
			}
			asked <- request
			if silent--; silent >= 0 {
				return
			}
			silent = 2
			_ = r.Respond([]byte(`{"allowed":true,"released":true}`))
		})
	}
	keys := func(what string, err error, want int) (keys []string) {
		t.Helper()
		for len(asked) > 0 {
			keys = append(keys, (<-asked).IdempotencyKey)
		}
		if len(keys) != want || (err == nil) != (want == 3) {
			t.Errorf("%s: asked %d times, %v; want %d", what, len(keys), err, want)
		}
		return append(keys, "", "", "")
	}
	_, err := client.Check(t.Context(), events.CheckRequest{PortID: "p1"})
	keys("check", err, 3)
	keys("release", client.Release(t.Context(), "p1", "r1"), 3)
	_, err = client.Set(t.Context(), events.SetRequest{PortID: "p1"})
	keys("set", err, 1)
	_, err = client.Reserve(t.Context(), events.ReserveRequest{PortID: "p1"})
	if k := keys("reserve", err, 3); k[0] != "" || k[1] == "" || k[1] != k[2] {
		t.Errorf("a reservation is asked for with the keys %q, want one key from the second time on", k)
	}
	_, err = client.Reserve(t.Context(), events.ReserveRequest{PortID: "p1", IdempotencyKey: "k"})
	if k := keys("reserve, with a key", err, 3); k[0] != "k" || k[1] != "k" || k[2] != "k" {
		t.Errorf("its key becomes %q", k)
	}
}

// When gates are away for a moment a call waits for them; an outage does not slow down every
// call.
func TestClient_WaitsAMomentForAGate(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	nc := b.connect()
	client := newClient(t, nc, events.ClientConfig{WhenUnavailable: events.FailClosed, Timeout: 20 * time.Second})
	check := func() error {
		_, err := client.Check(t.Context(), events.CheckRequest{PortID: "p1"})
		return err
	}
	answers := make(chan error)
	go func() { answers <- check() }()
	time.Sleep(50 * time.Millisecond) // by then it has asked in vain, mostly
	gate(t, b.connect(), events.SubjectCheck, func(r micro.Request) { _ = r.Respond([]byte(`{"allowed":true}`)) })
	if err := <-answers; err != nil {
		t.Errorf("a gate that comes: %v", err)
	}
	b.stop()
	testenv.Eventually(t, "the loss is noticed", func() bool { return !nc.IsConnected() })
	begun := time.Now()
	for range 100 {
		if err := check(); !errors.Is(err, events.ErrUnavailable) {
			t.Fatalf("without NATS: %v", err)
		}
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("100 calls of an outage take %s", took)
	}
}

// A gate that is only slow is heard, though it was asked again meanwhile.
func TestClient_HearsASlowGate(t *testing.T) {
	t.Parallel()
	nc := startBus(t).connect()
	client := newClient(t, nc, events.ClientConfig{WhenUnavailable: events.FailClosed, Timeout: 8 * time.Second})
	var asked atomic.Int64
	var first micro.Request
	gate(t, nc, events.SubjectCheck, func(r micro.Request) {
		if asked.Add(1) == 1 {
			first = r
			return
		}
		_ = first.Respond([]byte(`{"allowed":true}`))
	})
	if v, err := client.Check(t.Context(), events.CheckRequest{PortID: "p1"}); err != nil || !v.Allowed || asked.Load() != 2 {
		t.Errorf("asked %d times: %+v, %v; want the answer to the first", asked.Load(), v, err)
	}
}
