package ledger_test

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/reservation"
	"github.com/tidegate/tidegate/ledger"
)

// What a port used and holds may add up to more than 64 bits hold. It is then the largest
// number that they do, and nothing fails for it that other ports need too.
func TestSumsBeyond64BitsFailNobody(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	const most = math.MaxInt64
	now := time.Now()
	s.capped(t, "p1", 1000)
	s.capped(t, "huge", 1000)
	// On one day no total can grow beyond 64 bits: what would make it is refused.
	for _, feature := range []string{"a", "b"} {
		for _, at := range []time.Time{now, now.AddDate(0, 0, -1)} {
			exec(t, s.db, `insert into ai_usage_totals (port_id, day, feature, provider, model, requests, input_tokens, output_tokens, total_tokens,
				cache_read_input_tokens, cache_write_input_tokens, reasoning_output_tokens) values ('huge', $1, $2, 'x', 'y', 1, $3, 0, $3, 0, 0, 0)`, at.UTC(), feature, int64(most))
		}
	}
	for _, at := range []time.Time{now, now.AddDate(0, 0, -1)} {
		exec(t, s.db, "insert into ai_usage_port_days (port_id, day, requests, total_tokens) values ('huge', $1, 2, $2)", at.UTC(), int64(most))
	}
	wantFates(t, s.book(t, call("p1", now, func(u *events.Usage) { u.InputTokens, u.OutputTokens, u.Details = 40, 0, events.Details{} })), "booked")
	exec(t, s.db, `insert into ai_budget_holds (id, port_id, tokens, created_at, expires_at)
		select gen_random_uuid(), 'huge', 1::bigint << 62, now(), now() + interval '1 hour' from generate_series(1, 4)`)

	held := s.reserve(t, []events.ReserveRequest{{PortID: "huge", EstimatedTokens: 5}, {PortID: "p1", EstimatedTokens: 5}})
	if v := held.Verdicts[0]; v.Allowed || v.Reason != events.ReasonHardCapReached || v.UsedTokens != most || v.HeldTokens != most {
		t.Errorf("the huge port is answered %+v", v)
	}
	if v := held.Verdicts[1]; !v.Allowed || v.UsedTokens != 40 || v.HeldTokens != 5 {
		t.Errorf("its neighbour is answered %+v", v)
	}
	standings, _, err := s.Reservations.Standings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int64{}
	for _, st := range standings {
		found[st.PortID] = st.Held
	}
	if found["huge"] != most || found["p1"] != 5 {
		t.Errorf("standings %v", found)
	}

	day := now.UTC().Truncate(24 * time.Hour)
	yesterday, tomorrow := day.AddDate(0, 0, -1), day.AddDate(0, 0, 1)
	want := func(what string, got, want int64, err error) {
		t.Helper()
		if err != nil || got != want {
			t.Errorf("%s: %d, %v; want %d", what, got, err, want)
		}
	}
	spend, err := s.Spend(t.Context(), "huge", yesterday, tomorrow)
	want("spend: used", spend.UsedTokens, most, err)
	want("spend: held", spend.HeldTokens, most, err)
	for _, by := range []events.Dimension{events.ByFeature, events.ByModel, events.ByDay} {
		page, err := s.Shares(t.Context(), events.ReportRequest{PortID: "huge", By: by}, yesterday, tomorrow)
		want("usage by "+string(by), page.UsedTokens, most, err)
	}
	if ports, err := s.Ports(t.Context(), ledger.PortQuery{Limit: 10}, now); err != nil || len(ports) != 2 {
		t.Errorf("ports: %+v, %v", ports, err)
	}
	used := map[int64]int{}
	err = s.UsedByPorts(t.Context(), yesterday, tomorrow, 1, func(ports []ledger.PortTokens) error {
		used[ports[0].Tokens] += len(ports)
		return nil
	})
	if err != nil || len(used) != 2 || used[most] != 1 || used[40] != 1 {
		t.Errorf("used by ports: %v, %v", used, err)
	}
	live, err := s.LiveHolds(t.Context(), "huge", nil, 10)
	if err != nil || len(live) != 1 || live[0].Tokens != most {
		t.Errorf("live holds: %+v, %v", live, err)
	}
	if v, err := s.Verify(t.Context(), now, nil); err != nil || len(v.Differences) == 0 {
		t.Errorf("verify: %+v, %v; want it to tell of the totals that no row explains", v, err)
	}
	exec(t, s.db, "update ai_budget_holds set created_at = now() - interval '3 hours', expires_at = now() - interval '2 hours'")
	if swept, err := s.SweepHolds(t.Context()); err != nil || len(swept) != 2 {
		t.Errorf("swept %+v, %v", swept, err)
	}
	unsettled, err := s.UnsettledHolds(t.Context(), "huge", ledger.UnsettledGroup{}, 10)
	if err != nil || len(unsettled) != 1 || unsettled[0].Tokens != most {
		t.Errorf("unsettled %+v, %v", unsettled, err)
	}
}

// Rows of the ledger may add up to more than 64 bits hold as well: each day's do not.
func TestLedgerRowsBeyond64Bits(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	now := time.Now()
	s.set(t, "huge", events.Budget{Enabled: true, Period: events.PeriodMonth, Limits: []budget.Limit{{Name: "all", Window: budget.Total, Hard: new(int64(1000))}}}, nil)
	for _, at := range []time.Time{now, now.AddDate(0, 0, -1), now.AddDate(0, 0, -2)} {
		wantFates(t, s.book(t, call("huge", at, func(u *events.Usage) { u.InputTokens, u.OutputTokens, u.Details = 1<<62, 0, events.Details{} })), "booked")
	}
	for _, by := range []events.Dimension{events.ByFeature, events.ByUser, events.ByRun} {
		page, err := s.Shares(t.Context(), events.ReportRequest{PortID: "huge", By: by}, now.AddDate(0, 0, -3), now.AddDate(0, 0, 1))
		if err != nil || page.UsedTokens != math.MaxInt64 {
			t.Errorf("usage by %s: %+v, %v", by, page, err)
		}
	}
	if used := one[int64](t, s.db, "select used from ai_limit_counters where port_id = 'huge'"); used != math.MaxInt64 {
		t.Errorf("the limit's counter has %d", used)
	}
	if v, err := s.Verify(t.Context(), now, nil); err != nil || len(v.Differences) > 0 || v.Rows != 3 || v.InputTokens != math.MaxInt64 {
		t.Errorf("verify: %+v, %v", v, err)
	}
}

// A port has only so many holds at once, those of nothing too, and only so many tokens in them.
func TestAPortHasOnlySoManyHolds(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.capped(t, "p1", 1000)
	exec(t, s.db, "insert into ports (id) values ('many'), ('much')")
	exec(t, s.db, `insert into ai_budget_holds (id, port_id, tokens, created_at, expires_at)
		select gen_random_uuid(), 'many', 0, now() - interval '2 months', now() + interval '1 hour' from generate_series(1, $1)`, reservation.MaxHolds-1)
	much := int64(reservation.MaxHeldTokens - 10)
	requests := []events.ReserveRequest{{PortID: "many"}, {PortID: "many"}, {PortID: "p1", EstimatedTokens: 5},
		{PortID: "much", EstimatedTokens: much}, {PortID: "much", EstimatedTokens: 11}, {PortID: "much", EstimatedTokens: 10}}
	held := s.reserve(t, requests)
	for i, tooMany := range []bool{false, true, false, false, true, false} {
		if errors.Is(held.Faults[i], reservation.ErrTooManyHolds) != tooMany || !tooMany && (held.Faults[i] != nil || !held.Verdicts[i].Allowed) || tooMany && held.Verdicts[i].ReservationID != "" {
			t.Errorf("request %d: %v, %+v; want too many: %v", i, held.Faults[i], held.Verdicts[i], tooMany)
		}
	}
	if !s.release(t, "many", held.Verdicts[0].ReservationID)[0] {
		t.Fatal("the last hold cannot be released")
	}
	if again := s.reserve(t, requests[:1]); again.Faults[0] != nil || !again.Verdicts[0].Allowed {
		t.Errorf("once one has ended: %v, %+v", again.Faults[0], again.Verdicts[0])
	}
}
