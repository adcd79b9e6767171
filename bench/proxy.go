package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

type proxyBenchCmd struct {
	Ports []int         `help:"How many ports share the calls: a gate leases to busy ones, and asks Postgres for others." default:"10,1000"`
	Delay time.Duration `help:"How long the provider takes, where it does not answer at once." default:"500ms"`
}

const (
	proxyCallers = 64
	proxyPath    = "/openai/v1/chat/completions"
	proxyRequest = `{"model":"gpt-5","max_completion_tokens":500,"messages":[{"role":"user","content":"%s"}]}`
)

// Run measures the proxy against a plain reverse proxy to the same provider.
func (c *proxyBenchCmd) Run(ctx context.Context, r *report) error {
	r.section("A proxy for any SDK", "A 2 KB chat completion and a 2 KB reply, through `tidegate run --roles consumer,gate,proxy` (token, reservation, metering, settlement, and booking meanwhile) and through a plain `httputil.ReverseProxy`, to one fake provider; "+
		"provider, proxies and callers are four processes. All ports have budgets; 64 callers; rounds alternate. *CPU*: of the whole process tree for a call, NATS, gate, consumer and Postgres included.")
	var rows [][]string
	for _, delay := range []time.Duration{c.Delay, 0} {
		some, err := c.against(ctx, r, delay)
		if err != nil {
			return err
		}
		rows = append(rows, some...)
	}
	r.table([]string{"provider", "ports", "calls/s", "plain", "throughput", "p50", "p99", "plain p99", "p99 adds", "CPU", "plain CPU"}, rows)
	return nil
}

func (c *proxyBenchCmd) against(ctx context.Context, r *report, delay time.Duration) (rows [][]string, err error) {
	provider, err := spawnServer(ctx, "provider", "--delay", delay.String())
	if err != nil {
		return nil, err
	}
	defer provider.remove()
	plain, err := spawnServer(ctx, "plainproxy", "--to", "http://"+provider.http)
	if err != nil {
		return nil, err
	}
	defer plain.remove()
	ours, err := newSystem()
	if err != nil {
		return nil, err
	}
	defer ours.remove()
	listen, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	if err := ours.run(ctx, "--roles", "consumer,gate,proxy", "--proxy-listen", listen[0], "--proxy-upstream", "openai=http://"+provider.http+"/openai"); err != nil {
		return nil, err
	}
	token, err := ours.token(ctx)
	if err != nil {
		return nil, err
	}
	if err := (&httpCmd{Ports: slices.Max(c.Ports)}).budgets(ctx, ours); err != nil {
		return nil, err
	}
	what := "at once"
	if delay > 0 {
		what = "after " + delay.String()
	}
	for _, n := range c.Ports {
		var rounds []pair
		var cpu, plainCPU []float64
		for range r.runs {
			yard, used, err := c.calls(ctx, plain, plain.http, "", n)
			if err != nil {
				return nil, err
			}
			plainCPU = append(plainCPU, used)
			got, used, err := c.calls(ctx, ours, listen[0], token, n)
			if err != nil {
				return nil, err
			}
			cpu, rounds = append(cpu, used), append(rounds, pair{got, yard})
		}
		m := summarize(rounds)
		var adds []float64
		for _, round := range rounds {
			adds = append(adds, float64(round.ours.p99-round.yard.p99))
		}
		rows = append(rows, []string{what, digits(n), fmt.Sprintf("%.0f", m.ours.perSecond), fmt.Sprintf("%.0f", m.yard.perSecond), times(m.throughput), micros(m.ours.p50), micros(m.ours.p99), micros(m.yard.p99), micros(time.Duration(median(adds))), fmt.Sprintf("%.0f µs", median(cpu)), fmt.Sprintf("%.0f µs", median(plainCPU))})
	}
	return rows, nil
}

// calls makes chat completions through the proxy of s at addr. cpu is what s uses for one, in µs.
func (c *proxyBenchCmd) calls(ctx context.Context, s *system, addr, token string, ports int) (got rate, cpu float64, err error) {
	client := newPoster(token, proxyCallers)
	defer client.CloseIdleConnections()
	body := fmt.Appendf(nil, proxyRequest, strings.Repeat(meterText, 40))
	var made atomic.Int64
	before := cpuSeconds(s.procs[0].Process.Pid)
	got, err = measure(ctx, proxyCallers, usual, func(caller, i int) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+proxyPath, bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header = http.Header{"Authorization": {"Bearer k"}, "Content-Type": {"application/json"}, "X-Tidegate-Port": {fmt.Sprintf("port-%04d", (caller*7919+i)%ports)}}
		if token != "" {
			req.Header.Set("X-Tidegate-Token", token)
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s answered %d: %s", addr, resp.StatusCode, answer)
		}
		made.Add(1)
		return err
	})
	return got, (cpuSeconds(s.procs[0].Process.Pid) - before) / float64(max(made.Load(), 1)) * 1e6, err
}

// spawnServer starts a hidden command that serves HTTP.
func spawnServer(ctx context.Context, command string, args ...string) (*system, error) {
	s, err := newSystem()
	if err != nil {
		return nil, err
	}
	if err = s.spawnSelf(append([]string{command, s.http}, args...)...); err == nil {
		err = s.awaitReady(ctx)
	}
	if err != nil {
		s.remove()
	}
	return s, err
}

type providerCmd struct {
	Addr  string        `arg:""`
	Delay time.Duration `help:"How long it takes."`
}

// Run serves a fake provider.
func (c *providerCmd) Run(ctx context.Context, _ *report) error {
	reply := []byte(`{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-5-2025","choices":[{"index":0,"message":{"role":"assistant","content":"` + strings.Repeat(meterText, 40) + `"},"finish_reason":"stop"}],` + meterUsage + `}`)
	return serveHTTP(ctx, c.Addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		time.Sleep(c.Delay)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(reply)
	}))
}

type plainProxyCmd struct {
	Addr string `arg:""`
	To   string `required:""`
}

// Run serves the yardstick: a reverse proxy that does nothing else.
func (c *plainProxyCmd) Run(ctx context.Context, _ *report) error {
	to, err := url.Parse(c.To)
	if err != nil {
		return err
	}
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.MaxIdleConns, base.MaxIdleConnsPerHost = 0, 256
	return serveHTTP(ctx, c.Addr, &httputil.ReverseProxy{Transport: base, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }})
}

func serveHTTP(ctx context.Context, addr string, handler http.Handler) error {
	server := &http.Server{Addr: addr, ReadHeaderTimeout: 5 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }, Handler: handler}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
