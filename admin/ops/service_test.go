package ops

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/internal/bus"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// serve runs a service that has no database, until the function it returns is called.
func serve(t *testing.T, cfg Config) (s *Service, c *Client, stop func()) {
	t.Helper()
	n := testenv.NATS(t)
	cfg.Conn, cfg.Ledger, cfg.Tokens = testenv.Connect(t, n), &ledger.Ledger{}, identity.NewTokens(nil, nil)
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if s.Health() == nil {
		t.Error("it is healthy before it runs")
	}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); group.Wait() })
	t.Cleanup(stop)
	for end := time.Now().Add(10 * time.Second); s.Health() != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(s.Health())
		}
	}
	return s, NewClient(testenv.Connect(t, n), 5*time.Second), stop
}

func TestHealthIsAFactOfNow(t *testing.T) {
	t.Parallel()
	s, _, stop := serve(t, Config{})
	if err := s.Health(); err != nil {
		t.Error(err)
	}
	stop()
	if s.Health() == nil {
		t.Error("it is healthy when it has stopped")
	}
	s, _, _ = serve(t, Config{})
	s.cfg.Conn.Close()
	if s.Health() == nil {
		t.Error("it is healthy without a connection")
	}
}

func TestATokenForAPermissionThatIsNone(t *testing.T) {
	t.Parallel()
	_, c, _ := serve(t, Config{Permissions: []string{"admin.manage_settings", "expenses.scan"}})
	_, err := c.CreateToken(t.Context(), NewToken{Name: "ci", Permissions: []string{"expenses.scan", "nonsense"}})
	var service *events.ServiceError
	if !errors.As(err, &service) || service.Code != 400 || !strings.Contains(service.Description, `"nonsense"`) || !strings.Contains(service.Description, "admin.manage_settings") {
		t.Errorf("%v, want 400 that names the permission and those that there are", err)
	}
}

func TestLoginLinkNamesItsServer(t *testing.T) {
	t.Parallel()
	expires := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	_, c, _ := serve(t, Config{PageURL: "https://tidegate.example/", NewLink: func(time.Time) (string, time.Time) { return "/login?code=x", expires }})
	got, err := c.LoginLink(t.Context())
	if want := (LoginLink{URL: "https://tidegate.example/login?code=x", Path: "/login?code=x", ExpiresAt: expires}); err != nil || got != want {
		t.Errorf("%+v %v, want %+v", got, err, want)
	}
}

// Whoever gives up on a verification is not made to wait for gates.
func TestCountGatesEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s, _, _ := serve(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := s.countGates(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%d gates, %v, want the context's error", n, err)
	}
	if n, err := s.countGates(t.Context()); n != 0 || err != nil {
		t.Errorf("%d gates, %v, where there are none", n, err)
	}
}

// A gate that takes its time is there all the same.
func TestCountGatesWaitsForABusyOne(t *testing.T) {
	t.Parallel()
	s, _, _ := serve(t, Config{})
	subject := testenv.Must(micro.ControlSubject(micro.PingVerb, events.GateService, ""))
	testenv.Must(s.cfg.Conn.Subscribe(subject, func(msg *nats.Msg) {
		time.Sleep(600 * time.Millisecond)
		_ = msg.Respond(nil)
	}))
	if n, err := s.countGates(t.Context()); n != 1 || err != nil {
		t.Errorf("%d gates, %v, want the one", n, err)
	}
}

// A gate that answers for fewer ports than it was asked about has not answered.
func TestAskGatesWantsAnAnswerForEachPort(t *testing.T) {
	t.Parallel()
	s, _, _ := serve(t, Config{})
	for gate, tokens := range map[string][]int64{"whole": {1, 2}, "short": {1}, "long": {1, 2, 3}} {
		testenv.Must(s.cfg.Conn.Subscribe(bus.SubjectUsed, func(msg *nats.Msg) {
			_ = msg.Respond(testenv.Must(bus.Encode(bus.Used{Gate: gate, Tokens: tokens})))
		}))
	}
	answers, err := s.askGates(t.Context(), []ledger.PortTokens{{PortID: "p1"}, {PortID: "p2"}}, 3, time.Unix(0, 0), time.Unix(0, 0))
	if err != nil || len(answers) != 1 || answers[0].Gate != "whole" {
		t.Errorf("%+v, %v; want the answer of one gate", answers, err)
	}
}

// Whoever shows how far a verification is gets to its end, and hears nothing more after that.
func TestVerifyPassesOnAllItWasTold(t *testing.T) {
	t.Parallel()
	conn := testenv.Connect(t, testenv.NATS(t))
	testenv.Must(conn.Subscribe(subjectVerify, func(msg *nats.Msg) {
		var r verifyRequest
		if err := json.Unmarshal(msg.Data, &r); err != nil {
			t.Error(err)
		}
		for i := range 10 {
			_ = conn.Publish(r.Progress, testenv.Must(json.Marshal(Progress{OfGates, int64(i + 1), 10})))
		}
		_ = msg.Respond(testenv.Must(json.Marshal(Verification{OK: true})))
	}))
	var told atomic.Int64
	v, err := NewClient(conn, 5*time.Second).Verify(t.Context(), func(p Progress) {
		time.Sleep(10 * time.Millisecond)
		told.Store(p.Done)
	})
	if n := told.Load(); err != nil || !v.OK || n != 10 {
		t.Errorf("%+v, %v; told of %d of 10 by then", v, err, n)
	}
}
