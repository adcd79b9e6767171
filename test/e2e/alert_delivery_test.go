package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/tidegate/tidegate/admin/ops"
	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/edge"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/identity"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

// pager is a receiver of alerts.
type pager struct {
	*httptest.Server
	t   *testing.T
	mu  sync.Mutex
	got map[uuid.UUID]int // how often each came
	no  bool              // it takes none
}

const pagerKey = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func newPager(t *testing.T) *pager {
	p := &pager{t: t, got: map[uuid.UUID]int{}}
	verify := testenv.Must(standardwebhooks.NewWebhook(pagerKey))
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var m struct{ Data events.Alert }
		if err := verify.Verify(body, r.Header); err != nil || json.Unmarshal(body, &m) != nil {
			t.Errorf("%v: %s", err, body)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.got[m.Data.ID]++
		if p.no {
			http.Error(w, "closed", http.StatusGone)
		}
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *pager) count(id uuid.UUID) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.got[id]
}

// TestAProcessKilledAtEachLineOfADelivery kills the process that delivers between any two steps
// of a delivery. Two others then share what is left: nothing is lost, and comes twice only what
// was sent and not noted. Then the whole way: a cap that is reached, the stream of alerts, the
// receiver, and what operators see of it.
func TestAProcessKilledAtEachLineOfADelivery(t *testing.T) {
	t.Parallel()
	binary := testenv.Killable(t)
	s := start(t, options{noRoles: true})
	p := newPager(t)
	file := filepath.Join(t.TempDir(), "alerts.yaml")
	yaml := fmt.Sprintf("receivers:\n  - {name: pager, kind: webhook, url: '%s/hook', secret: env:PAGER_KEY, allow_private: true}\n  - {name: inside, kind: slack, url: '%s', ports: [p1]}\n", p.URL, strings.Replace(p.URL, "http", "https", 1))
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(killpoint, roles string, args ...string) *process {
		t.Helper()
		return spawn(t, binary, []string{"TIDEGATE_KILLPOINT=" + killpoint, "PAGER_KEY=" + pagerKey}, append([]string{"--nats-url", s.nats.ClientURL(), "--database-url", s.url, "--roles", roles}, args...)...)
	}
	proxy := testenv.FreeAddr(t)
	rest := run("", "consumer,gate,edge,proxy", "--proxy-listen", proxy)
	rest.awaitReady()
	points := []struct {
		name          string
		before, after int // requests by the time of the kill, and in the end
	}{{"delivery-claimed", 0, 1}, {"delivery-sent", 1, 2}, {"delivery-noted", 1, 1}}
	ids := map[string]uuid.UUID{}
	for _, point := range points {
		testenv.Must(s.ledger.StoreBudget(t.Context(), point.name, budget.None(), nil, tellNobody))
		start, _ := budget.Month.Bounds(time.Now())
		mine := testenv.Must(s.ledger.ClaimAlerts(t.Context(), []ledger.Alert{{PortID: point.name, Limit: "port", Unit: "tokens", Period: budget.Month, PeriodStart: start, Threshold: "hard", Reached: 10, Used: 10, NoticedAt: time.Now()}}))
		ids[point.name] = mine[0].ID
		killed := run(point.name+":1", "admin", "--alerts", file)
		if !killed.wait(60*time.Second) || killed.cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("not killed at %s:\n%s", point.name, killed.out)
		}
		if n := p.count(mine[0].ID); n != point.before {
			t.Errorf("killed at %s, and it came %d times, want %d", point.name, n, point.before)
		}
		// The next to be killed must not take it over.
		if _, err := s.db.Exec(t.Context(), "update ai_alert_deliveries set next_attempt = now() + interval '1 hour'"); err != nil {
			t.Fatal(err)
		}
	}
	admins := []*process{run("", "admin", "--alerts", file), run("", "admin", "--alerts", file)}
	for _, a := range admins {
		a.awaitReady()
	}
	if _, err := s.db.Exec(t.Context(), "update ai_alert_deliveries set next_attempt = now()"); err != nil {
		t.Fatal(err)
	}
	for _, point := range points {
		testenv.Eventually(t, fmt.Sprintf("the alert of %s came %d times", point.name, point.after), func() bool { return p.count(ids[point.name]) == point.after })
	}

	cli := func(wantCode int, want string, args ...string) string {
		t.Helper()
		out, code := tidegate(t, binary, s.nats.ClientURL(), args...)
		if code != wantCode || !strings.Contains(out, want) {
			t.Fatalf("tidegate %v: exit %d, want %d and %q\n%s", args, code, wantCode, want, out)
		}
		return out
	}
	cli(0, "pager took it: 200 OK", "alert", "test", "pager")
	cli(1, "allow_private: true permits that", "alert", "test", "inside")
	cli(1, "there are pager, inside", "alert", "test", "nobody")
	s.setBudget("p1", -1, 1000, events.PeriodMonth)
	if err := s.publisher.Publish(t.Context(), []events.Usage{usage("p1", 1200)}); err != nil {
		t.Fatal(err)
	}
	lines := func(args ...string) (list []ops.AlertLine) {
		t.Helper()
		if err := json.Unmarshal([]byte(cli(0, "", append([]string{"alert", "ls", "--json"}, args...)...)), &list); err != nil {
			t.Fatal(err)
		}
		return list
	}
	var list []ops.AlertLine
	testenv.Eventually(t, "the pager has it, and inside cannot", func() bool {
		list = lines("--port", "p1")
		return len(list) == 2 && list[1].DeliveredAt != nil && list[0].LastError != ""
	})
	if a := list[1]; a.Receiver != "pager" || p.count(a.ID) != 1 || a.Attempts != 1 || a.PublishedAt == nil || a.UsedTokens != 1200 || a.CapTokens != 1000 {
		t.Errorf("%+v, and it came %d times", a, p.count(a.ID))
	}
	msg, err := testenv.Must(s.js.Stream(t.Context(), events.AlertStream)).GetLastMsgForSubject(t.Context(), "ai.alert.p1")
	if err != nil || !strings.Contains(string(msg.Data), list[1].ID.String()) {
		t.Errorf("in the stream: %v, %v", msg, err)
	}
	cli(0, "delivered 20", "alert", "ls", "--port", "p1")
	cli(0, "failed 1 times, again", "alert", "ls", "--failed")
	if failed := lines("--failed"); len(failed) != 1 || failed[0].Receiver != "inside" {
		t.Errorf("%+v", failed)
	}
	if out := cli(0, "there are more than 2", "alert", "ls", "--lines", "2"); strings.Count(out, "\n") != 4 {
		t.Errorf("two lines, a head and a foot:\n%s", out)
	}
	// A dead letter, and its second life.
	p.mu.Lock()
	p.no = true
	p.mu.Unlock()
	s.setBudget("p2", -1, 1000, events.PeriodMonth)
	if err := s.publisher.Publish(t.Context(), []events.Usage{usage("p2", 1200)}); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "it is given up", func() bool { l := lines("--port", "p2"); return len(l) == 1 && l[0].GivenUpAt != nil })
	cli(0, "given up after 1 attempts: it answered 410 Gone: closed", "alert", "ls", "--port", "p2")
	metrics := ""
	if v := s.check("p1", 1); v.Allowed {
		t.Errorf("%+v", v)
	}
	testenv.Must(s.js.Publish(t.Context(), "ai.usage.p1", []byte("nonsense")))
	testenv.Eventually(t, "it is in the quarantine", func() bool { return strings.Contains(cli(0, "", "quarantine", "ls"), "ai.usage.p1") })
	testenv.Must(http.Get("http://" + admins[0].http + "/")).Body.Close()
	testenv.Must(http.Post("http://"+proxy+"/openai/v1/chat/completions", "application/json", nil)).Body.Close()
	token, _, err := identity.NewTokens(s.tokens, nil).Create(t.Context(), identity.TokenRequest{Name: "test", Permissions: []string{edge.PermissionReport}, CreatedBy: "test"})
	if err != nil {
		t.Fatal(err)
	}
	report(t, rest, token, events.NewUUIDv7(time.Now()).String(), "["+string(usage("p3", 1).AppendJSON(nil))+"]", 1)
	testenv.Eventually(t, "what is in the quarantine is counted", func() bool {
		metrics = ""
		for _, a := range append(admins, rest) {
			resp := testenv.Must(http.Get("http://" + a.http + "/metrics"))
			metrics += string(testenv.Must(io.ReadAll(resp.Body)))
			resp.Body.Close()
		}
		return strings.Contains(metrics, "tidegate_events_quarantined_total{")
	})
	if !strings.Contains(metrics, `tidegate_alert_deliveries_total{outcome="given_up",receiver="pager"} 1`) || !strings.Contains(metrics, `tidegate_alert_deliveries_oldest_seconds{receiver="inside"}`) {
		t.Error("the metrics do not say that one was given up")
	}
	if !strings.Contains(metrics, `tidegate_top_port_used_tokens{port="p1"} 1200`) || !strings.Contains(metrics, `tidegate_build_info{`) {
		t.Error("the metrics name neither the fullest port nor the version")
	}
	wantMonitored(t, metrics)
	cli(0, "p1                    ████████████████████   120%  1,200     0     1,000", "top", "--every", "200ms", "--http", "http://"+rest.http+",http://"+admins[0].http)
	quiet := run("", "gate", "--top-ports=-1")
	quiet.awaitReady()
	cli(0, "no port with a hard cap", "top", "--once", "--every", "200ms", "--http", "http://"+quiet.http)
	cli(1, "is --http right?", "top", "--http", "http://"+testenv.FreeAddr(t))
	p.mu.Lock()
	p.no = false
	p.mu.Unlock()
	cli(0, "1 deliveries are tried once more", "alert", "retry", "pager")
	testenv.Eventually(t, "it is delivered", func() bool { return lines("--port", "p2")[0].DeliveredAt != nil })
}
