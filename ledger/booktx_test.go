package ledger_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

// inTx runs f in a transaction of the caller's own, on the caller's own connection.
func (s store) inTx(t testing.TB, f func(pgx.Tx) error) error {
	t.Helper()
	return pgx.BeginFunc(t.Context(), s.db, f)
}

func TestBookTxIsPartOfTheCallersTransaction(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	exec(t, s.db, "create table holds (id text primary key)")
	known, fresh := call("p1", noon), call("p1", noon)
	s.book(t, known)

	var during ledger.Booking
	err := s.inTx(t, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "insert into holds values ('h1')"); err != nil {
			return err
		}
		var err error
		during, err = s.BookTx(t.Context(), tx, []ledger.Entry{fresh, known})
		if err != nil {
			return err
		}
		if n := one[int](t, s.db, "select count(*)::int from ai_usage_ledger"); n != 1 {
			t.Errorf("others see %d rows before the commit, want 1", n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wantFates(t, during, "booked", "duplicate")
	if d := during.Days; len(d) != 1 || d[0] != (ledger.PortDay{PortID: "p1", Day: ledger.DayOf(noon), Requests: 2, TotalTokens: 220}) {
		t.Errorf("days %v", d)
	}
	if n := one[int](t, s.db, "select count(*)::int from holds"); n != 1 {
		t.Error("the caller's own row is missing")
	}
	s.wantRows(t, known, fresh)
}

func TestBookTxRollsBackWithItsCaller(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	e := call("p1", noon)
	changedMind := errors.New("changed its mind")
	err := s.inTx(t, func(tx pgx.Tx) error {
		if _, err := s.BookTx(t.Context(), tx, []ledger.Entry{e}); err != nil {
			return err
		}
		return changedMind
	})
	if !errors.Is(err, changedMind) {
		t.Fatal(err)
	}
	s.wantRows(t)
	wantFates(t, s.book(t, e), "booked")
	s.wantRows(t, e)
}

// Two calls in one transaction: the second must know the rows of the first.
func TestBookTxTwiceInOneTransaction(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	a, b := call("p1", noon), call("p2", noon)
	err := s.inTx(t, func(tx pgx.Tx) error {
		if _, err := s.BookTx(t.Context(), tx, []ledger.Entry{a}); err != nil {
			return err
		}
		second, err := s.BookTx(t.Context(), tx, []ledger.Entry{b, a, altered(a, func(u *events.Usage) { u.OutputTokens = 0 })})
		wantFates(t, second, "booked", "duplicate", "id_conflict")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s.wantRows(t, a, b)
}

// Another process deleted the port: the first try finds out, the next one works.
func TestBookTxRecoversFromADeletedPort(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.book(t, call("p1", noon))
	if _, err := open(t, s.url).DeletePort(t.Context(), "p1", "ops"); err != nil {
		t.Fatal(err)
	}
	e := call("p1", noon)
	book := func() error {
		return s.inTx(t, func(tx pgx.Tx) error {
			_, err := s.BookTx(t.Context(), tx, []ledger.Entry{e})
			return err
		})
	}
	if err := book(); err == nil {
		t.Fatal("booked although the port is gone and the ledger cannot know")
	}
	if err := book(); err != nil {
		t.Fatalf("once it found out: %v", err)
	}
	s.wantRows(t, e)
}
