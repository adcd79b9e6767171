package ledger_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

func by(user string) func(*events.Usage) { return func(u *events.Usage) { u.UserID = user } }

func (s store) erase(t testing.TB, user string, wantRows int64) {
	t.Helper()
	rows, err := s.EraseUser(t.Context(), user)
	if err != nil || rows != wantRows {
		t.Errorf("EraseUser(%s): %d rows, %v, want %d", user, rows, err, wantRows)
	}
}

func TestEraseUser(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	other := open(t, s.url) // another process, which learns of it by itself
	a, b, c := call("p1", noon, by("anna")), call("p2", noon.AddDate(0, -2, 0), by("anna")), call("p1", noon, by("ben"))
	s.book(t, a, b, c)
	s.erase(t, "anna", 2)
	s.erase(t, "anna", 0)
	gone := func(e ledger.Entry) ledger.Entry { return altered(e, by("")) }
	s.wantRows(t, gone(a), gone(b), c)

	late, lateToo := call("p1", noon, by("anna")), call("p3", noon, by("anna"))
	for _, booking := range []struct {
		l     *ledger.Ledger
		entry ledger.Entry
	}{{s.Ledger, late}, {other, lateToo}} {
		got, err := booking.l.Book(t.Context(), []ledger.Entry{booking.entry})
		if err != nil {
			t.Fatal(err)
		}
		wantFates(t, got, "booked")
	}
	s.wantRows(t, gone(a), gone(b), c, gone(late), gone(lateToo))

	// Redelivered with the user still in them: known, and no conflict, in both ways.
	wantFates(t, s.book(t, a, b, c, late, lateToo), "duplicate", "duplicate", "duplicate", "duplicate", "duplicate")
	wantFates(t, s.book(t, a), "duplicate")
	wantFates(t, s.book(t, altered(a, by("ben"))), "id_conflict")
	wantFates(t, s.book(t, altered(a, func(u *events.Usage) { u.InputTokens++ })), "id_conflict")
	s.wantRows(t, gone(a), gone(b), c, gone(late), gone(lateToo))

	if got := one[int](t, s.db, "select count(*)::int from ai_erased_users e where e::text like '%anna%'"); got != 0 {
		t.Error("the list of erased users names one")
	}
	var refused *events.FieldError
	if _, err := s.EraseUser(t.Context(), ""); !errors.As(err, &refused) || refused.Field != "user_id" {
		t.Errorf("erasing nobody: %v", err)
	}
}

// Half-way through an erasure, between its two steps, a row still has the user.
func TestRedeliveryDuringAnErasure(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	e := call("p1", noon, by("anna"))
	s.book(t, e)
	s.erase(t, "anna", 1)
	exec(t, s.db, "update ai_usage_ledger set user_id = 'anna'")
	wantFates(t, s.book(t, e), "duplicate")
	// Somebody else's row stays somebody else's.
	exec(t, s.db, "update ai_usage_ledger set user_id = 'ben'")
	wantFates(t, s.book(t, e), "id_conflict")
}

// Users are erased while writers book for them. When both have ended no row has them.
func TestEraseUserAgainstBookings(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	ledgers := []*ledger.Ledger{s.Ledger, open(t, s.url), open(t, s.url)}
	const users = 12
	var mu sync.Mutex
	var all []ledger.Entry
	var booked atomic.Int64
	begun := make(chan struct{})
	var erased atomic.Bool
	var writers sync.WaitGroup
	for w := range 6 {
		writers.Go(func() {
			for round := 0; round < 4 || !erased.Load(); round++ {
				var batch []ledger.Entry
				for i := range 40 {
					batch = append(batch, call(fmt.Sprintf("p%d", i%3), noon, by(fmt.Sprintf("u%02d", i%users))))
				}
				b, err := ledgers[w%len(ledgers)].Book(t.Context(), batch)
				if err != nil {
					t.Errorf("Book: %v", err)
					return
				}
				for _, o := range b.Outcomes {
					if o.Fate != ledger.Booked {
						t.Errorf("outcome %+v", o)
					}
				}
				mu.Lock()
				all = append(all, batch...)
				mu.Unlock()
				if booked.Add(40) == 400 {
					close(begun)
				}
			}
		})
	}
	<-begun
	var changed int64
	for u := range users {
		rows, err := ledgers[u%2].EraseUser(t.Context(), fmt.Sprintf("u%02d", u))
		if err != nil {
			t.Errorf("EraseUser: %v", err)
		}
		changed += rows
	}
	erased.Store(true)
	writers.Wait()
	if changed == 0 {
		t.Error("no erasure met a row: this test shows nothing")
	}
	for i := range all {
		all[i].Usage.UserID = ""
	}
	s.wantRows(t, all...)
	s.wantNoDeadlocks(t)
}
