package ledger_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/consumer/arrival"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

// partitions lists each partition with its bounds, in UTC whatever the session says.
func (s store) partitions(t testing.TB) []string {
	t.Helper()
	var all []string
	err := pgx.BeginFunc(t.Context(), s.db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "set local timezone = 'UTC'"); err != nil {
			return err
		}
		rows, err := tx.Query(t.Context(), `select relname || ' ' || pg_get_expr(relpartbound, oid) from pg_class
			where oid in (select inhrelid from pg_inherits where inhparent = 'ai_usage_ledger'::regclass) order by relname`)
		if err != nil {
			return err
		}
		all, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func partition(name, from, to string) string {
	return "ai_usage_ledger_" + name + " FOR VALUES FROM ('" + from + " 00:00:00+00') TO ('" + to + " 00:00:00+00')"
}

// Everything that speaks of days and months, in a database whose time zone is a
// day away from UTC at the far end of the earth.
func TestMonthsAndDaysAreUTC(t *testing.T) {
	t.Parallel()
	for _, zone := range []string{"Pacific/Kiritimati", "Pacific/Pago_Pago", "Asia/Kathmandu"} { // +14, -11, +5:45
		t.Run(zone, func(t *testing.T) {
			t.Parallel()
			url := testenv.Database(t)
			alterDatabase(t, url, "timezone = '"+zone+"'")
			s := openStore(t, url)
			if got := one[string](t, s.db, "show timezone"); got != zone {
				t.Fatalf("the session's time zone is %s", got)
			}
			turn := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
			before, after := call("p1", turn.Add(-time.Millisecond)), call("p1", turn)
			feb29 := call("p1", time.Date(2024, 2, 29, 23, 59, 59, 999e6, time.UTC))
			got := s.book(t, after, before, feb29)
			wantFates(t, got, "booked", "booked", "booked")
			want := []string{
				partition("2024_02", "2024-02-01", "2024-03-01"),
				partition("2026_11", "2026-11-01", "2026-12-01"),
				partition("2026_12", "2026-12-01", "2027-01-01"),
			}
			if diff := cmp.Diff(want, s.partitions(t)); diff != "" {
				t.Errorf("partitions (-want +got):\n%s", diff)
			}
			s.wantRows(t, before, after, feb29)
			days := map[string]int64{}
			for _, d := range got.Days {
				days[d.Day.Time().Format(time.DateOnly)] = d.Requests
			}
			if diff := cmp.Diff(map[string]int64{"2024-02-29": 1, "2026-11-30": 1, "2026-12-01": 1}, days); diff != "" {
				t.Errorf("days (-want +got):\n%s", diff)
			}
			for _, table := range []string{"2026_11", "2026_12"} {
				if n := one[int](t, s.db, "select count(*)::int from ai_usage_ledger_"+table); n != 1 {
					t.Errorf("partition %s holds %d rows, want 1", table, n)
				}
			}
			// One millisecond is the ledger's resolution: on either side of the turn.
			s.wantUsed(t, "p1", events.PeriodMonth, turn.Add(-time.Nanosecond), 110)
			s.wantUsed(t, "p1", events.PeriodMonth, turn, 110)
			s.wantUsed(t, "p1", events.PeriodDay, turn.Add(-time.Nanosecond), 110)
			s.wantUsed(t, "p1", events.PeriodDay, turn, 110)
			s.wantUsed(t, "p1", events.PeriodWeek, turn, 220) // Monday the 30th to Sunday
			for now, day := range map[time.Time]string{turn.Add(-time.Nanosecond): "2026-11-30", turn: "2026-12-01"} {
				for by, key := range map[events.Dimension]string{events.ByDay: day, events.ByUser: "u1", events.ByFeature: "ocr"} {
					r, err := s.Report(t.Context(), events.ReportRequest{PortID: "p1", By: by}, now)
					if err != nil {
						t.Fatal(err)
					}
					if len(r.By) != 1 || r.By[0] != share(key, 1, 100, 10) {
						t.Errorf("the report by %s at %s says %+v, want %s alone", by, now, r.By, key)
					}
				}
				ports, err := s.Ports(t.Context(), ledger.PortQuery{Limit: 9}, now)
				if err != nil {
					t.Fatal(err)
				}
				if len(ports) != 1 || ports[0].UsedTokens != 110 || ports[0].Requests != 3 {
					t.Errorf("the list of ports at %s says %+v", now, ports)
				}
			}
			s.wantVerified(t)
			wantFates(t, s.book(t, after, before, feb29), "duplicate", "duplicate", "duplicate")
		})
	}
}

func TestMaintainCreatesMonthsAhead(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	for range 2 { // idempotent
		if err := s.Maintain(t.Context(), time.Date(2026, 12, 31, 23, 59, 59, 0, time.UTC)); err != nil {
			t.Fatal(err)
		}
		want := []string{
			partition("2026_12", "2026-12-01", "2027-01-01"),
			partition("2027_01", "2027-01-01", "2027-02-01"),
			partition("2027_02", "2027-02-01", "2027-03-01"),
		}
		if diff := cmp.Diff(want, s.partitions(t)); diff != "" {
			t.Errorf("partitions (-want +got):\n%s", diff)
		}
	}
	// They are whole partitions: with the primary key and the index of their parent.
	indexes := query[struct{ Def string }](t, s.db, "select indexdef from pg_indexes where tablename = 'ai_usage_ledger_2027_01' order by 1")
	if len(indexes) != 2 {
		t.Errorf("a new month has the indexes %v, want 2", indexes)
	}
}

// Processes meet at a month that none of them has seen.
func TestLedgersCreatePartitionsAtOnce(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	var all []ledger.Entry
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range 6 {
		l := open(t, s.url)
		var mine []ledger.Entry
		for m := range 5 {
			mine = append(mine, call("p1", noon.AddDate(0, -((m+i)%5), 0)))
		}
		all = append(all, mine...)
		wg.Go(func() {
			<-start
			if err := l.Maintain(t.Context(), noon); err != nil {
				t.Errorf("Maintain: %v", err)
			}
			if _, err := l.Book(t.Context(), mine); err != nil {
				t.Errorf("Book: %v", err)
			}
		})
	}
	close(start)
	wg.Wait()
	if got := s.partitions(t); len(got) != 7 {
		t.Errorf("partitions %v, want the five booked months and two ahead", got)
	}
	s.wantRows(t, all...)
}

func TestRetention(t *testing.T) {
	t.Parallel()
	threeMonths := func(c *ledger.Config) { c.RetentionMonths = 3 }
	s := newStore(t, threeMonths)
	other := open(t, s.url, threeMonths)
	oldest := time.Date(2026, 8, 1, 0, 0, 0, 0, time.UTC)
	if got := s.Oldest(noon); !got.Equal(oldest) {
		t.Fatalf("oldest %s, want %s", got, oldest)
	}
	atEdge, tooOld := call("p1", oldest), call("p1", oldest.Add(-time.Millisecond))
	for _, e := range []struct {
		entry ledger.Entry
		want  events.Reason
	}{{atEdge, ""}, {tooOld, events.ReasonTimeTooOld}} {
		_, _, err := arrival.Identify(e.entry.Usage, arrival.Arrival{Sequence: 1, Time: noon}, s.Oldest(noon))
		var refused *events.FieldError
		if errors.As(err, &refused) != (e.want != "") || refused != nil && refused.Reason != e.want {
			t.Errorf("an event of %s: %v, want %q", e.entry.At, err, e.want)
		}
	}
	// It was booked when it was young enough.
	now := call("p1", noon)
	s.book(t, now, atEdge, tooOld)
	if _, err := other.Book(t.Context(), []ledger.Entry{now, tooOld}); err != nil {
		t.Fatal(err)
	}
	if err := s.Maintain(t.Context(), noon); err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, r := range s.rows(t) {
		left = append(left, r.ID)
	}
	want := []string{now.ID.String(), atEdge.ID.String()}
	slices.Sort(left)
	slices.Sort(want)
	if !slices.Equal(left, want) {
		t.Errorf("rows %v are left, want %v", left, want)
	}
	s.wantVerified(t)
	s.wantUsed(t, "p1", events.PeriodMonth, tooOld.At, 110) // totals stay

	// The other process believes that July is still there, and finds out: whether the event
	// was booked once cannot be told any more, so it is not booked twice.
	for _, l := range []*ledger.Ledger{other, open(t, s.url)} { // the second one keeps seven years
		if b, err := l.Book(t.Context(), []ledger.Entry{tooOld, call("p1", noon)}); err != nil {
			t.Errorf("booking into a month that another process dropped: %v", err)
		} else {
			wantFates(t, b, "time_too_old", "booked")
		}
		if got := l.Oldest(noon); !got.Equal(oldest) {
			t.Errorf("the oldest is now %s, want %s", got, oldest)
		}
		s.wantVerified(t)
	}
	s.wantUsed(t, "p1", events.PeriodMonth, tooOld.At, 110) // and not 120
}

func TestRetentionHasALowestValue(t *testing.T) {
	t.Parallel()
	url := testenv.Database(t)
	for _, months := range []int{1, -1} {
		if l, err := ledger.Open(t.Context(), ledger.Config{URL: url, RetentionMonths: months}); err == nil {
			l.Close()
			t.Errorf("a retention of %d months was accepted", months)
		}
	}
	s := newStore(t)
	if got, want := s.Oldest(noon), time.Date(2019, 11, 1, 0, 0, 0, 0, time.UTC); !got.Equal(want) {
		t.Errorf("by default the oldest is %s, want %s", got, want)
	}
}

// Somebody reads the ledger for hours (a backup). Dropping a month has to wait for
// that, and bookings must not wait with it.
func TestDroppingAMonthDoesNotStopBookings(t *testing.T) {
	t.Parallel()
	s := newStore(t, func(c *ledger.Config) { c.RetentionMonths = 3 })
	old := call("p1", noon.AddDate(0, -6, 0))
	s.book(t, old, call("p1", noon))
	err := s.inTx(t, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "select count(*) from ai_usage_ledger"); err != nil {
			return err
		}
		done := make(chan error, 1)
		go func() { done <- s.Maintain(t.Context(), noon) }()
		s.awaitLockWait(t, 1)
		began := time.Now()
		s.book(t, call("p1", noon))
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("a booking waited %s", took)
		}
		return <-done
	})
	if err != nil {
		t.Fatalf("Maintain while the ledger is read: %v", err)
	}
	if n := one[int](t, s.db, "select count(*)::int from ai_usage_ledger"); n != 3 {
		t.Errorf("%d rows, want all 3: the month could not be dropped", n)
	}
	if err := s.Maintain(t.Context(), noon); err != nil {
		t.Fatal(err)
	}
	if n := one[int](t, s.db, "select count(*)::int from ai_usage_ledger"); n != 2 {
		t.Errorf("%d rows, want 2: nobody reads any more", n)
	}
}
