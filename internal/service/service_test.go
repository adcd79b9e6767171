package service_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/service"
	"github.com/tidegate/tidegate/internal/testenv"
)

// system is a service with one endpoint, "slow", that does what a test wants.
type system struct {
	t                   *testing.T
	nc                  *nats.Conn
	faults, unrepliable prometheus.Counter
	stop                context.CancelFunc // begins to stop
	stopped             chan error
}

func start(t *testing.T, line *service.Line, answer func(ctx context.Context, body string) (any, error)) *system {
	t.Helper()
	server := testenv.NATS(t)
	s := &system{t: t, nc: testenv.Connect(t, server), stopped: make(chan error, 1),
		faults: prometheus.NewCounter(prometheus.CounterOpts{Name: "x", Help: "x"}), unrepliable: prometheus.NewCounter(prometheus.CounterOpts{Name: "x", Help: "x"})}
	svc := service.New(service.Config{Conn: testenv.Connect(t, server), Name: "test", Log: slog.New(slog.DiscardHandler), Faults: s.faults, Unrepliable: s.unrepliable,
		Problem: func(error) service.Problem { return service.Problem{Code: http.StatusConflict} }})
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	slow := svc.Slow(ctx, line, func(req micro.Request) (func(context.Context) (any, error), error) {
		var r struct {
			Body string `json:"body"`
		}
		err := events.DecodeStrict(req.Data(), &r)
		return func(ctx context.Context) (any, error) { return answer(ctx, r.Body) }, err
	})
	if err := svc.Start(ctx, []service.Endpoint{{Name: "slow", Subject: "test.slow", Handle: slow}}); err != nil {
		t.Fatal(err)
	}
	if !svc.Answers() {
		t.Error("it does not answer")
	}
	go func() {
		<-ctx.Done()
		s.stopped <- svc.Stop()
	}()
	t.Cleanup(cancel)
	return s
}

// send returns what waits for the answer: the code and text of a fault, or the body.
func (s *system) send(body string, patience ...string) func() string {
	s.t.Helper()
	reply := testenv.Must(s.nc.SubscribeSync(s.nc.NewInbox()))
	req := &nats.Msg{Subject: "test.slow", Reply: reply.Subject, Data: []byte(body), Header: nats.Header{}}
	for _, p := range patience {
		req.Header.Set(events.TimeoutHeader, p)
	}
	if err := s.nc.PublishMsg(req); err != nil {
		s.t.Fatal(err)
	}
	return func() string {
		msg, err := reply.NextMsg(10 * time.Second)
		if err != nil {
			return err.Error()
		}
		if code := msg.Header.Get(micro.ErrorCodeHeader); code != "" {
			return strings.TrimSpace(code + " " + msg.Header.Get(micro.ErrorHeader) + " " + msg.Header.Get(events.TryAgainHeader))
		}
		return string(msg.Data)
	}
}

// taken returns when all that was sent is where it waits: a bad request is answered when it
// is read, in the order in which requests came.
func (s *system) taken() {
	s.t.Helper()
	if got := s.send("{")(); !strings.HasPrefix(got, "400") {
		s.t.Fatalf("a bad request: %s", got)
	}
}

func count(c prometheus.Counter) float64 {
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	return testenv.Must(registry.Gather())[0].GetMetric()[0].GetCounter().GetValue()
}

func TestEveryRequestHearsSomething(t *testing.T) {
	t.Parallel()
	s := start(t, service.NewLine(1, 1, time.Minute), func(_ context.Context, body string) (any, error) {
		if body == "bad" {
			return nil, errors.New("this cannot be")
		}
		return body, nil
	})
	for body, want := range map[string]string{
		`{"body":"x"}`:   `"x"`,
		`{"body":"bad"}`: "409 this cannot be",
		`{"bodi":"x"}`:   "400 invalid_field: bodi",
	} {
		if got := s.send(body)(); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s; want %s", body, got, want)
		}
	}
	if err := s.nc.PublishRequest("test.slow", "ai.admin.port.rm", nil); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "who wants the answer elsewhere gets none", func() bool { return count(s.unrepliable) == 1 })
	if n := count(s.faults); n != 2 {
		t.Errorf("%g faults are counted, want 2", n)
	}
}

// Services have a NATS account of their own. They are answered there, in their inboxes only.
func TestServicesAreAnsweredInTheirOwnAccount(t *testing.T) {
	t.Parallel()
	server := testenv.NATS(t)
	unrepliable := prometheus.NewCounter(prometheus.CounterOpts{Name: "x", Help: "x"})
	operator := testenv.Connect(t, server)
	svc := service.New(service.Config{Conn: operator, Name: "test", Log: slog.New(slog.DiscardHandler), Unrepliable: unrepliable})
	echo := micro.HandlerFunc(func(req micro.Request) { svc.Publish(req.Reply(), []byte(req.Subject()+" "+string(req.Data()))) })
	if err := svc.Start(t.Context(), []service.Endpoint{
		{Name: "check", Subject: "ai.budget.check.*", Handle: echo, ForServices: true}, {Name: "get", Subject: "ai.budget.get.*", Handle: echo},
	}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = svc.Stop() }()
	elsewhere := testenv.Must(operator.SubscribeSync("ai.services.ai.totals"))
	nc := testenv.Must(nats.Connect(server.ServiceURL()))
	defer nc.Close()
	if msg, err := nc.Request("ai.budget.check.p1", []byte("x"), 5*time.Second); err != nil || string(msg.Data) != "ai.budget.check.p1 x" {
		t.Errorf("a service is answered with %v, %v", msg, err)
	}
	if msg, err := operator.Request("ai.budget.check.p1", []byte("x"), 5*time.Second); err != nil || string(msg.Data) != "ai.budget.check.p1 x" {
		t.Errorf("an operator is answered with %v, %v", msg, err)
	}
	if msg, err := nc.Request("ai.budget.get.p1", nil, 5*time.Second); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("what is not for services is answered with %v, %v", msg, err)
	}
	if err := errors.Join(nc.PublishRequest("ai.budget.check.p1", "ai.totals", nil), nc.Flush()); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "who wants the answer elsewhere gets none", func() bool { return count(unrepliable) == 1 })
	if msg, err := elsewhere.NextMsg(50 * time.Millisecond); err == nil {
		t.Errorf("heard %s", msg.Data)
	}

	// Of several gates one gets each question.
	var asked atomic.Int64
	for range 3 {
		replica := service.New(service.Config{Conn: testenv.Connect(t, server), Name: "test", Log: slog.New(slog.DiscardHandler)})
		answer := micro.HandlerFunc(func(req micro.Request) { asked.Add(1); replica.Publish(req.Reply(), []byte("x")) })
		if err := replica.Start(t.Context(), []service.Endpoint{{Name: "usage", Subject: "ai.budget.usage.*", Handle: answer, ForServices: true}}); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = replica.Stop() }()
	}
	for range 60 {
		if _, err := nc.Request("ai.budget.usage.p1", nil, 5*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if n := asked.Load(); n != 60 {
		t.Errorf("60 questions came %d times", n)
	}
}

// What finds no place, or whose caller does not wait for its turn, was not done.
func TestNobodyWaitsLongerThanHeSays(t *testing.T) {
	t.Parallel()
	var done []string
	begun, release := make(chan bool), make(chan bool, 1)
	s := start(t, service.NewLine(1, 1, time.Minute), func(_ context.Context, body string) (any, error) {
		done = append(done, body) // one at a time
		begun <- true
		<-release
		return body, nil
	})
	first := s.send(`{"body":"first"}`)
	<-begun
	second := s.send(`{"body":"second"}`, "300")
	if got := s.send(`{"body":"third"}`)(); !strings.HasPrefix(got, "503 too many") {
		t.Errorf("the third, for which there is no place: %s", got)
	}
	if got := second(); !strings.HasPrefix(got, "503 too many") || !strings.HasSuffix(got, "true") {
		t.Errorf("the second: %s; want a fault that says to try again", got)
	}
	release <- true
	if got := first(); got != `"first"` || len(done) != 1 {
		t.Errorf("the first: %s, done %v", got, done)
	}
}

// A service that stops finishes what it has begun, unless that may be cut short, and sends
// the others elsewhere.
func TestStop(t *testing.T) {
	t.Parallel()
	for _, cutShort := range []bool{false, true} {
		begun, release := make(chan bool), make(chan bool, 1)
		line := service.NewLine(1, 1, time.Minute)
		line.CutShort = cutShort
		s := start(t, line, func(ctx context.Context, body string) (any, error) {
			begun <- true
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-release:
				return body, nil
			}
		})
		first := s.send(`{"body":"first"}`)
		<-begun
		second := s.send(`{"body":"second"}`)
		s.taken()
		s.stop()
		if got := second(); !strings.HasPrefix(got, "503 this process is stopping") || !strings.HasSuffix(got, "true") {
			t.Errorf("the second: %s; want a fault that sends it elsewhere", got)
		}
		want := "409 context canceled"
		if !cutShort {
			want = `"first"`
			select {
			case <-s.stopped:
				t.Error("stopped before what it had begun was answered")
			case <-time.After(50 * time.Millisecond):
			}
			release <- true
		}
		if got := first(); got != want {
			t.Errorf("cut short %v: the first: %s; want %s", cutShort, got, want)
		}
		if err := <-s.stopped; err != nil {
			t.Error(err)
		}
	}
}
