package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/consumer/stream"
	"github.com/tidegate/tidegate/edge"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/identity/pgstore"
)

type httpCmd struct {
	Ports int `default:"1000"`
}

const eventsARequest = 100

// Run measures the role edge, in a process with all that it needs.
func (c *httpCmd) Run(ctx context.Context, r *report) error {
	r.section("HTTP: reports", fmt.Sprintf("`POST /v1/usage` with %d events of %s equally busy ports, ~250 bytes each and without ids; answered once JetStream has synced them. NATS, Postgres and edge share a process tree, the callers are in another one. "+
		"*Edge alone*: nobody books meanwhile. *Whole system*: consumer and gate run too.", eventsARequest, digits(c.Ports)))
	var rows [][]string
	for _, roles := range []string{"edge", "consumer,gate,edge"} {
		for _, callers := range []int{8, 32} {
			row, err := c.reports(ctx, r, roles, callers)
			if err != nil {
				return err
			}
			rows = append(rows, row)
		}
	}
	r.table([]string{"", "callers", "durable events/s", "p50 of a request", "p99"}, rows)
	return c.checks(ctx, r)
}

// startEdge starts tidegate with these roles, and makes a token for every port.
func startEdge(ctx context.Context, roles string) (s *system, token string, err error) {
	if s, err = newSystem(); err != nil {
		return nil, "", err
	}
	if err = s.run(ctx, "--roles", roles); err == nil {
		if err = s.ensureStreams(ctx); err == nil {
			token, err = s.token(ctx)
		}
	}
	if err != nil {
		s.remove()
	}
	return s, token, err
}

func (s *system) ensureStreams(ctx context.Context) error {
	nc, err := s.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	if _, err = js.Stream(ctx, events.UsageStream); errors.Is(err, jetstream.ErrStreamNotFound) { // no consumer runs
		_, _, err = stream.Ensure(ctx, js, 1, uuid.Nil, false)
	}
	return err
}

func (s *system) token(ctx context.Context) (string, error) {
	store, err := pgstore.Open(ctx, s.database())
	if err != nil {
		return "", err
	}
	defer store.Close()
	shown, _, err := identity.NewTokens(store, nil).Create(ctx, identity.TokenRequest{Name: "bench", Permissions: []string{edge.PermissionReport, edge.PermissionReserve}, CreatedBy: "bench"})
	return shown, err
}

func (c *httpCmd) reports(ctx context.Context, r *report, roles string, n int) ([]string, error) {
	var most, p50, p99 []float64
	for range r.runs {
		s, token, err := startEdge(ctx, roles)
		if err != nil {
			return nil, err
		}
		client := newPoster(token, n)
		got, err := measure(ctx, n, usual, func(caller, i int) error {
			return client.post("http://"+s.http+"/v1/usage", c.batch(caller+i), nil)
		})
		client.CloseIdleConnections()
		s.remove()
		if err != nil {
			return nil, err
		}
		most, p50, p99 = append(most, got.perSecond*eventsARequest), append(p50, float64(got.p50)), append(p99, float64(got.p99))
	}
	what := "edge alone"
	if roles != "edge" {
		what = "whole system"
	}
	return []string{what, fmt.Sprint(n), thousands(median(most)), fmt.Sprintf("%.1f ms", median(p50)/1e6), fmt.Sprintf("%.1f ms", median(p99)/1e6)}, nil
}

// batch is a request's events, of ports side by side.
func (c *httpCmd) batch(from int) []byte {
	var b bytes.Buffer
	b.WriteByte('[')
	for i := range eventsARequest {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"port_id":"port-%04d","user_id":"user-%d","feature":"ocr","provider":"anthropic","model":"claude-sonnet-4-5","request_id":"req_011CSHoEeqs5C35K2UUqR7Fy","input_tokens":1532,"output_tokens":33,"details":{"cache_read_input_tokens":1111}}`,
			(from*eventsARequest+i)%c.Ports, i)
	}
	return append(b.Bytes(), ']')
}

// poster is a caller's HTTP client, with a connection for each goroutine.
type poster struct {
	http.Client
	token string
}

func newPoster(token string, n int) *poster {
	return &poster{http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: n, MaxIdleConns: n}}, token}
}

func (p *poster) post(url string, body []byte, want []byte) error {
	req, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+p.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := p.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || !bytes.Contains(answer, want)) {
		err = fmt.Errorf("%s answered %d: %s", url, resp.StatusCode, answer)
	}
	return err
}

func (c *httpCmd) checks(ctx context.Context, r *report) error {
	r.section("HTTP: check against a bare net/http echo", "Edge, gate and NATS share a process, as by default; the callers are in another. The echo is a net/http server that reads the same request and answers as many bytes. "+digits(c.Ports)+" ports with budgets; rounds alternate.")
	s, token, err := startEdge(ctx, "consumer,gate,edge")
	if err != nil {
		return err
	}
	defer s.remove()
	if err := c.budgets(ctx, s); err != nil {
		return err
	}
	echo, err := spawnServer(ctx, "httpecho")
	if err != nil {
		return err
	}
	defer echo.remove()
	var rows [][]string
	for _, n := range []int{1, 16, 64, 256} {
		var rounds []pair
		for range r.runs {
			yard, err := c.ask(ctx, echo, "", n, []byte("xxx"))
			if err != nil {
				return err
			}
			ours, err := c.ask(ctx, s, token, n, []byte(`"allowed":true`))
			if err != nil {
				return err
			}
			rounds = append(rounds, pair{ours, yard})
		}
		m := summarize(rounds)
		rows = append(rows, []string{fmt.Sprint(n), thousands(m.ours.perSecond), thousands(m.yard.perSecond), times(m.throughput), micros(m.ours.p50), micros(m.ours.p99), micros(m.yard.p99), times(m.p99)})
	}
	r.table([]string{"callers", "check/s", "echo/s", "throughput", "p50", "p99", "echo p99", "p99 ratio"}, rows)
	return nil
}

func (c *httpCmd) ask(ctx context.Context, s *system, token string, n int, want []byte) (rate, error) {
	client := newPoster(token, n)
	defer client.CloseIdleConnections()
	return measure(ctx, n, usual, func(caller, i int) error {
		return client.post(fmt.Sprintf("http://%s/v1/ports/port-%04d/check", s.http, (caller*7919+i)%c.Ports), checkRequest, want)
	})
}

// budgets gives every port one.
func (c *httpCmd) budgets(ctx context.Context, s *system) error {
	nc, err := s.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	return giveBudgets(ctx, nc, c.Ports)
}

type httpEchoCmd struct {
	Addr string `arg:""`
	Body int    `default:"420" help:"Bytes of the answer."`
}

// Run serves the yardstick: what any net/http server does, and nothing else.
func (c *httpEchoCmd) Run(ctx context.Context, _ *report) error {
	body := []byte(strings.Repeat("x", c.Body))
	return serveHTTP(ctx, c.Addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	}))
}
