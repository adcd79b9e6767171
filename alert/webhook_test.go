package alert

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

// One system, and servers that do what servers do: take it, fail, be slow, send away, be gone,
// ask for patience, talk too much, be where nobody may look.
func TestWebhooks(t *testing.T) {
	s := newStore(t)
	var seen got
	var failures, slow atomic.Int64
	failures.Store(2)
	var hang = make(chan struct{})
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen.mu.Lock()
		seen.list = append(seen.list, request{r.URL.Path, string(body), r.Header})
		seen.mu.Unlock()
		switch r.URL.Path {
		case "/fails":
			if failures.Add(-1) >= 0 {
				http.Error(w, "no\x1b[31m disk <here>\n"+strings.Repeat("x", 1<<20), http.StatusInternalServerError)
			}
		case "/slow":
			if slow.Add(1) == 1 {
				<-hang
			}
		case "/away":
			http.Redirect(w, r, "/hidden", http.StatusTemporaryRedirect)
		case "/gone":
			w.WriteHeader(http.StatusGone)
		case "/later":
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(http.StatusTooManyRequests)
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(hang) })
	t.Setenv("SLACK", server.URL+"/slack/very-secret")
	t.Setenv("BOTH", key+" whsec_"+strings.Repeat("QUJD", 11))
	yaml := "receivers:\n"
	for _, name := range []string{"good", "fails", "slow", "away", "gone", "later"} {
		yaml += hookOf(t, name, server.URL+"/"+name, "allow_private: true", "ports: [p1]")
	}
	yaml += hookOf(t, "private", server.URL+"/private", "ports: [p1]") +
		hookOf(t, "picky", server.URL+"/picky", "allow_private: true", "ports: [m*]", "limits: [port]", "caps: [hard]") + `
  - {name: team, kind: slack, url: env:SLACK, allow_private: true}
  - {name: rotating, kind: webhook, url: "` + server.URL + `/rotating", secret: env:BOTH, allow_private: true, ports: [p1]}
  - {name: nobody, kind: slack, url: "https://127.0.0.1:1/very-secret", allow_private: true, ports: [p1]}
`
	var log bytes.Buffer
	registry := prometheus.NewRegistry()
	list := receivers(t, yaml)
	for _, r := range list {
		if r.Name == "slow" {
			r.sender.(*hook).client.Timeout = 300 * time.Millisecond
		}
	}
	d, stop := run(t, Config{Ledger: s.Ledger, Receivers: list, Registerer: registry, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	id := s.reach("p1", "port", "hard")
	limit := s.reach("m2", "each-user", "hard")
	s.reach("m2", "port", "soft")
	hard := s.reach("m2", "port", "hard")

	testenv.Eventually(t, "the good one has it", func() bool { return s.line(id, "good").DeliveredAt != nil })
	first := seen.of("/good")[0]
	verifier := testenv.Must(standardwebhooks.NewWebhook(key))
	if err := verifier.Verify([]byte(first.body), first.header); err != nil {
		t.Error(err)
	}
	if err := verifier.Verify([]byte(first.body+" "), first.header); err == nil {
		t.Error("another body has the signature")
	}
	var message struct {
		Type      string
		Timestamp time.Time
		Data      events.Alert
	}
	if err := json.Unmarshal([]byte(first.body), &message); err != nil || message.Type != "ai.alert" || message.Data.ID != id || message.Data.PortID != "p1" || message.Data.Cap != "hard" ||
		message.Data.UsedTokens != 1234 || message.Data.CapTokens != 1000 || !message.Timestamp.Equal(message.Data.At) || first.header.Get("webhook-id") != id.String() || first.header.Get("content-type") != "application/json" {
		t.Errorf("%v: %s %v", err, first.body, first.header)
	}
	testenv.Eventually(t, "the one that changes its secret has it", func() bool { return s.line(id, "rotating").DeliveredAt != nil })
	rotating := seen.of("/rotating")[0]
	for _, secret := range strings.Fields(key + " whsec_" + strings.Repeat("QUJD", 11)) {
		if err := testenv.Must(standardwebhooks.NewWebhook(secret)).Verify([]byte(rotating.body), rotating.header); err != nil {
			t.Errorf("with the secret %s: %v", secret, err)
		}
	}

	for range 2 {
		testenv.Eventually(t, "an attempt failed", func() bool { return s.line(id, "fails").LastError != "" })
		if l := s.line(id, "fails"); l.Attempts == 1 && (!strings.Contains(l.LastError, "500 Internal Server Error: no [31m disk <here> xxx") || len(l.LastError) > 300 || time.Until(*l.NextAttempt) > 7*time.Second) {
			t.Errorf("%q, next %s", l.LastError, l.NextAttempt)
		}
		s.exec("update ai_alert_deliveries set last_error = '', next_attempt = now() where receiver = 'fails'")
	}
	testenv.Eventually(t, "it has it at last", func() bool { return s.line(id, "fails").DeliveredAt != nil })
	tries := seen.of("/fails")
	if len(tries) != 3 || tries[0].header.Get("webhook-id") != tries[2].header.Get("webhook-id") || tries[0].body != tries[2].body {
		t.Errorf("%d attempts, not all of the same", len(tries))
	}
	testenv.Eventually(t, "it was too slow", func() bool { return strings.Contains(s.line(id, "slow").LastError, "did not answer within") })
	s.exec("update ai_alert_deliveries set next_attempt = now() where receiver = 'slow'")
	testenv.Eventually(t, "it was faster", func() bool { return s.line(id, "slow").DeliveredAt != nil })

	for receiver, want := range map[string]string{"away": "307 Temporary Redirect (redirects are not followed", "later": "429", "gone": "410 Gone", "private": "allow_private: true permits", "nobody": "connection refused"} {
		testenv.Eventually(t, receiver+" did not take it", func() bool { return s.line(id, receiver).LastError != "" })
		if l := s.line(id, receiver); !strings.Contains(l.LastError, want) || (l.GivenUpAt != nil) != (receiver == "gone") || receiver == "later" && time.Until(*l.NextAttempt) < 55*time.Minute {
			t.Errorf("%s: %q, next %s, given up %v", receiver, l.LastError, l.NextAttempt, l.GivenUpAt)
		}
	}
	if n := len(seen.of("/hidden")) + len(seen.of("/private")); n > 0 {
		t.Errorf("%d requests where none may go", n)
	}
	testenv.Eventually(t, "the picky one has its own", func() bool { return s.line(hard, "picky").DeliveredAt != nil })
	if n := len(seen.of("/picky")); n != 1 {
		t.Errorf("the picky one got %d, want that of the port's own hard cap", n)
	}
	testenv.Eventually(t, "the team has it", func() bool { return s.line(limit, "team").DeliveredAt != nil && s.line(id, "team").DeliveredAt != nil })
	var said []string
	for _, r := range seen.of("/slack/very-secret") {
		var slack map[string]string
		if err := json.Unmarshal([]byte(r.body), &slack); err != nil || len(slack) != 1 {
			t.Errorf("%v: %s", err, r.body)
		}
		said = append(said, slack["text"])
	}
	_, end := events.PeriodMonth.Bounds(time.Now())
	until := " Its calls are refused until " + end.Format("2006-01-02 15:04 UTC") + "."
	for _, want := range []string{"Port p1 has reached its hard cap: 1,234 of 1,000 tokens are used in this month." + until,
		"Port m2 has reached the hard cap of limit each-user for &lt;ada&gt;: 1,234 of 1,000 tokens are used in this month." + until} {
		if !slices.Contains(said, want) {
			t.Errorf("the team got %q, not %q", said, want)
		}
	}

	if answer, err := d.Test(t.Context(), "good"); err != nil || answer != "200 OK" {
		t.Errorf("a test: %q, %v", answer, err)
	}
	if tests := seen.of("/good"); !strings.Contains(tests[len(tests)-1].body, `"type":"ai.alert.test"`) || verifier.Verify([]byte(tests[len(tests)-1].body), tests[len(tests)-1].header) != nil {
		t.Errorf("a test: %+v", tests[len(tests)-1])
	}
	if _, err := d.Test(t.Context(), "nobody"); err == nil || !strings.Contains(err.Error(), "nobody (https://127.0.0.1:1): ") || strings.Contains(err.Error(), "very-secret") {
		t.Errorf("a test: %v", err)
	}
	if n, err := d.Retry(t.Context(), "gone"); n != 1 || err != nil {
		t.Errorf("%d dead letters are tried again, %v", n, err)
	}
	testenv.Eventually(t, "it was tried again", func() bool { return len(seen.of("/gone")) == 2 })
	if _, err := d.Retry(t.Context(), "other"); err == nil || !strings.Contains(err.Error(), `"other": there are good, fails`) {
		t.Error(err)
	}
	if n := testutil.ToFloat64(d.metrics.attempts.WithLabelValues("good", "delivered")); n != 1 {
		t.Errorf("%v were delivered to the good one, want 1", n)
	}
	stop()
	if strings.Contains(log.String(), "very-secret") || strings.Contains(log.String(), key) || !strings.Contains(log.String(), "receiver=gone") {
		t.Errorf("the log:\n%s", log.String())
	}
}

// A flood is shared by two processes, each alert sent once. A third, which was stopped in the
// middle of an attempt, leaves it to them.
func TestProcessesShareDeliveries(t *testing.T) {
	s := newStore(t)
	var seen got
	var waits atomic.Bool
	waits.Store(true)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // so that it learns of a client that is gone
		if waits.Load() {
			<-r.Context().Done()
			return
		}
		seen.mu.Lock()
		defer seen.mu.Unlock()
		seen.list = append(seen.list, request{path: r.URL.Path, header: r.Header})
	}))
	t.Cleanup(server.Close)
	list := receivers(t, "receivers:\n"+hookOf(t, "pager", server.URL, "allow_private: true"))
	_, stop := run(t, Config{Ledger: s.Ledger, Receivers: list})
	id := s.reach("p0", "port", "hard")
	testenv.Eventually(t, "it is attempted", func() bool { return s.line(id, "pager").Attempts == 1 })
	began := time.Now()
	stop()
	if took := time.Since(began); took > finishWithin+3*time.Second {
		t.Errorf("it took %s to stop", took)
	}
	if l := s.line(id, "pager"); !strings.Contains(l.LastError, "stopped") {
		t.Errorf("%+v", l)
	}
	waits.Store(false)
	run(t, Config{Ledger: s.Ledger, Receivers: list})
	run(t, Config{Ledger: s.open(), Receivers: list})
	for i := range 150 {
		s.reach(fmt.Sprint("q", i), "port", "hard")
	}
	testenv.Eventually(t, "all are delivered", func() bool {
		w := testenv.Must(s.WaitingDeliveries(t.Context()))
		return len(w) == 0 && len(seen.of("/")) >= 151
	})
	ids := map[string]int{}
	for _, r := range seen.of("/") {
		ids[r.header.Get("webhook-id")]++
	}
	if len(ids) != 151 || len(seen.of("/")) != 151 {
		t.Errorf("%d requests of %d alerts, want 151 of each", len(seen.of("/")), len(ids))
	}
}

// What a name resolves to is judged when it connects.
func TestPrivateAddressesAreRefused(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"127.0.0.1", "::1", "0.0.0.0", "::", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "fe80::1", "fd00:ec2::254", "224.0.0.1", "ff02::1",
		"::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "255.255.255.255", "192.0.0.192"} {
		network := "tcp4"
		if strings.Contains(addr, ":") {
			network = "tcp6"
		}
		if dialer(false).Control(network, net.JoinHostPort(addr, "443"), nil) == nil {
			t.Errorf("%s may be connected to", addr)
		}
	}
	for network, addr := range map[string]string{"tcp4": "93.184.215.14:8443", "tcp6": "[2606:4700::1111]:443"} {
		if err := dialer(false).Control(network, addr, nil); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
	if dialer(true).Control != nil {
		t.Error("allow_private is of no account")
	}
}
