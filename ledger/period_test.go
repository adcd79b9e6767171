package ledger_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/budget"
)

// The windows of limits that the database adds up by are those of everybody else.
func TestTheWindowsOfSQLAreThoseOfGo(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	dice := rand.New(rand.NewPCG(16, 1))
	kinds := []budget.Period{budget.Hour, budget.Day, budget.Week, budget.Month, budget.Total}
	var names []string
	var moments []time.Time
	for range 10_000 {
		at := time.UnixMicro(dice.Int64N(9e15)).UTC() // 1970 to 2255
		kind := kinds[dice.IntN(len(kinds))]
		start, _ := kind.Bounds(at)
		names, moments = append(names, string(kind)), append(moments, []time.Time{at, start, start.Add(-time.Microsecond)}[dice.IntN(3)])
	}
	tx, err := s.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), "set local time zone 'America/St_Johns'"); err != nil {
		t.Fatal(err)
	}
	rows, err := tx.Query(t.Context(), "select limit_window(kind, moment) from unnest($1::text[], $2::timestamptz[]) with ordinality t(kind, moment, n) order by n", names, moments)
	if err != nil {
		t.Fatal(err)
	}
	starts, err := pgx.CollectRows(rows, pgx.RowTo[time.Time])
	if err != nil {
		t.Fatal(err)
	}
	for i, start := range starts {
		if want, _ := budget.Period(names[i]).Bounds(moments[i]); !start.Equal(want) {
			t.Fatalf("the %s of %s begins at %s, want %s", names[i], moments[i], start.UTC(), want)
		}
	}
}

// The database, asked by its own clock, knows the same periods as everybody else, whatever
// the time zone of the session.
func TestThePeriodsOfSQLAreThoseOfGo(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	dice := rand.New(rand.NewPCG(15, 1))
	zones := []string{"UTC", "America/St_Johns", "Pacific/Kiritimati"}
	var periods []*string
	var moments []time.Time
	for range 10_000 {
		p := append([]budget.Period{"", "year"}, budget.Periods[:]...)[dice.IntN(5)]
		at := time.UnixMicro(dice.Int64N(2*9e15) - 9e15).UTC() // 1684 to 2255
		start, end := p.Bounds(at)
		at = []time.Time{at, start, end, end.Add(-time.Microsecond)}[dice.IntN(4)]
		name := new(string(p))
		if *name == "" {
			name = nil
		}
		periods, moments = append(periods, name), append(moments, at)
	}
	for _, zone := range zones {
		tx, err := s.db.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), "set local time zone '"+zone+"'"); err != nil {
			t.Fatal(err)
		}
		rows, err := tx.Query(t.Context(), `select b.start, b.finish from unnest($1::text[], $2::timestamptz[]) with ordinality t(period, moment, n)
			cross join lateral budget_period(t.period, t.moment) b order by n`, periods, moments)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		var start, end time.Time
		_, err = pgx.ForEachRow(rows, []any{&start, &end}, func() error {
			p := budget.Month
			if periods[n] != nil {
				p = budget.Period(*periods[n])
			}
			if wantStart, wantEnd := p.Bounds(moments[n]); !start.Equal(wantStart) || !end.Equal(wantEnd) {
				return fmt.Errorf("in %s, the %q of %s is [%s, %s), want [%s, %s)", zone, p, moments[n], start.UTC(), end.UTC(), wantStart, wantEnd)
			}
			n++
			return nil
		})
		if err != nil || n != len(moments) {
			t.Errorf("%d answers to %d questions, %v", n, len(moments), err)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// No statement works out a period by itself.
func TestStatementsAskForPeriods(t *testing.T) {
	var files []string
	for pattern, least := range map[string]int{"sql/*.sql": 10, "../internal/reservation/sql/*.sql": 3, "../internal/reservation/hold/sql/*.sql": 10} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) < least {
			t.Fatal(pattern, len(found), err)
		}
		files = append(files, found...)
	}
	for _, f := range files {
		sql, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(sql), "date_trunc") || strings.Contains(string(sql), "interval '1 month'") {
			t.Errorf("%s works out a period: budget_period, or the caller, knows it", f)
		}
	}
}
