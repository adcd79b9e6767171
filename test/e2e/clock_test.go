package e2e

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/gate"
	"github.com/tidegate/tidegate/internal/testenv"
)

// Two gates, on machines whose clocks are 3 s ahead and 3 s behind, are asked while a day
// ends by the database's clock. Whichever answers, and whether Postgres, a lease or memory
// decides, the answer is about the period that it is by the database's clock.
func TestGatesWithWrongClocksAgreeAtMidnight(t *testing.T) {
	t.Parallel()
	midnight := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	const before, after = 700 * time.Millisecond, 500 * time.Millisecond
	s := start(t, options{gates: -1, at: midnight.Add(-before)})
	for _, wrong := range []time.Duration{-3 * time.Second, 3 * time.Second} {
		g := testenv.Must(gate.New(gate.Config{Conn: testenv.Connect(t, s.nats), Ledger: s.ledger, MaxStale: -1, LeaseFrom: 1,
			Now: func() time.Time { return s.now().Add(wrong) }}))
		s.background(g.Run)
		testenv.Await(t, "the gate is ready", g.Ready())
	}
	s.setBudget("p1", -1, 1_000_000, events.PeriodDay)
	s.clock.Start(midnight.Add(-before))

	var mu sync.Mutex
	days := map[string]int{}             // who answered for which day
	holds := map[uuid.UUID][]time.Time{} // of a slice, or a hold by itself: the periods answered
	ask := func(who string, question func() (events.Verdict, error)) {
		// Between the clocks as a gate reckons them and as they are there is a round trip.
		const slack = 25 * time.Millisecond
		from := s.now().Add(-slack)
		v, err := question()
		to := s.now().Add(slack)
		if err != nil || !v.Allowed {
			t.Errorf("%s: %+v, %v", who, v, err)
			return
		}
		first, _ := events.PeriodDay.Bounds(from)
		last, _ := events.PeriodDay.Bounds(to)
		if v.PeriodStart.Before(first) || v.PeriodStart.After(last) {
			t.Errorf("%s, asked %s after midnight: an answer about the day that began %s after it", who, from.Add(slack).Sub(midnight), v.PeriodStart.Sub(midnight))
		}
		mu.Lock()
		defer mu.Unlock()
		id, sliced := sliceOf(v.ReservationID)
		switch {
		case sliced:
			who = "lease"
		case v.ReservationID != "":
			id = uuid.MustParse(v.ReservationID)
		}
		days[fmt.Sprintf("%s %s", who, v.PeriodStart.Format(time.DateOnly))]++
		if v.ReservationID != "" {
			holds[id] = append(holds[id], v.PeriodStart)
		}
	}
	var group sync.WaitGroup
	for caller := range 3 {
		group.Go(func() {
			for i := 0; s.now().Before(midnight.Add(after)) && !t.Failed(); i++ {
				ask("check", func() (events.Verdict, error) {
					return s.client.Check(t.Context(), events.CheckRequest{PortID: "p1", EstimatedTokens: 1})
				})
				q := events.ReserveRequest{PortID: "p1", EstimatedTokens: 1, TTLSeconds: 8}
				if i%4 == 0 {
					q.IdempotencyKey = fmt.Sprint(caller, " ", i) // Postgres's to decide
				}
				ask("reserve", func() (events.Verdict, error) {
					r, err := s.client.Reserve(t.Context(), q)
					return r.Verdict, err
				})
			}
		})
	}
	group.Wait()
	for _, who := range []string{"check", "lease", "reserve"} {
		for _, day := range []string{"2026-11-30", "2026-12-01"} {
			if days[who+" "+day] == 0 {
				t.Errorf("no %s was answered for %s: %v", who, day, days)
			}
		}
	}
	// What was answered is where the hold counts, to the microsecond.
	rows := testenv.Must(s.db.Query(t.Context(), `select id, date_trunc('day', created_at, 'UTC') from ai_budget_holds
		union all select id, date_trunc('day', created_at, 'UTC') from ai_budget_slices`))
	var id uuid.UUID
	var day time.Time
	testenv.Must(pgx.ForEachRow(rows, []any{&id, &day}, func() error {
		for _, told := range holds[id] {
			if !told.Equal(day) {
				t.Errorf("a hold of %s was answered to be of %s", day, told)
			}
		}
		return nil
	}))
	t.Logf("answers: %v", days)
}
