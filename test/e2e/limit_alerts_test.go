package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/gate"
	"github.com/tidegate/tidegate/internal/testenv"
)

// ofLimits lists a port's alerts, in the order of the alphabet: limit, value, cap, threshold, unit and figures.
func (a *alerts) ofLimits(port string) (list []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, one := range a.all {
		if one.PortID == port {
			threshold := ""
			if one.Threshold != nil {
				threshold = one.Threshold.String()
			}
			list = append(list, strings.Join(strings.Fields(fmt.Sprint(one.Limit, " ", one.LimitValue, " ", one.Cap, " ", threshold, " ", one.CapTokens, " of ", one.UsedTokens, " ", one.Unit)), " "))
		}
	}
	slices.Sort(list)
	return list
}

func (s *system) wantAlerts(a *alerts, port string, want ...string) {
	s.t.Helper()
	slices.Sort(want)
	var got []string
	defer func() {
		if s.t.Failed() {
			s.t.Logf("alerts of %s:\n%s", port, strings.Join(got, "\n"))
		}
	}()
	testenv.Eventually(s.t, fmt.Sprintf("%s has the alerts\n%s", port, strings.Join(want, "\n")), func() bool {
		got = a.ofLimits(port)
		return slices.Equal(got, want)
	})
}

// record books a call of a user and waits until the gates know.
func (s *system) record(port, user string, input, output int64) {
	s.t.Helper()
	u := usage(port, input+output)
	u.InputTokens, u.OutputTokens, u.UserID, u.Model = input, output, user, "gpt-5-mini"
	before := s.booked(port)
	s.publisher.Record(u)
	testenv.Eventually(s.t, "the call is booked and known to the gates", func() bool { return s.booked(port) == before+input+output && s.verified() })
}

// Each threshold of each limit is told once, for each value, whichever of three gates notices; a
// cap that is raised and reached again is told again, and so is what alert_at makes of it. What
// a gate finds at its start was told before.
func TestAlertsOfLimits(t *testing.T) {
	t.Parallel()
	s := start(t, options{gates: 3})
	a := s.watchAlerts()
	limits := func(hard int) string {
		return fmt.Sprintf(`[
		{"name":"each-user","per":"user_id","window":"month","soft":80,"hard":%d,"alert_at":["50%%",70]},
		{"name":"frontier","match":{"model":"gpt-5*"},"window":"total","unit":"weighted","weights":{"output":4},"hard":1000,"alert_at":["30%%"]},
		{"name":"calls","match":{"feature":"nothing"},"window":"day","unit":"requests","hard":1}]`, hard)
	}
	s.setLimits("p1", 1000, limits(100))
	s.record("p1", "ada", 45, 0)
	s.record("p1", "ada", 10, 5)
	want := []string{"each-user ada alert_at 50% 50 of 60"}
	s.wantAlerts(a, "p1", want...)
	s.record("p1", "", 0, 75)
	want = append(want, "each-user alert_at 50% 50 of 75", "each-user alert_at 70 70 of 75", "frontier alert_at 30% 300 of 375 weighted")
	s.wantAlerts(a, "p1", want...)
	s.record("p1", "ada", 40, 0)
	want = append(want, "each-user ada alert_at 70 70 of 100", "each-user ada soft 80 of 100", "each-user ada hard 100 of 100")
	s.wantAlerts(a, "p1", want...)

	// The raised cap is reached again, and half of it by the call without a user.
	s.setLimits("p1", 1000, limits(140))
	want = append(want, "each-user alert_at 50% 70 of 75", "each-user ada alert_at 50% 70 of 100")
	s.wantAlerts(a, "p1", want...)
	s.record("p1", "ada", 40, 0)
	want = append(want, "each-user ada hard 140 of 140")
	s.wantAlerts(a, "p1", want...)
	// Nobody is told of less than they know, nor twice: not by a gate that starts, either.
	s.setLimits("p1", 1000, limits(100))
	g := testenv.Must(gate.New(gate.Config{Conn: testenv.Connect(t, s.nats), Ledger: s.ledger}))
	s.background(g.Run)
	testenv.Await(t, "the gate is ready", g.Ready())
	s.cross(a, "last")
	s.wantAlerts(a, "p1", want...)

	a.mu.Lock()
	defer a.mu.Unlock()
	start, end := events.PeriodMonth.Bounds(time.Now())
	for _, one := range a.all {
		switch {
		case one.PortID == "last":
			if one.Limit != events.PortLimit || one.Threshold != nil || one.Unit != "" {
				t.Errorf("of a port's own cap: %+v", one)
			}
		case one.Limit == "frontier":
			if one.Period != "total" || !one.ResetsAt.IsZero() {
				t.Errorf("of a window without end: %+v", one)
			}
		case one.Period != events.PeriodMonth || !one.PeriodStart.Equal(start) || !one.ResetsAt.Equal(end) || time.Since(one.At).Abs() > time.Minute:
			t.Errorf("%+v", one)
		}
	}
}

// Nobody saw 1,500 users reach their cap. The gates that start then tell of each once, and do not
// keep another port waiting for it: of that there are three alerts, sent while the flood goes on.
func TestAFloodOfAlertsOfLimits(t *testing.T) {
	t.Parallel()
	s := start(t, options{gates: -1})
	a := s.watchAlerts()
	const users = 1500
	each := []events.Limit{{Name: "each-user", Per: "user_id", Window: "month", Hard: new(int64(10)), AlertAt: nil}}
	for _, port := range []string{"flood", "calm"} {
		testenv.Must(s.ledger.StoreBudget(t.Context(), port, events.Budget{Enabled: true, Period: events.PeriodMonth, Limits: each}, nil, tellNobody))
	}
	var all []events.Usage
	for i := range users {
		u := usage("flood", 10)
		u.UserID = fmt.Sprint("u", i)
		all = append(all, u)
	}
	for i := range 3 {
		u := usage("calm", 10)
		u.UserID = fmt.Sprint("u", i)
		all = append(all, u)
	}
	if err := s.publisher.Publish(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "all is booked", func() bool { return s.booked("flood") == 10*users && s.booked("calm") == 30 })
	for range 2 {
		g := testenv.Must(gate.New(gate.Config{Conn: testenv.Connect(t, s.nats), Ledger: s.ledger}))
		s.background(g.Run)
	}
	told := func() int { return len(a.ofLimits("flood")) }
	testenv.Eventually(t, "all users are told of", func() bool { return told() >= users && len(a.ofLimits("calm")) == 3 })
	s.cross(a, "last")
	if list := slices.Compact(a.ofLimits("flood")); told() != users || len(list) != users {
		t.Errorf("%d alerts of %d users, want one for each of %d", told(), len(list), users)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	last, calm := 0, 0
	for i, one := range a.all {
		if one.PortID == "calm" {
			calm, last = calm+1, i
		}
	}
	if last > 2*users/3 {
		t.Errorf("the last alert of the port with three was the %d. of all", last+1)
	}
}

// A gate dies between any two steps of an alert of a limit: it is told once in all, or, where it
// was killed between publishing and noting that, once more.
func TestAGateKilledAtEachLineOfALimitsAlert(t *testing.T) {
	t.Parallel()
	binary := testenv.Killable(t)
	s := start(t, options{gates: -1})
	a := s.watchAlerts()
	points := map[string]int{"alert-claimed": 1, "alert-sent": 2, "alert-flushed": 2, "alert-noted": 1} // alerts at most
	for point := range points {
		limits := []events.Limit{{Name: "each-user", Per: "user_id", Window: "total", Hard: new(int64(10)), AlertAt: nil}}
		testenv.Must(s.ledger.StoreBudget(t.Context(), point, events.Budget{Enabled: true, Period: events.PeriodMonth, Limits: limits}, nil, tellNobody))
		u := usage(point, 10)
		u.UserID = "ada"
		if err := s.publisher.Publish(t.Context(), []events.Usage{u}); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(s.t, "it is booked", func() bool { return s.booked(point) == 10 })
		killed := spawn(t, binary, []string{"TIDEGATE_KILLPOINT=" + point + ":1"}, "--nats-url", s.nats.ClientURL(), "--database-url", s.url, "--roles", "gate")
		if !killed.wait(60 * time.Second) {
			t.Fatalf("not killed at %s:\n%s", point, killed.out)
		}
		if status := killed.cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
			t.Fatalf("to be killed at %s, but: %v\n%s", point, killed.cmd.ProcessState, killed.out)
		}
		// The next to be killed must not take it over.
		if _, err := s.db.Exec(t.Context(), "update ai_alerts set claimed_until = now() + interval '1 hour'"); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	g := testenv.Must(gate.New(gate.Config{Conn: testenv.Connect(t, s.nats), Ledger: s.ledger}))
	s.background(func(context.Context) error { return g.Run(ctx) })
	testenv.Await(t, "the gate is ready", g.Ready())
	if _, err := s.db.Exec(ctx, "update ai_alerts set claimed_until = now()"); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "all are noted as published", func() bool {
		var all, left int
		err := s.db.QueryRow(ctx, "select count(*), count(*) filter (where published_at is null) from ai_alerts").Scan(&all, &left)
		return err == nil && all == len(points) && left == 0
	})
	s.cross(a, "last")
	for point, most := range points {
		if n := len(a.ofLimits(point)); n < 1 || n > most {
			t.Errorf("killed at %s: %d alerts, want at most %d", point, n, most)
		}
	}
}

// What a limit counts comes by what is used, in pages, with what is held, for who asks on the wire
// and on the command line.
func TestUsageOfALimit(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.setLimits("p1", -1, `[{"name":"each-user","per":"user_id","window":"month","soft":50,"hard":200},{"name":"all","window":"total","unit":"requests","hard":9}]`)
	for i, user := range []string{"ada", "bob", "cyd", ""} {
		s.record("p1", user, int64(20*(i+1)), 0)
	}
	s.record("p1", "ada", 100, 0)
	r := s.reserve(events.ReserveRequest{PortID: "p1", UserID: "bob", EstimatedTokens: 30})
	if !r.Allowed {
		t.Fatalf("%+v", r.Verdict)
	}
	request := events.ReportRequest{PortID: "p1", LimitName: "each-user", Limit: 2}
	var page events.LimitReport
	testenv.Eventually(t, "the gate has read what is held", func() bool {
		whole := testenv.Must(s.client.LimitUsage(t.Context(), events.ReportRequest{PortID: "p1", LimitName: "each-user"}))
		return len(whole.Counters) == 4 && whole.Counters[3].HeldTokens == 30 && !whole.More
	})
	var got []string
	for more := true; more; {
		page = testenv.Must(s.client.LimitUsage(t.Context(), request))
		for _, c := range page.Counters {
			got = append(got, fmt.Sprint(c.Value, " ", c.UsedTokens, " ", c.HeldTokens, " ", *c.RemainingTokens))
		}
		more, request.After = page.More, page.Next
	}
	if want := []string{"ada 120 0 80", " 80 0 120", "cyd 60 0 140", "bob 40 30 130"}; !slices.Equal(got, want) || page.Values != 4 || *page.HardCapTokens != 200 || page.ResetsAt == nil {
		t.Errorf("%q, want %q; the last page: %+v", got, want, page)
	}
	all := testenv.Must(s.client.LimitUsage(t.Context(), events.ReportRequest{PortID: "p1", LimitName: "all"}))
	if len(all.Counters) != 1 || all.Counters[0].UsedTokens != 5 || all.ResetsAt != nil || all.Unit != events.UnitRequests || all.Per != "" {
		t.Errorf("of all calls: %+v", all)
	}
	out := s.cli(0, "usage", "p1", "--limit", "each-user", "--lines", "2")
	for _, want := range []string{"hard cap 200, soft cap 50", "ada|120|0|80|60%", "(none)|80|0|120|40%", "2 of 4; there are more"} {
		if !strings.Contains(cells(out), want) {
			t.Errorf("not printed: %s\n%s", want, out)
		}
	}
	var listed events.LimitReport
	s.cliJSON(&listed, "usage", "p1", "--limit", "each-user")
	if len(listed.Counters) != 4 || listed.More {
		t.Errorf("as JSON: %+v", listed)
	}
	if out := s.cli(1, "usage", "p1", "--limit", "each"); !strings.Contains(out, "there are: each-user, all") {
		t.Errorf("a limit that there is not:\n%s", out)
	}
	s.cli(0, "budget", "limits", "set", "p1", "each-user", "--alert-at", "50%,80%,1.5k")
	if out := s.cli(0, "budget", "limits", "ls", "p1"); !strings.Contains(out, "50%, 80%, 1,500") {
		t.Errorf("thresholds:\n%s", out)
	}
	s.cli(0, "budget", "limits", "set", "p1", "each-user", "--alert-at", "none")
	if at := s.stored("p1").Limits[0].AlertAt; at != nil {
		t.Errorf("thresholds that were taken away: %v", at)
	}
}
