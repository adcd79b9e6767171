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
