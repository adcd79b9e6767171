package e2e

import (
	"context"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/admin"
	"github.com/tidegate/tidegate/consumer"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/gate"
	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/identity/pgstore"
	"github.com/tidegate/tidegate/internal/browser"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

// system is Tidegate as it runs: NATS, Postgres, consumer, gate and admin.
type system struct {
	testing.TB
	ledger    *ledger.Ledger
	nats      *nats.Conn // of the services that make AI calls
	publisher *events.Publisher
	client    *events.Client
	sessions  *identity.Sessions
	tokens    *identity.Tokens
	admins    *nats.Conn
}

func newSystem(t testing.TB) *system {
	t.Helper()
	server := testenv.NATS(t)
	s := &system{TB: t, nats: testenv.Connect(t, server), admins: testenv.Connect(t, server)}
	var err error
	database := testenv.Database(t)
	s.ledger, err = ledger.Open(t.Context(), ledger.Config{URL: database})
	s.must(err)
	t.Cleanup(s.ledger.Close)
	store, err := pgstore.Open(t.Context(), database)
	s.must(err)
	t.Cleanup(store.Close)
	s.tokens = identity.NewTokens(store, nil)

	c, err := consumer.New(consumer.Config{Conn: testenv.Connect(t, server), Ledger: s.ledger})
	s.must(err)
	connection, err := nats.Connect(server.ClientURL())
	s.must(err)
	g, err := gate.New(gate.Config{Conn: connection, Ledger: s.ledger}) // closes its connection itself
	s.must(err)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.report(c.Run(ctx)) })
	running.Go(func() { s.report(g.Run(ctx)) })
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	select {
	case <-g.Ready():
	case <-time.After(20 * time.Second):
		t.Fatal("the gate does not become ready")
	}

	s.publisher, err = events.NewPublisher(s.nats, events.PublisherConfig{})
	s.must(err)
	t.Cleanup(func() {
		closing, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		s.report(s.publisher.Close(closing))
	})
	s.client, err = events.NewClient(s.nats, events.ClientConfig{Publisher: s.publisher, WhenUnavailable: events.FailClosed})
	s.must(err)
	s.sessions, err = identity.NewSessions(identity.SessionConfig{Key: make([]byte, identity.KeyBytes)})
	s.must(err)
	return s
}

func (s *system) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *system) report(err error) {
	s.Helper()
	if err != nil {
		s.Error(err)
	}
}

// door is an admin server whose login links sign in as the caller; API tokens sign in, too.
func (s *system) door(caller identity.Caller) (url, link string) {
	s.Helper()
	auth := &identity.Authenticator{Sessions: s.sessions, Tokens: s.tokens, LoginPath: "/login"}
	login, err := identity.NewLogin(identity.LoginConfig{Sessions: s.sessions, LinkCaller: &caller, Auth: auth})
	s.must(err)
	handler, err := admin.New(admin.Config{Ledger: s.ledger, Conn: s.admins, Login: login, Auth: auth})
	s.must(err)
	server := httptest.NewServer(handler)
	s.Cleanup(server.Close)
	path, _ := login.NewLink(time.Now())
	return server.URL, server.URL + path
}

// enter signs an operator in, who looks at a port.
func (s *system) enter(t *testing.T) (p *browser.Page, url string) {
	t.Helper()
	url, link := s.door(operator)
	p = browser.Start(t).Page(t)
	p.Open(link)
	p.See("Ada Lovelace", "Overview")
	p.Open(url + "/?port=marina-7")
	return p, url
}

var operator = identity.Caller{Subject: "local", Name: "Ada Lovelace", Permissions: []string{admin.Permission}}

// call is one finished AI call, reported as a service does.
func (s *system) call(port string, at time.Time, total int64, change ...func(*events.Usage)) {
	u := events.Usage{OccurredAt: at, PortID: port, UserID: "grace", Feature: "ocr", Provider: "anthropic", Model: "claude-sonnet-4-5", InputTokens: total - total/10, OutputTokens: total / 10}
	for _, c := range change {
		c(&u)
	}
	s.publisher.Record(u)
}

// booked waits until a port's totals of all time are so many tokens.
func (s *system) booked(port string, want int64) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 20*time.Second)
	defer cancel()
	s.must(s.publisher.Flush(ctx))
	for {
		got, err := s.ledger.Spend(ctx, port, time.Unix(0, 0), time.Now().AddDate(1, 0, 0))
		s.must(err)
		if got.UsedTokens == want {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// check asks through NATS whether the port may go on.
func (s *system) check(port string, estimate int64) events.Verdict {
	s.Helper()
	v, err := s.client.Check(s.Context(), events.CheckRequest{PortID: port, Feature: "ocr", EstimatedTokens: estimate})
	s.must(err)
	return v
}
