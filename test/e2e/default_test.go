package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

// setDefault stores a default budget with a hard cap.
func (s *system) setDefault(hard int64, limits ...events.Limit) events.Budget {
	s.t.Helper()
	patient := testenv.Must(events.NewClient(s.nc, events.ClientConfig{WhenUnavailable: events.FailClosed, Timeout: time.Minute}))
	return testenv.Must(patient.Set(s.t.Context(), events.SetRequest{PortID: events.DefaultPort, Enabled: true, HardCapTokens: &hard, Limits: append([]events.Limit{}, limits...)}))
}

// eventuallyChecked waits until both gates say so of a port: the one that stored a budget knows it
// at once.
func (s *system) eventuallyChecked(port string, estimate int64, allowed bool) {
	s.t.Helper()
	testenv.Eventually(s.t, fmt.Sprintf("both gates allow %s %d tokens: %t", port, estimate, allowed), func() bool {
		for range 6 {
			if v, err := s.client.Check(s.t.Context(), events.CheckRequest{PortID: port, EstimatedTokens: estimate}); err != nil || v.Allowed != allowed {
				return false
			}
		}
		return true
	})
}

// The default budget binds every port that has none of its own, also one that nobody has seen
// before; a port's own budget does not hear of it.
func TestDefaultBudgetOnTheWire(t *testing.T) {
	t.Parallel()
	s := start(t, options{gates: 2})
	s.setBudget("own", -1, 500, events.PeriodDay)
	testenv.Must(s.client.Set(t.Context(), events.SetRequest{PortID: "off"}))
	s.spend("old", 400, time.Now())
	s.setDefault(1000)
	if r := s.reserve(events.ReserveRequest{PortID: "new", EstimatedTokens: 1001}); r.Allowed || *r.HardCapTokens != 1000 {
		t.Errorf("a port that nobody has seen: %+v", r.Verdict)
	}
	if r := s.reserve(events.ReserveRequest{PortID: "old", EstimatedTokens: 700, AcceptLess: true}); !r.Allowed || r.GrantedTokens != 600 {
		t.Errorf("a port that has used 400: %+v", r.Verdict)
	}
	s.eventuallyChecked("unseen", 1001, false)
	s.eventuallyChecked("old", 1, false)
	s.eventuallyChecked("own", 500, true)
	s.eventuallyChecked("own", 501, false)
	s.eventuallyChecked("off", 10_000, true)
	if b := testenv.Must(s.client.Get(t.Context(), "new")); !b.Default || b.Version != 0 || *b.HardCapTokens != 1000 {
		t.Errorf("a port without a budget: %+v", b)
	}
	if b := testenv.Must(s.client.Get(t.Context(), events.DefaultPort)); b.Default || b.Version != 1 {
		t.Errorf("the default budget: %+v", b)
	}

	// No budget, no calls.
	s.setDefault(0)
	if r := s.reserve(events.ReserveRequest{PortID: "newer", EstimatedTokens: 1}); r.Allowed || r.Reason != events.ReasonHardCapReached {
		t.Errorf("a new port under hard 0: %+v", r.Verdict)
	}
	s.eventuallyChecked("newest", 0, false)
	if r := s.reserve(events.ReserveRequest{PortID: "own", EstimatedTokens: 1}); !r.Allowed {
		t.Errorf("a port with a budget of its own: %+v", r.Verdict)
	}

	// Given back, and deleted.
	if b := testenv.Must(s.client.Set(t.Context(), events.SetRequest{PortID: "own", Default: true, IfVersion: new(int64(1))})); !b.Default || b.Version != 2 || *b.HardCapTokens != 0 {
		t.Errorf("given back: %+v", b)
	}
	if r := s.reserve(events.ReserveRequest{PortID: "own", EstimatedTokens: 1}); r.Allowed {
		t.Errorf("given back: %+v", r.Verdict)
	}
	s.eventuallyChecked("own", 0, false)
	if _, err := s.ops.DeletePort(t.Context(), "off", "test"); err != nil {
		t.Fatal(err)
	}
	s.spend("off", 5, time.Now())
	if r := s.reserve(events.ReserveRequest{PortID: "off", EstimatedTokens: 1}); r.Allowed {
		t.Errorf("deleted, and back: %+v", r.Verdict)
	}
	s.eventuallyChecked("off", 0, false)

	// Only the subject without a port can name it, and some things it cannot have.
	for _, c := range []struct{ subject, body, want string }{
		{"ai.budget.set.own", `{"port_id":"*","enabled":true}`, "port_mismatch"},
		{"ai.budget.get.own", `{"port_id":"*"}`, "port_mismatch"},
		{"ai.budget.check", `{"port_id":"*"}`, "port_id"},
		{"ai.budget.reserve", `{"port_id":"*"}`, "port_id"},
		{"ai.budget.set", `{"default":true}`, "port_id"},
		{"ai.budget.set", `{"port_id":"*","default":true}`, "enabled false"},
		{"ai.budget.set.own", `{"default":true,"hard_cap_tokens":5}`, "leave out"},
		{"ai.budget.set", `{"port_id":"*","enabled":true,"hard_cap_tokens":5,"extra_tokens":5,"extra_until":"2099-01-01T00:00:00Z"}`, "extra_tokens"},
	} {
		msg, err := s.nc.RequestMsg(&nats.Msg{Subject: c.subject, Data: []byte(c.body)}, 5*time.Second)
		if err != nil || msg.Header.Get("Nats-Service-Error-Code") != "400" || !strings.Contains(msg.Header.Get("Nats-Service-Error"), c.want) {
			t.Errorf("%s %s: %v, %v", c.subject, c.body, msg, err)
		}
	}
	s.mustVerify()
}

// The default budget is changed while callers on two gates reserve for ports that go by it, most of
// the time from leases. Whoever asks after a change was answered is decided by it, and in the end
// nobody has passed the cap.
func TestDefaultBudgetUnderConcurrency(t *testing.T) {
	t.Parallel()
	s := start(t, options{gates: 2})
	const high, ports = 1 << 40, 3
	s.setDefault(high)
	var epoch atomic.Int64 // odd: a default budget of 0 tokens was answered
	var asked, late atomic.Int64
	stop := make(chan struct{})
	var group sync.WaitGroup
	for c := range 12 {
		group.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				port := fmt.Sprint("p", c%ports)
				if i%50 == 0 {
					port = fmt.Sprint("new", c, "-", i)
				}
				before := epoch.Load()
				r, err := s.client.Reserve(t.Context(), events.ReserveRequest{PortID: port, Feature: "ocr", EstimatedTokens: 1})
				if err != nil || !r.Allowed {
					continue
				}
				asked.Add(1)
				if before%2 == 1 && epoch.Load() == before {
					late.Add(1)
				}
				r.Settle(events.Usage{Provider: "p", Model: "m", InputTokens: 1})
			}
		})
	}
	for range testenv.Times(2) {
		was := asked.Load()
		testenv.Eventually(t, "calls go through", func() bool { return asked.Load() > was+200 })
		s.setDefault(0)
		epoch.Add(1)
		time.Sleep(100 * time.Millisecond) // for as long as nothing may be allowed
		epoch.Add(1)
		s.setDefault(high)
	}
	// Now with a cap that is reached, and a limit that is new: each port has its own.
	enough := int64(testenv.Times(400))
	var caps int64
	if err := s.db.QueryRow(t.Context(), "select max(total_tokens) from ai_usage_port_days").Scan(&caps); err != nil {
		t.Fatal(err)
	}
	caps += enough
	s.setDefault(high, events.Limit{Name: "all", Window: events.PeriodMonth, Hard: &caps})
	testenv.Eventually(t, "a port reaches the limit", func() bool {
		v, err := s.client.Check(t.Context(), events.CheckRequest{PortID: "p0", EstimatedTokens: 1})
		return err == nil && !v.Allowed && v.Limit == "all"
	})
	close(stop)
	group.Wait()
	if late.Load() > 0 {
		t.Errorf("%d reservations were allowed after the default budget refused all", late.Load())
	}
	testenv.Eventually(t, "all is booked", func() bool { return s.waiting() == 0 })
	var most int64
	if err := s.db.QueryRow(t.Context(), "select max(total_tokens) from ai_usage_port_days").Scan(&most); err != nil || most > caps {
		t.Errorf("a port used %d of %d, %v", most, caps, err)
	}
	s.mustVerify()
}

// The default budget from the command line.
func TestDefaultBudgetCommands(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	if out := s.cli(0, "budget", "get", "--default"); !strings.Contains(out, "no default budget") {
		t.Errorf("before there is one: %s", out)
	}
	s.cli(0, "budget", "set", "--default", "--hard", "1k", "--soft", "500")
	s.spend("p1", 10, time.Now())
	s.cli(0, "budget", "set", "p2", "--hard", "5k")
	if out := s.cli(0, "budget", "get", "p1"); !strings.Contains(out, "1,000") || !strings.Contains(out, "this is the default budget") {
		t.Errorf("get p1: %s", out)
	}
	if b := s.stored("p2"); b.Default || *b.HardCapTokens != 5000 || *b.SoftCapTokens != 500 {
		t.Errorf("what is not given stays as it was: %+v", b)
	}
	if out := s.cli(0, "port", "ls"); strings.Count(out, "(default)") != 1 {
		t.Errorf("port ls: %s", out)
	}
	if out := s.cli(0, "budget", "unset", "p2"); !strings.Contains(out, "this is the default budget") {
		t.Errorf("unset: %s", out)
	}
	if out := s.cli(1, "budget", "set", "--default", "--extra", "1k"); !strings.Contains(out, "the default budget has none") {
		t.Errorf("extra tokens: %s", out)
	}
	s.cli(0, "budget", "limits", "set", "*", "calls", "--window", "day", "--unit", "requests", "--hard", "10")

	file := filepath.Join(t.TempDir(), "budgets.json")
	write := func(v any) {
		t.Helper()
		if err := os.WriteFile(file, testenv.Must(json.Marshal(v)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var standard, p1 json.RawMessage
	s.cliJSON(&standard, "budget", "get", "--default")
	s.cliJSON(&p1, "budget", "get", "p1")
	write(map[string]any{"*": standard, "p1": p1})
	if out := s.cli(0, "budget", "apply", file); strings.Count(out, "nothing to change") != 2 {
		t.Errorf("what is stored, applied: %s", out)
	}
	write(map[string]any{"*": map[string]any{"hard_cap_tokens": 0}, "p2": map[string]any{"hard_cap_tokens": 7}, "p1": map[string]any{"default": true}})
	s.cli(0, "budget", "apply", file)
	if b := s.stored("p1"); !b.Default || *b.HardCapTokens != 0 || b.Limits != nil {
		t.Errorf("p1: %+v", b)
	}
	if b := s.stored("p2"); b.Default || *b.HardCapTokens != 7 {
		t.Errorf("p2: %+v", b)
	}
}
