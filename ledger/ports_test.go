package ledger_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

func TestDeletePortTakesEverythingButTheAuditLog(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	keep := call("p2", noon)
	s.book(t, call("p1", noon), call("p1", noon.AddDate(0, -4, 0)), call("p1", noon, func(u *events.Usage) { u.Feature = "summary" }), keep)
	hard := int64(1000)
	if _, err := s.SetBudget(t.Context(), "p1", events.Budget{Enabled: true, HardCapTokens: &hard, Period: events.PeriodDay}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ClaimAlerts(t.Context(), []ledger.Alert{{PortID: "p1", Period: events.PeriodDay, PeriodStart: noon, Threshold: "hard"}}); err != nil {
		t.Fatal(err)
	}
	rows, err := s.DeletePort(t.Context(), "p1", "ops")
	if err != nil || rows != 3 {
		t.Fatalf("DeletePort: %d rows, %v, want 3", rows, err)
	}
	s.wantRows(t, keep)
	for _, table := range []string{"system_settings", "ai_alerts", "ai_usage_totals", "ai_usage_port_days"} {
		if n := one[int](t, s.db, "select count(*)::int from "+table+" where port_id = 'p1'"); n != 0 {
			t.Errorf("%s has %d rows of the deleted port", table, n)
		}
	}
	log, err := s.Audit(t.Context(), "p1", 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	if len(log) != 2 || log[0].Key != "port.deleted" || log[0].ChangedBy != "ops" || log[0].NewValue != nil || log[0].Version != 1 ||
		string(log[0].OldValue) != string(log[1].NewValue) {
		t.Errorf("audit log %+v", log)
	}
	if _, err := s.DeletePort(t.Context(), "p1", "ops"); !errors.Is(err, ledger.ErrUnknownPort) {
		t.Errorf("deleting it again: %v, want ErrUnknownPort", err)
	}
	// Its events that are still under way make it anew.
	wantFates(t, s.book(t, call("p1", noon)), "booked")
}

// Ports go and come while writers book for them, in this process and another.
// Whatever wins, rows and totals agree, no deletion fails, and what was booked
// after the last deletion is all there.
func TestDeletePortAgainstBookings(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	ledgers := []*ledger.Ledger{s.Ledger, open(t, s.url), open(t, s.url)}
	var stop atomic.Bool
	var deleted atomic.Int64
	var writers, deleters sync.WaitGroup
	for w := range 6 {
		writers.Go(func() {
			for !stop.Load() {
				batch := manyCalls(60, 3)
				bookUntilDone(t, ledgers[w%len(ledgers)], batch)
			}
		})
	}
	for d := range 2 {
		deleters.Go(func() {
			for i := 0; deleted.Load() < 40; i++ {
				_, err := ledgers[d].DeletePort(t.Context(), fmt.Sprintf("p%02d", (i+d)%3), "ops")
				if err != nil && !errors.Is(err, ledger.ErrUnknownPort) {
					t.Errorf("DeletePort: %v", err)
				}
				if err == nil {
					deleted.Add(1)
				}
			}
		})
	}
	deleters.Wait()
	stop.Store(true)
	writers.Wait()
	last := manyCalls(60, 3)
	bookUntilDone(t, s.Ledger, last)
	s.wantSums(t)
	s.wantVerified(t)
	ids := map[string]bool{}
	for _, r := range s.rows(t) {
		ids[r.ID] = true
	}
	for _, e := range last {
		if !ids[e.ID.String()] {
			t.Errorf("%s was booked after the last deletion and is gone", e.ID)
		}
	}
}

// bookUntilDone does what a consumer does: an error means try again.
func bookUntilDone(t testing.TB, l *ledger.Ledger, batch []ledger.Entry) {
	t.Helper()
	var err error
	for range 50 {
		if _, err = l.Book(t.Context(), batch); err == nil {
			return
		}
	}
	t.Errorf("Book: 50 times in a row: %v", err)
}

func (s store) wantVerified(t testing.TB) {
	t.Helper()
	v, err := s.Verify(t.Context(), noon, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Differences) != 0 {
		t.Errorf("verify finds %+v", v.Differences)
	}
}

// wantNoDeadlocks looks at what Postgres counted: Book tries again after one, so
// that no caller would notice.
func (s store) wantNoDeadlocks(t testing.TB) {
	t.Helper()
	exec(t, s.db, "select pg_stat_clear_snapshot()")
	if n := one[int](t, s.db, "select deadlocks::int from pg_stat_database where datname = current_database()"); n != 0 {
		t.Errorf("Postgres had to break %d deadlocks", n)
	}
}

func TestPortsArePagedAndCounted(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	// p-week starts on Monday the 23rd, which is noon's day.
	var want []string
	for i := range 12 {
		id := fmt.Sprintf("p%02d", i)
		want = append(want, id)
		s.book(t, call(id, noon), call(id, noon.AddDate(0, 0, -1)), call(id, noon.AddDate(0, 0, -22)), call(id, noon.AddDate(0, -1, -22)))
	}
	for i, period := range []events.Period{events.PeriodDay, events.PeriodWeek, events.PeriodMonth} {
		if _, err := s.SetBudget(t.Context(), want[i], events.Budget{Enabled: true, Period: period, UpdatedBy: "ops"}, nil); err != nil {
			t.Fatal(err)
		}
	}
	exec(t, s.db, "insert into ports (id, name) values ('p99', 'the empty one')")
	want = append(want, "p99")

	var got []ledger.Port
	for after := ""; len(got) < 20; {
		page, err := s.Ports(t.Context(), ledger.PortQuery{After: after, Limit: 5}, noon)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		if len(page) > 5 {
			t.Fatalf("a page of %d ports, at most 5 were wanted", len(page))
		}
		got = append(got, page...)
		after = page[len(page)-1].PortID
	}
	var ids []string
	for _, p := range got {
		ids = append(ids, p.PortID)
	}
	if !slices.Equal(ids, want) {
		t.Fatalf("ports %v, want %v", ids, want)
	}
	// Whoever may see some of them sees those like everybody else.
	named := []string{"p02", "nobody", "p99", "p00", "p11", "p01"}
	some := slices.DeleteFunc(slices.Clone(got), func(p ledger.Port) bool { return !slices.Contains(named, p.PortID) })
	for _, c := range []struct {
		after string
		limit int
		want  []ledger.Port
	}{{"", 500, some}, {"", 2, some[:2]}, {"p01", 2, some[2:4]}, {"p99", 2, nil}} {
		page, err := s.Ports(t.Context(), ledger.PortQuery{IDs: named, After: c.after, Limit: c.limit}, noon)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, page, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%d of those named after %q (-want +got)\n%s", c.limit, c.after, diff)
		}
	}
	for search, want := range map[string][]string{"P1": {"p10", "p11"}, "EMPTY one": {"p99"}, "9": {"p09", "p99"}, "%": nil, "_": nil, "nobody": nil} {
		q := ledger.PortQuery{Search: search, Limit: 9}
		page, err := s.Ports(t.Context(), q, noon)
		total, failed := s.CountPorts(t.Context(), q)
		if err != nil || failed != nil {
			t.Fatal(err, failed)
		}
		var ids []string
		for _, p := range page {
			ids = append(ids, p.PortID)
		}
		if !slices.Equal(ids, want) || total != int64(len(want)) {
			t.Errorf("%q finds %v and counts %d, want %v", search, ids, total, want)
		}
	}
	for i, p := range got[:12] {
		used := int64(330) // this month: noon, the day before, the 1st; no budget counts in months too
		if i < 2 {
			used = 110 // today, or since Monday, which is today
		}
		if p.UsedTokens != used || p.TotalTokens != 440 || p.Requests != 4 {
			t.Errorf("%s: used %d, total %d, requests %d, want %d, 440 and 4", p.PortID, p.UsedTokens, p.TotalTokens, p.Requests, used)
		}
	}
	if b := got[0].Budget; b.Period != events.PeriodDay || b.Version != 1 || b.UpdatedBy != "ops" || !b.Enabled || time.Since(b.UpdatedAt) > time.Minute {
		t.Errorf("the budget of %s is %+v", got[0].PortID, b)
	}
	if diff := cmp.Diff(events.Budget{Period: events.PeriodMonth}, got[5].Budget); diff != "" {
		t.Errorf("a port without a budget has (-want +got)\n%s", diff)
	}
	if p := got[12]; p.Name != "the empty one" || p.UsedTokens != 0 || p.Requests != 0 {
		t.Errorf("the empty port is %+v", p)
	}
}

// A deletion that meets a booking half-way, each wanting what the other has: one
// must give way, and that one tries again.
func TestDeletePortGivesWayToABooking(t *testing.T) {
	t.Parallel()
	url := testenv.Database(t)
	alterDatabase(t, url, "deadlock_timeout = '2s'") // when the deletion looks for a deadlock
	s := openStore(t, url)
	s.book(t, call("p1", noon))
	type result struct {
		rows int64
		err  error
	}
	deletion := make(chan result, 1)
	err := s.inTx(t, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "set local deadlock_timeout = '1min'"); err != nil { // the booking does not
			return err
		}
		if _, err := s.BookTx(t.Context(), tx, []ledger.Entry{call("p1", noon)}); err != nil {
			return err
		}
		go func() {
			rows, err := s.DeletePort(t.Context(), "p1", "ops")
			deletion <- result{rows, err}
		}()
		s.awaitLockWait(t, 1)
		_, err := s.BookTx(t.Context(), tx, []ledger.Entry{call("p1", noon, func(u *events.Usage) { u.Feature = "summary" })})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := <-deletion; got.err != nil || got.rows != 3 {
		t.Errorf("DeletePort: %d rows, %v, want 3: those of the booking that it waited for too", got.rows, got.err)
	}
	s.wantRows(t)
	if n := one[int](t, s.db, "select deadlocks::int from pg_stat_database where datname = current_database()"); n == 0 {
		t.Error("there was no deadlock: this test shows nothing")
	}
}

// alterDatabase changes a setting for all sessions that come.
func alterDatabase(t testing.TB, url, setting string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "alter database "+pgx.Identifier{conn.Config().Database}.Sanitize()+" set "+setting); err != nil {
		t.Fatal(err)
	}
}

// awaitLockWait returns once n sessions of this database wait for a lock.
func (s store) awaitLockWait(t testing.TB, n int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		if one[int](t, s.db, "select count(*)::int from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'") >= n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %d sessions waiting for a lock after 10 s", n)
		}
	}
}
