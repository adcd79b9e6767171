package events_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

// gate answers base.* as the real one does: through NATS micro.
func gate(t *testing.T, nc *nats.Conn, base string, handle func(micro.Request)) {
	t.Helper()
	svc, err := micro.AddService(nc, micro.Config{Name: events.GateService, Version: "1.0.0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { svc.Stop() })
	if err := svc.AddEndpoint("any", micro.HandlerFunc(handle), micro.WithEndpointSubject(base+".*")); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil { // a client on another connection finds nobody before
		t.Fatal(err)
	}
}

func newClient(t testing.TB, nc *nats.Conn, cfg events.ClientConfig) *events.Client {
	t.Helper()
	c, err := events.NewClient(nc, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestClient_CheckBringsTheWholeVerdict(t *testing.T) {
	nc := startBus(t).connect()
	day := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	soft, hard, left := int64(800), int64(1000), int64(188)
	want := events.Verdict{
		Allowed: false, Reason: events.ReasonEstimateExceedsHardCap, SoftCapWarning: true, Enabled: true,
		Period: events.PeriodDay, PeriodStart: day, ResetsAt: day.AddDate(0, 0, 1),
		UsedTokens: 812, HeldTokens: 4, SoftCapTokens: &soft, HardCapTokens: &hard, RemainingTokens: &left,
		AsOf: day.Add(time.Hour), ReservationID: "r\"1", ExpiresAt: day.Add(2 * time.Hour),
	}
	got := make(chan events.CheckRequest, 1)
	gate(t, nc, events.SubjectCheck, func(r micro.Request) {
		var asked events.CheckRequest
		if _, err := events.DecodeRequest(events.SubjectCheck, r.Subject(), r.Data(), &asked); err != nil {
			r.Error("400", err.Error(), []byte(`{}`))
			return
		}
		got <- asked
		r.Respond(want.AppendJSON(nil))
	})
	request := events.CheckRequest{PortID: "p1", Feature: "ocr", UserID: "u1", EstimatedTokens: 2000}
	v, err := newClient(t, nc, events.ClientConfig{WhenUnavailable: events.FailOpen}).Check(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, v); diff != "" {
		t.Error("verdict (-want +got):\n", diff)
	}
	if diff := cmp.Diff(request, <-got); diff != "" {
		t.Error("request (-want +got):\n", diff)
	}
}

// Whatever goes wrong, the verdict is the policy's and the error says what it was.
func TestClient_CheckWithoutAnAnswer(t *testing.T) {
	b := startBus(t)
	nc := b.connect()
	gate(t, nc, events.SubjectCheck, func(r micro.Request) {
		switch port, _ := events.SubjectPort(events.SubjectCheck, r.Subject()); port {
		case "silent":
		case "cold":
			r.Error("503", "the totals are being loaded", []byte(`{}`))
		case "picky":
			r.Error("400", "estimated_tokens = -1: must be positive", []byte(`{}`))
		case "odd":
			r.Error("zzz", "?", []byte(`{}`))
		case "garbled":
			r.Respond([]byte(`{"allowed":`))
		}
	})
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	var field *events.FieldError
	var service *events.ServiceError
	for _, c := range []struct {
		name        string
		nc          *nats.Conn
		ctx         context.Context
		request     events.CheckRequest
		unavailable bool
		is          error
		as          any
	}{
		{name: "no gate", nc: startBus(t).connect(), request: events.CheckRequest{PortID: "p1"}, unavailable: true, is: nats.ErrNoResponders},
		{name: "a gate that does not answer", nc: nc, request: events.CheckRequest{PortID: "silent"}, unavailable: true, is: context.DeadlineExceeded},
		{name: "a gate that is not ready", nc: nc, request: events.CheckRequest{PortID: "cold"}, unavailable: true, as: &service},
		{name: "no NATS", nc: connect(t, deadURL(t)), request: events.CheckRequest{PortID: "p1"}, unavailable: true},
		{name: "a closed connection", nc: closedConn(b), request: events.CheckRequest{PortID: "p1"}, unavailable: true},
		{name: "a fault", nc: nc, request: events.CheckRequest{PortID: "picky"}, as: &service},
		{name: "a fault without a number", nc: nc, request: events.CheckRequest{PortID: "odd"}, as: &service},
		{name: "an answer that is none", nc: nc, request: events.CheckRequest{PortID: "garbled"}},
		{name: "a caller that gave up", nc: nc, ctx: canceled, request: events.CheckRequest{PortID: "silent"}, is: context.Canceled},
		{name: "a request that breaks the contract", nc: nc, request: events.CheckRequest{PortID: "p1", EstimatedTokens: -1}, as: &field},
		{name: "no port", nc: nc, request: events.CheckRequest{}, as: &field},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.ctx == nil {
				c.ctx = t.Context()
			}
			for policy, allowed := range map[events.Policy]bool{events.FailOpen: true, events.FailClosed: false} {
				v, err := newClient(t, c.nc, events.ClientConfig{WhenUnavailable: policy, Timeout: 50 * time.Millisecond}).Check(c.ctx, c.request)
				if err == nil {
					t.Fatal("no error")
				}
				if v.Allowed != allowed {
					t.Errorf("policy %d: allowed %t", policy, v.Allowed)
				}
				if got := errors.Is(err, events.ErrUnavailable); got != c.unavailable {
					t.Errorf("unavailable: %t, want %t: %v", got, c.unavailable, err)
				}
				wantReason := events.RefusalReason("")
				if !allowed && c.unavailable {
					wantReason = events.ReasonGateUnavailable
				}
				if v.Reason != wantReason {
					t.Errorf("reason %q, want %q", v.Reason, wantReason)
				}
				if c.is != nil && !errors.Is(err, c.is) {
					t.Errorf("want %v, got %v", c.is, err)
				}
				if c.as != nil && !errors.As(err, c.as) {
					t.Errorf("want a %T, got %v", c.as, err)
				}
			}
		})
	}
}

func closedConn(b *bus) *nats.Conn {
	nc := b.connect()
	nc.Close()
	return nc
}

func TestClient_CallersDeadlineCountsToo(t *testing.T) {
	nc := startBus(t).connect()
	gate(t, nc, events.SubjectCheck, func(micro.Request) {})
	began := time.Now()
	_, err := newClient(t, nc, events.ClientConfig{WhenUnavailable: events.FailOpen, Timeout: time.Minute}).
		Check(within(t, 50*time.Millisecond), events.CheckRequest{PortID: "p1"})
	if !errors.Is(err, events.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 10*time.Second {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
}

// While the server is away a check must not wait for it, nor be asked later.
func TestClient_DisconnectedAnswersAtOnce(t *testing.T) {
	b := startBus(t)
	nc := b.connect()
	client := newClient(t, nc, events.ClientConfig{WhenUnavailable: events.FailClosed, Timeout: time.Minute})
	b.stop()
	testenv.Eventually(t, "the loss is noticed", func() bool { return !nc.IsConnected() })
	began := time.Now()
	v, err := client.Check(t.Context(), events.CheckRequest{PortID: "p1"})
	if v.Allowed || !errors.Is(err, events.ErrUnavailable) || time.Since(began) > 10*time.Second {
		t.Errorf("after %s: %+v, %v", time.Since(began), v, err)
	}
	b.start()
	gate(t, b.connect(), events.SubjectCheck, func(r micro.Request) { r.Respond([]byte(`{"allowed":true}`)) })
	testenv.Eventually(t, "it is allowed again", func() bool {
		v, err := client.Check(t.Context(), events.CheckRequest{PortID: "p1"})
		return err == nil && v.Allowed
	})
}

func TestClient_ForbiddenSubjectIsNamed(t *testing.T) {
	b := startBus(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "svc", Password: "x", Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: []string{"ai.budget.*.p1"}},
			Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.p1.>", "ai.budget.>", "$SRV.>"}},
		}}, {Username: "gate", Password: "x"}}
	})
	gate(t, b.connect(nats.UserInfo("gate", "x")), events.SubjectCheck, func(r micro.Request) { r.Respond([]byte(`{"allowed":true}`)) })
	client := newClient(t, b.connect(nats.UserInfo("svc", "x"), events.PortInbox("p1")),
		events.ClientConfig{WhenUnavailable: events.FailClosed, Timeout: 2 * time.Second})
	if v, err := client.Check(t.Context(), events.CheckRequest{PortID: "p1"}); err != nil || !v.Allowed {
		t.Errorf("its own port: %+v, %v", v, err)
	}
	v, err := client.Check(t.Context(), events.CheckRequest{PortID: "p2"})
	if v.Allowed || !errors.Is(err, events.ErrNotPermitted) || !errors.Is(err, events.ErrUnavailable) {
		t.Errorf("another port: %+v, %v", v, err)
	}
}

func TestClient_GetSetUsage(t *testing.T) {
	nc := startBus(t).connect()
	hard := int64(1000)
	budget := events.Budget{Enabled: true, HardCapTokens: &hard, Period: events.PeriodMonth, Version: 3,
		UpdatedAt: time.Date(2026, 11, 23, 1, 2, 3, 0, time.UTC), UpdatedBy: "ada"}
	report := events.Report{PortID: "p1", Period: events.PeriodMonth, UsedTokens: 1565, Requests: 1, Dimension: events.ByModel,
		By: []events.Share{{Key: "claude-sonnet", Requests: 1, InputTokens: 1532, OutputTokens: 33, TotalTokens: 1565}}}
	asked := make(chan string, 1)
	reply := func(v any) func(micro.Request) {
		return func(r micro.Request) {
			asked <- r.Subject() + " " + string(r.Data())
			b, _ := json.Marshal(v)
			r.Respond(b)
		}
	}
	gate(t, nc, events.SubjectBudgetGet, reply(budget))
	gate(t, nc, events.SubjectReport, reply(report))
	gate(t, nc, events.SubjectBudgetSet, func(r micro.Request) {
		var set events.SetRequest
		if port, err := events.DecodeRequest(events.SubjectBudgetSet, r.Subject(), r.Data(), &set); err != nil || port != "p1" {
			r.Error("400", err.Error(), []byte(`{}`))
			return
		}
		if set.IfVersion != nil && *set.IfVersion != 3 {
			r.Error("409", "the stored version is 3", []byte(`{}`))
			return
		}
		reply(set.Budget())(r)
	})
	client := newClient(t, nc, events.ClientConfig{WhenUnavailable: events.FailOpen})

	got, err := client.Get(t.Context(), "p1")
	if diff := cmp.Diff(budget, got); err != nil || diff != "" {
		t.Errorf("Get: %v (-want +got):\n%s", err, diff)
	}
	if a := <-asked; a != "ai.budget.get.p1 {}" {
		t.Errorf("Get asked %s", a)
	}
	gotReport, err := client.Usage(t.Context(), events.ReportRequest{PortID: "p1", By: events.ByModel})
	if diff := cmp.Diff(report, gotReport); err != nil || diff != "" {
		t.Errorf("Usage: %v (-want +got):\n%s", err, diff)
	}
	if a := <-asked; a != `ai.budget.usage.p1 {"by":"model"}` {
		t.Errorf("Usage asked %s", a)
	}
	version := int64(3)
	set := events.SetRequest{PortID: "p1", Enabled: true, HardCapTokens: &hard, IfVersion: &version}
	stored, err := client.Set(t.Context(), set)
	if diff := cmp.Diff(set.Budget(), stored); err != nil || diff != "" {
		t.Errorf("Set: %v (-want +got):\n%s", err, diff)
	}
	if a := <-asked; a != `ai.budget.set.p1 {"enabled":true,"soft_cap_tokens":null,"hard_cap_tokens":1000,"if_version":3}` {
		t.Errorf("Set asked %s", a)
	}
	*set.IfVersion = 0 // still sent: it means "nothing stored yet"
	_, err = client.Set(t.Context(), set)
	var service *events.ServiceError
	if !errors.Is(err, events.ErrConflict) || !errors.As(err, &service) || service.Code != 409 || !strings.Contains(err.Error(), "the stored version is 3") {
		t.Errorf("Set of an old version: %v", err)
	}
}

func TestClient_RefusesBadRequestsItself(t *testing.T) {
	client := newClient(t, connect(t, deadURL(t)), events.ClientConfig{WhenUnavailable: events.FailOpen})
	soft, hard := int64(2), int64(1)
	_, get := client.Get(t.Context(), "a.b")
	_, set := client.Set(t.Context(), events.SetRequest{PortID: "p1", SoftCapTokens: &soft, HardCapTokens: &hard})
	_, noPort := client.Set(t.Context(), events.SetRequest{})
	_, usage := client.Usage(t.Context(), events.ReportRequest{PortID: "p1", By: "hour"})
	_, bare := client.Usage(t.Context(), events.ReportRequest{})
	_, limit := client.Usage(t.Context(), events.ReportRequest{PortID: "p1", LimitName: "ocr"})
	_, noLimit := client.LimitUsage(t.Context(), events.ReportRequest{PortID: "p1"})
	for want, err := range map[string]error{"limit_name": limit, "limit_name ": noLimit, "port_id": get, "soft_cap_tokens": set, "port_id ": noPort, "by": usage, "port_id  ": bare} {
		var field *events.FieldError
		if !errors.As(err, &field) || field.Field != strings.TrimSpace(want) {
			t.Errorf("want a FieldError of %s, got %v", want, err)
		}
	}
}

func TestClient_PolicyIsRequired(t *testing.T) {
	nc := connect(t, deadURL(t))
	for _, cfg := range []events.ClientConfig{{}, {WhenUnavailable: 3}, {WhenUnavailable: events.FailOpen, Timeout: -1}} {
		if _, err := events.NewClient(nc, cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
	if _, err := events.NewClient(nil, events.ClientConfig{WhenUnavailable: events.FailOpen}); err == nil {
		t.Error("no connection was accepted")
	}
}
