package ledger_test

import (
	gocmp "cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
	"github.com/tidegate/tidegate/migrations"
)

func TestSnapshot(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	today := ledger.DayOf(noon)
	s.book(t, call("p2", noon), call("p1", noon), call("p1", noon), call("p1", noon.AddDate(0, 0, -1)), call("p3", noon.AddDate(0, 0, -2)))
	budgets := map[string]events.Budget{
		"p2": s.set(t, "p2", events.Budget{Enabled: true, SoftCapTokens: tokens(5), Period: events.PeriodWeek, UpdatedBy: "anna"}, nil),
		"p9": s.set(t, "p9", events.Budget{Period: events.PeriodDay}, nil),
	}
	before := s.clock(t)
	gotBudgets := map[string]events.Budget{}
	var days []ledger.PortDay
	asOf, err := s.Snapshot(t.Context(), today-1, func(ledger.Counter) {},
		func(port string, b events.Budget) { gotBudgets[port] = b },
		func(d []ledger.PortDay) { days = append(days, d...) })
	if err != nil {
		t.Fatal(err)
	}
	if asOf.Before(before) || asOf.After(s.clock(t)) || asOf.Location() != time.UTC {
		t.Errorf("as of %s, taken after %s", asOf, before)
	}
	if diff := cmp.Diff(budgets, gotBudgets); diff != "" {
		t.Errorf("budgets (-want +got):\n%s", diff)
	}
	slices.SortFunc(days, func(a, b ledger.PortDay) int {
		return gocmp.Or(strings.Compare(a.PortID, b.PortID), gocmp.Compare(a.Day, b.Day))
	})
	want := []ledger.PortDay{{PortID: "p1", Day: today - 1, TotalTokens: 110}, {PortID: "p1", Day: today, TotalTokens: 220}, {PortID: "p2", Day: today, TotalTokens: 110}}
	if diff := cmp.Diff(want, days); diff != "" {
		t.Errorf("days (-want +got):\n%s", diff)
	}
}

// Many rows are handed over in several goroutines, each once; a row that cannot be read is an error.
func TestSnapshotOfManyPorts(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.exec(t, `insert into ports (id) select 'port-' || n from generate_series(1, 2500) n`)
	s.exec(t, `insert into system_settings (port_id, key, value, version) select id, 'ai.budget', '{"enabled":true,"hard_cap_tokens":7,"period":"day"}', 1 from ports`)
	s.exec(t, `insert into ai_usage_port_days (port_id, day, requests, total_tokens) select id, date '2026-11-01' + d, 1, 1 from ports, generate_series(0, 1) d`)
	var mu sync.Mutex
	budgets, days := map[string]int{}, map[string]int{}
	read := func() error {
		_, err := s.Snapshot(t.Context(), 0, func(ledger.Counter) {},
			func(port string, b events.Budget) {
				mu.Lock()
				defer mu.Unlock()
				budgets[port] += int(*b.HardCapTokens)
			},
			func(some []ledger.PortDay) {
				mu.Lock()
				defer mu.Unlock()
				for _, d := range some {
					days[d.PortID] += int(d.TotalTokens)
				}
			})
		return err
	}
	if err := read(); err != nil {
		t.Fatal(err)
	}
	for n := range 2500 {
		if port := fmt.Sprintf("port-%d", n+1); budgets[port] != 7 || days[port] != 2 {
			t.Fatalf("%s has a budget of %d and %d tokens", port, budgets[port], days[port])
		}
	}
	s.exec(t, `update system_settings set value = '7' where port_id = 'port-1234'`)
	if err := read(); err == nil || !strings.Contains(err.Error(), "port-1234") {
		t.Errorf("a budget that cannot be read: %v", err)
	}
}

func (s store) exec(t testing.TB, sql string) {
	t.Helper()
	if _, err := s.db.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

// clock is the database's.
func (s store) clock(t testing.TB) time.Time {
	t.Helper()
	return one[time.Time](t, s.db, "select clock_timestamp()")
}

// What commits after a snapshot began is not in it, so it must not claim to be of
// a later time: budgets and days are of one moment, and asOf is not after it.
func TestSnapshotIsOfOneMoment(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.book(t, call("p1", noon))
	s.set(t, "p1", events.Budget{Period: events.PeriodDay}, nil)
	var meanwhile time.Time
	var days []ledger.PortDay
	asOf, err := s.Snapshot(t.Context(), 0, func(ledger.Counter) {},
		func(string, events.Budget) { // the snapshot has begun and has not read the totals
			meanwhile = s.clock(t)
			s.book(t, call("p1", noon), call("p2", noon))
		},
		func(d []ledger.PortDay) { days = append(days, d...) })
	if err != nil {
		t.Fatal(err)
	}
	if asOf.After(meanwhile) {
		t.Errorf("as of %s, but what was booked from %s on is missing", asOf, meanwhile)
	}
	if len(days) != 1 || days[0].TotalTokens != 110 {
		t.Errorf("days %v, want what was there when it began", days)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"postgres://127.0.0.1:1/none?connect_timeout=1", "no url"} {
		if l, err := ledger.Open(t.Context(), ledger.Config{URL: url}); err == nil {
			l.Close()
			t.Errorf("opened %q", url)
		}
	}
	s := newStore(t)
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	s.Close()
	if err := s.Ping(t.Context()); err == nil {
		t.Error("a closed ledger answers")
	}
	if _, err := s.Book(t.Context(), []ledger.Entry{call("p1", noon)}); err == nil || errors.Is(err, ledger.ErrUnknownPort) {
		t.Errorf("a closed ledger books: %v", err)
	}
}

// In a database whose language sorts a before B, everything is in Go's order all
// the same: pages of ports, and the order in which rows are locked.
func TestOrderIsTheSameInEveryLanguage(t *testing.T) {
	t.Parallel()
	s := openStore(t, englishDatabase(t))
	want := []string{"-", "A", "A1", "B", "_", "a", "a-b", "a1", "a_b", "ab", "b"}
	var all []ledger.Entry
	for _, port := range want {
		for d := range 2 {
			all = append(all, call(port, noon.AddDate(0, 0, -d)))
		}
	}
	s.book(t, all...)
	var inPages []string
	for after := ""; len(inPages) < 2*len(want); after = inPages[len(inPages)-1] {
		page, err := s.Ports(t.Context(), ledger.PortQuery{After: after, Limit: 3}, noon)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, p := range page {
			inPages = append(inPages, p.PortID)
		}
	}
	if !slices.Equal(inPages, want) {
		t.Errorf("the order of the pages is %v", inPages)
	}
	if one[bool](t, s.db, `select 'B' < 'a'`) {
		t.Error("the database sorts bytewise: this test shows nothing")
	}
	s.wantVerified(t)
}

// englishDatabase is migrated like testenv's, in a language with an order of its own.
func englishDatabase(t testing.TB) string {
	t.Helper()
	ctx := context.Background()
	base := testenv.EmptyDatabase(t)
	conn, err := pgx.Connect(ctx, base)
	if err != nil {
		t.Fatal(err)
	}
	name := conn.Config().Database + "_english"
	if _, err := conn.Exec(ctx, "create database "+name+" locale_provider icu icu_locale 'en-US' template template0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := conn.Exec(ctx, "drop database "+name+" with (force)"); err != nil {
			t.Error(err)
		}
		conn.Close(ctx)
	})
	url := strings.Replace(base, "/"+conn.Config().Database+"?", "/"+name+"?", 1)
	if err := migrations.Apply(ctx, url); err != nil {
		t.Fatal(err)
	}
	return url
}
