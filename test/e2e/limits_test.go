package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/gate"
	"github.com/tidegate/tidegate/internal/testenv"
)

// setLimits gives a port limits, written as on the wire, beside a hard cap; -1: none.
func (s *system) setLimits(port string, hard int64, limits string) events.Budget {
	s.t.Helper()
	r := events.SetRequest{PortID: port, Enabled: true}
	if hard >= 0 {
		r.HardCapTokens = &hard
	}
	if err := json.Unmarshal([]byte(limits), &r.Limits); err != nil {
		s.t.Fatal(err)
	}
	b, err := s.client.Set(s.t.Context(), r)
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

func (s *system) mustVerify() {
	s.t.Helper()
	testenv.Eventually(s.t, "verify is answered, and finds no differences", func() bool {
		v, err := s.ops.Verify(s.t.Context(), nil)
		return err == nil && v.OK
	})
}

// What a caller sees of limits: who is refused, by which limit, for which value, and what is
// left; with what is granted instead, and how it ends.
func TestLimitsOnTheWire(t *testing.T) {
	t.Parallel()
	s := start(t, options{gates: 2})
	s.setLimits("p1", 100_000, `[
		{"name":"each-user","per":"user_id","window":"total","soft":800,"hard":1000},
		{"name":"frontier","match":{"model":"gpt-5*"},"window":"total","unit":"weighted","weights":{"output":4,"cache_read":0.1},"hard":5000},
		{"name":"calls","match":{"feature":"chat"},"window":"total","unit":"requests","hard":2}]`)
	testenv.Eventually(t, "both gates have heard of the limits", func() bool {
		for range 6 {
			if v, err := s.client.Check(t.Context(), events.CheckRequest{PortID: "p1"}); err != nil || !v.Enabled {
				return false
			}
		}
		return true
	})
	for range 6 { // both gates
		if v, err := s.client.Check(t.Context(), events.CheckRequest{PortID: "p1", UserID: "anna", EstimatedTokens: 1001}); err != nil || v.Allowed || v.Limit != "each-user" || v.LimitValue != "anna" ||
			v.Reason != events.ReasonEstimateExceedsHardCap || *v.RemainingTokens != 1000 || !v.ResetsAt.IsZero() || v.Period != budget.Total {
			t.Fatalf("a check past anna's limit: %+v, %v", v, err)
		}
	}
	anna := s.reserve(events.ReserveRequest{PortID: "p1", Feature: "ocr", UserID: "anna", EstimatedTokens: 900})
	if !anna.Allowed || anna.Limit != "each-user" || !anna.SoftCapWarning || anna.HeldTokens != 900 || *anna.RemainingTokens != 100 {
		t.Fatalf("anna: %+v", anna.Verdict)
	}
	if r := s.reserve(events.ReserveRequest{PortID: "p1", UserID: "anna", EstimatedTokens: 101, Explain: true}); r.Allowed || r.Limit != "each-user" || len(r.Verdict.Limits) != 2 || r.Verdict.Limits[0].Limit != "port" || !r.Verdict.Limits[0].Allowed {
		t.Errorf("anna, 101 more: %+v", r.Verdict)
	}
	less := s.reserve(events.ReserveRequest{PortID: "p1", UserID: "anna", EstimatedTokens: 500, AcceptLess: true})
	if !less.Allowed || less.GrantedTokens != 100 || *less.RemainingTokens != 0 {
		t.Errorf("anna, what is left: %+v", less.Verdict)
	}
	if ben := s.reserve(events.ReserveRequest{PortID: "p1", UserID: "ben", EstimatedTokens: 700}); !ben.Allowed || ben.HeldTokens != 700 {
		t.Errorf("ben: %+v", ben.Verdict)
	}
	if nobody := s.reserve(events.ReserveRequest{PortID: "p1", EstimatedTokens: 50_000}); nobody.Allowed || nobody.Limit != "each-user" || nobody.LimitValue != "" {
		t.Errorf("calls without a user share a count: %+v", nobody.Verdict)
	}
	if err := less.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	anna.Settle(events.Usage{Provider: "openai", Model: "other", InputTokens: 300})
	testenv.Eventually(t, "what anna really used counts", func() bool {
		v, err := s.client.Check(t.Context(), events.CheckRequest{PortID: "p1", UserID: "anna", EstimatedTokens: 700})
		return err == nil && v.Allowed && v.UsedTokens == 300 && v.HeldTokens == 0
	})

	// 500 + 4 * 1,000 = 4,500 of 5,000: a prefix of the model, and weights for the parts.
	model := s.reserve(events.ReserveRequest{PortID: "p1", Feature: "ocr", UserID: "m", Model: "gpt-5-mini", EstimatedInputTokens: 500, EstimatedOutputTokens: 400})
	if !model.Allowed || model.Limit != "each-user" || model.GrantedTokens != 900 {
		t.Errorf("a frontier model: %+v", model.Verdict)
	}
	if r := s.reserve(events.ReserveRequest{PortID: "p1", UserID: "n", Model: "gpt-5", EstimatedTokens: 1000, EstimatedInputTokens: 0, EstimatedOutputTokens: 1000}); r.Allowed || r.Limit != "frontier" || r.Unit != budget.Weighted || *r.RemainingTokens != 5000-2100 {
		t.Errorf("another one: %+v", r.Verdict)
	}
	if r := s.reserve(events.ReserveRequest{PortID: "p1", UserID: "n", Model: "gpt-4", EstimatedOutputTokens: 1000}); !r.Allowed {
		t.Errorf("a model of another kind: %+v", r.Verdict)
	}
	model.Settle(events.Usage{Provider: "openai", Model: "gpt-5-mini", InputTokens: 500, OutputTokens: 100, Details: events.Details{CacheReadInputTokens: 400}})
	testenv.Eventually(t, "weights are of what was used", func() bool { // 100 + 40 + 400
		v, err := s.client.Check(t.Context(), events.CheckRequest{PortID: "p1", UserID: "x", Model: "gpt-5", EstimatedTokens: 1, Explain: true})
		return err == nil && len(v.Limits) == 3 && v.Limits[2].UsedTokens == 540 && v.Limits[2].HeldTokens == 0
	})

	for n, want := range []bool{true, true, false} {
		if r := s.reserve(events.ReserveRequest{PortID: "p1", Feature: "chat", UserID: fmt.Sprint("c", n), EstimatedTokens: 1}); r.Allowed != want || !want && (r.Limit != "calls" || r.Reason != events.ReasonHardCapReached) {
			t.Errorf("call %d: %+v", n, r.Verdict)
		}
	}
	s.mustVerify()

	_, err := s.client.Set(t.Context(), events.SetRequest{PortID: "p1", Enabled: true, Limits: []events.Limit{{Name: "x", Window: "year", Hard: new(int64(1))}}})
	if err == nil || !strings.Contains(err.Error(), "limits[0] (x).window") {
		t.Errorf("a window that there is not: %v", err)
	}
}

// A limit that comes while calls are under way, some of them from leases, counts these: what
// they use later fits under it.
func TestALimitThatIsAddedCountsCallsUnderWay(t *testing.T) {
	t.Parallel()
	s := start(t, options{gates: 2})
	s.setBudget("p1", -1, 1_000_000, events.PeriodMonth)
	var under []*events.Reservation
	leased := false
	for i := 0; i < 200 || !leased && i < 5000; i++ { // enough for leases
		r := s.reserve(events.ReserveRequest{PortID: "p1", Feature: "ocr", UserID: "anna", EstimatedTokens: 10})
		if !r.Allowed {
			t.Fatalf("%+v", r.Verdict)
		}
		_, fromLease := sliceOf(r.ReservationID)
		leased = leased || fromLease
		under = append(under, r)
	}
	if !leased {
		t.Fatal("no hold is from a lease")
	}
	s.setLimits("p1", 1_000_000, fmt.Sprintf(`[{"name":"user","per":"user_id","window":"total","hard":%d},{"name":"ocr","match":{"feature":"ocr"},"window":"total","unit":"requests","hard":%d}]`, 10*len(under), len(under)))
	if r := s.reserve(events.ReserveRequest{PortID: "p1", UserID: "anna", EstimatedTokens: 1}); r.Allowed || r.Limit != "user" {
		t.Errorf("one token more for anna: %+v", r.Verdict)
	}
	if r := s.reserve(events.ReserveRequest{PortID: "p1", Feature: "ocr", UserID: "ben"}); r.Allowed {
		t.Errorf("one call more of ocr: %+v", r.Verdict)
	}
	for _, r := range under[1:] {
		r.Settle(events.Usage{Provider: "p", Model: "m", InputTokens: 10})
	}
	if err := under[0].Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "what is left is what one call was", func() bool {
		v, err := s.client.Check(t.Context(), events.CheckRequest{PortID: "p1", Feature: "ocr", UserID: "anna", EstimatedTokens: 10, Explain: true})
		return err == nil && v.Allowed && len(v.Limits) == 3 && v.Limits[1].UsedTokens == int64(10*len(under)-10) && v.Limits[2].UsedTokens == int64(len(under)-1)
	})
	if r := s.reserve(events.ReserveRequest{PortID: "p1", Feature: "ocr", UserID: "anna", EstimatedTokens: 10}); !r.Allowed {
		t.Errorf("the last call: %+v", r.Verdict)
	}
	s.mustVerify()
}

// A gate that starts knows what limits count and what calls under way hold in them, before it
// answers its first check.
func TestAGateThatStartsKnowsLimits(t *testing.T) {
	t.Parallel()
	s := start(t, options{gates: -1})
	runGate := func() (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		g := testenv.Must(gate.New(gate.Config{Conn: testenv.Connect(t, s.nats), Ledger: s.ledger}))
		ended := make(chan error, 1)
		go func() { ended <- g.Run(ctx) }()
		testenv.Await(t, "the gate is ready", g.Ready())
		return func() { cancel(); testenv.Must(0, testenv.Await(t, "the gate ends", ended)) }
	}
	stop := runGate()
	s.setLimits("p1", -1, `[{"name":"user","per":"user_id","window":"total","hard":1000},{"name":"calls","window":"total","unit":"requests","hard":10}]`)
	hold := s.reserve(events.ReserveRequest{PortID: "p1", Feature: "ocr", UserID: "anna", EstimatedTokens: 300})
	spent := s.reserve(events.ReserveRequest{PortID: "p1", Feature: "ocr", UserID: "anna", EstimatedTokens: 500})
	if !hold.Allowed || !spent.Allowed {
		t.Fatalf("%+v, %+v", hold.Verdict, spent.Verdict)
	}
	spent.Settle(events.Usage{Provider: "p", Model: "m", InputTokens: 400})
	testenv.Eventually(t, "the call is booked", func() bool { return s.rows() == 1 })
	stop()
	defer runGate()()
	v, err := s.client.Check(t.Context(), events.CheckRequest{PortID: "p1", UserID: "anna", EstimatedTokens: 1, Explain: true})
	if err != nil || len(v.Limits) != 3 || v.Limits[1].UsedTokens != 400 || v.Limits[1].HeldTokens != 300 || v.Limits[2].UsedTokens != 1 || v.Limits[2].HeldTokens != 1 {
		t.Errorf("the first answer: %+v, %v", v, err)
	}
}

// Many callers on three gates, caps of 100 users of a port (of 200 in `make chaos`) and one of the port: none is
// passed, and what is asked for is granted as far as they go.
func TestLimitsUnderConcurrency(t *testing.T) {
	t.Parallel()
	const userCap, asks = 100, 7
	users := envInt(t, "CAP_USERS", 100)
	portCap := int64(users * userCap * 3 / 4)
	s := start(t, options{gates: 3})
	s.setLimits("p1", portCap, fmt.Sprintf(`[{"name":"user","per":"user_id","window":"total","hard":%d}]`, userCap))
	callers := envInt(t, "CAP_CALLERS", 100)
	granted := make([]atomic.Int64, users)
	var group sync.WaitGroup
	for c := range callers {
		group.Go(func() {
			for u := c; u < c+users; u++ {
				user := u % users
				for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); {
					r, err := s.client.Reserve(t.Context(), events.ReserveRequest{PortID: "p1", Feature: "ocr", UserID: fmt.Sprint("u", user), EstimatedTokens: asks, AcceptLess: true})
					if err != nil {
						continue // it may be held: then nobody uses it
					}
					if !r.Allowed {
						break
					}
					granted[user].Add(r.GrantedTokens)
					r.Settle(events.Usage{Provider: "p", Model: "m", InputTokens: r.GrantedTokens})
				}
				if user%10 == 9 && c > 0 {
					return // a caller asks for some of the users only
				}
			}
		})
	}
	group.Wait()
	var sum int64
	for u := range users {
		n := granted[u].Load()
		sum += n
		if n > userCap {
			t.Errorf("user %d was granted %d of %d", u, n, userCap)
		}
	}
	if sum > portCap || sum < portCap*99/100 {
		t.Errorf("%d of %d are granted", sum, portCap)
	}
	testenv.Eventually(t, "all is booked", func() bool { return s.check("p1", 0).UsedTokens >= sum })
	var most int64
	if err := s.db.QueryRow(t.Context(), "select max(used) from ai_limit_counters").Scan(&most); err != nil || most > userCap {
		t.Errorf("a user used %d of %d, %v", most, userCap, err)
	}
	s.mustVerify()
}
