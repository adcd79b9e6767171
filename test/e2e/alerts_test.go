package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/gate"
	"github.com/tidegate/tidegate/internal/testenv"
)

// alerts are those that a subscriber has seen.
type alerts struct {
	mu  sync.Mutex
	all []events.Alert
}

func (s *system) watchAlerts() *alerts {
	s.t.Helper()
	var a alerts
	sub := testenv.Must(s.nc.Subscribe("ai.alert.>", func(msg *nats.Msg) {
		var alert events.Alert
		if err := json.Unmarshal(msg.Data, &alert); err != nil || msg.Subject != "ai.alert."+alert.PortID {
			s.t.Errorf("on %s: %s", msg.Subject, msg.Data)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.all = append(a.all, alert)
	}))
	s.t.Cleanup(func() { _ = sub.Unsubscribe() })
	if err := s.nc.Flush(); err != nil {
		s.t.Fatal(err)
	}
	return &a
}

// of lists a port's alerts in the order in which they came: the cap and its value.
func (a *alerts) of(port string) (list []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, alert := range a.all {
		if alert.PortID == port {
			list = append(list, fmt.Sprint(alert.Cap, " ", alert.CapTokens))
		}
	}
	return list
}

// cross lets a port reach a hard cap that it has not reached yet, and waits for the alert
// of it: by then every gate has looked at what came before.
func (s *system) cross(a *alerts, port string) {
	s.t.Helper()
	s.setBudget(port, -1, 10, events.PeriodMonth)
	s.spend(port, 10, time.Time{})
	testenv.Eventually(s.t, "the alert of "+port, func() bool { return len(a.of(port)) > 0 })
}

func TestAlertsAreSentOncePerCapAndPeriod(t *testing.T) {
	t.Parallel()
	s := start(t, options{gates: 3})
	a := s.watchAlerts()
	s.setBudget("p1", 800, 1000, events.PeriodMonth)
	s.spend("p1", 700, time.Time{})
	s.spend("p1", 150, time.Time{})
	testenv.Eventually(s.t, "the soft cap's alert", func() bool { return len(a.of("p1")) == 1 })
	for range 5 {
		s.spend("p1", 50, time.Time{})
	}
	testenv.Eventually(s.t, "the hard cap's alert", func() bool { return len(a.of("p1")) == 2 })
	s.cross(a, "p2")
	if got, want := a.of("p1"), []string{"soft 800", "hard 1000"}; !slices.Equal(got, want) {
		t.Errorf("alerts %v, want %v", got, want)
	}
	a.mu.Lock()
	hard := a.all[1]
	a.mu.Unlock()
	start, end := events.PeriodMonth.Bounds(time.Now())
	if hard.UsedTokens < 1000 || hard.UsedTokens > 1100 || !hard.PeriodStart.Equal(start) || !hard.ResetsAt.Equal(end) || time.Since(hard.At).Abs() > time.Minute {
		t.Errorf("the hard cap's alert: %+v", hard)
	}
}

// A cap that is raised and reached again is a new alert, and so is one that is lowered to
// what is used; but nobody is told of less than they know.
func TestAlertsFollowACapThatChanges(t *testing.T) {
	t.Parallel()
	s := start(t, options{gates: 2})
	a := s.watchAlerts()
	want := func(port string, list ...string) {
		t.Helper()
		testenv.Eventually(s.t, fmt.Sprint(port, " has the alerts ", list), func() bool { return slices.Equal(a.of(port), list) })
	}
	s.setBudget("raised", -1, 1000, events.PeriodMonth)
	s.spend("raised", 1000, time.Time{})
	want("raised", "hard 1000")
	s.setBudget("raised", -1, 2000, events.PeriodMonth)
	s.spend("raised", 1000, time.Time{})
	want("raised", "hard 1000", "hard 2000")
	s.setBudget("raised", -1, 1500, events.PeriodMonth) // 2,000 are used, and that is known

	s.setBudget("lowered", 600, 1000, events.PeriodMonth)
	s.spend("lowered", 500, time.Time{})
	s.setBudget("lowered", 450, 1000, events.PeriodMonth)
	want("lowered", "soft 450")
	s.setBudget("lowered", 450, 500, events.PeriodMonth)
	want("lowered", "soft 450", "hard 500")

	s.cross(a, "last")
	want("raised", "hard 1000", "hard 2000")
	want("lowered", "soft 450", "hard 500")
}

// A gate claimed an alert and never heard that it did: whichever gate looks after the
// claim has run out publishes it, although all of them know of the crossing.
func TestAnAlertThatNobodyPublishedIsTakenOver(t *testing.T) {
	t.Parallel()
	s := start(t, options{gates: 2})
	a := s.watchAlerts()
	start, _ := events.PeriodMonth.Bounds(time.Now())
	s.setBudget("p1", -1, 1000, events.PeriodMonth)
	if _, err := s.db.Exec(t.Context(), `insert into ai_alerts (port_id, period, period_start, threshold, reached, used, noticed_at, claimed_until)
		values ('p1', 'month', $1, 'hard', 1000, 1234, now(), now() + interval '1 hour')`, start); err != nil {
		t.Fatal(err)
	}
	s.spend("p1", 1234, time.Time{})
	s.cross(a, "p2")
	if got := a.of("p1"); len(got) > 0 {
		t.Errorf("%v although a gate is about to publish it", got)
	}
	if _, err := s.db.Exec(t.Context(), "update ai_alerts set claimed_until = now() where port_id = 'p1'"); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(s.t, "the alert", func() bool { return len(a.of("p1")) > 0 })
	s.cross(a, "p3")
	if got := a.of("p1"); !slices.Equal(got, []string{"hard 1000"}) {
		t.Errorf("alerts %v, want it once", got)
	}
}

// TestAGateKilledAtEachLineOfAnAlert kills the built gate between any two steps of an
// alert. Others, which saw the claim while it was good, then publish it: once in all, or, where it was killed between publishing
// and noting that, once more.
func TestAGateKilledAtEachLineOfAnAlert(t *testing.T) {
	t.Parallel()
	binary := testenv.Killable(t)
	s := start(t, options{gates: -1})
	a := s.watchAlerts()
	points := []struct {
		name                string
		before, least, most int // alerts by the time of the kill; in the end
	}{
		{"alert-claimed", 0, 1, 1},
		{"alert-sent", -1, 1, 2}, // maybe it left the process
		{"alert-flushed", 1, 2, 2},
		{"alert-noted", 1, 1, 1},
		{"alert-noticed", 0, 1, 1}, // last: it leaves no claim, which the next gate would make
	}
	hard := int64(1000)
	for _, p := range points {
		b := events.Budget{Enabled: true, Period: events.PeriodMonth, HardCapTokens: &hard}
		testenv.Must(s.ledger.StoreBudget(t.Context(), p.name, b, nil, tellNobody))
		if err := s.publisher.Publish(t.Context(), []events.Usage{usage(p.name, hard)}); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(s.t, "it is booked", func() bool { return s.booked(p.name) == hard })
		killed := spawn(t, binary, []string{"TIDEGATE_KILLPOINT=" + p.name + ":1"}, "--nats-url", s.nats.ClientURL(), "--database-url", s.url, "--roles", "gate")
		if !killed.wait(60 * time.Second) {
			t.Fatalf("not killed at %s:\n%s", p.name, killed.out)
		}
		if status := killed.cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
			t.Fatalf("to be killed at %s, but: %v\n%s", p.name, killed.cmd.ProcessState, killed.out)
		}
		if p.before > 0 {
			testenv.Eventually(s.t, "its alert before the kill", func() bool { return len(a.of(p.name)) == p.before })
		}
		if n := len(a.of(p.name)); p.before == 0 && n > 0 {
			t.Errorf("killed at %s, and %d alerts came", p.name, n)
		}
		// The next to be killed must not take it over.
		if _, err := s.db.Exec(t.Context(), "update ai_alerts set claimed_until = now() + interval '1 hour'"); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		g := testenv.Must(gate.New(gate.Config{Conn: testenv.Connect(t, s.nats), Ledger: s.ledger}))
		s.background(g.Run)
		testenv.Await(t, "the gate is ready", g.Ready())
	}
	s.cross(a, "first") // they have found all crossings, and claims for them that seem alive
	if _, err := s.db.Exec(t.Context(), "update ai_alerts set claimed_until = now()"); err != nil {
		t.Fatal(err)
	}
	for _, p := range points {
		testenv.Eventually(s.t, fmt.Sprintf("the alert of the gate killed at %s", p.name), func() bool { return len(a.of(p.name)) >= p.least })
	}
	s.cross(a, "last")
	for _, p := range points {
		if n := len(a.of(p.name)); n > p.most {
			t.Errorf("killed at %s: %d alerts, want at most %d", p.name, n, p.most)
		}
	}
	var left int
	if err := s.db.QueryRow(t.Context(), "select count(*) from ai_alerts where published_at is null").Scan(&left); err != nil || left > 0 {
		t.Errorf("%d alerts are not noted as published, %v", left, err)
	}
}
