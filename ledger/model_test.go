package ledger_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

// model is a ledger that anybody can see to be right.
type model struct {
	rows   map[modelKey]events.Usage
	erased map[string]bool
}

type modelKey struct{ port, id string }

// book returns the fate of one entry.
func (m *model) book(e ledger.Entry) string {
	key, u := modelKey{e.Usage.PortID, e.ID.String()}, e.Usage
	if m.erased[u.UserID] {
		u.UserID = ""
	}
	u.ReservationID = "" // not stored
	stored, known := m.rows[key]
	if !known {
		m.rows[key] = u
		return "booked"
	}
	if stored == u {
		return "duplicate"
	}
	return "id_conflict"
}

// days are the totals of the ports and days that entries touch.
func (m *model) days(entries []ledger.Entry) map[string]ledger.PortDay {
	days := map[string]ledger.PortDay{}
	for _, e := range entries {
		d := ledger.PortDay{PortID: e.Usage.PortID, Day: ledger.DayOf(e.At)}
		for key, u := range m.rows {
			if key.port == d.PortID && ledger.DayOf(idTime(key.id)) == d.Day {
				d.Requests++
				d.TotalTokens += u.InputTokens + u.OutputTokens
			}
		}
		days[fmt.Sprint(d.PortID, d.Day)] = d
	}
	return days
}

func idTime(id string) time.Time {
	parsed, _ := events.ParseUUIDv7(id)
	return events.UUIDv7Time(parsed)
}

// Any sequence of batches (with new ids, repeated ones, conflicting ones, of
// several ports, days, features and users, in Book and in BookTx that commits or
// not, from two processes) and of erasures and deletions leaves what the model has.
func TestLedgerIsTheModel(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	ledgers := []*ledger.Ledger{s.Ledger, open(t, s.url)}
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		m := model{rows: map[modelKey]events.Usage{}, erased: map[string]bool{}}
		for range rapid.IntRange(1, 6).Draw(rt, "steps") {
			l := ledgers[rapid.IntRange(0, 1).Draw(rt, "process")]
			switch rapid.SampledFrom([]string{"book", "book", "book", "book", "tx", "rollback", "erase", "delete"}).Draw(rt, "step") {
			case "book":
				batch := drawBatch(rt, run)
				b, err := l.Book(t.Context(), batch)
				m.check(rt, batch, b, err)
			case "tx":
				batch := drawBatch(rt, run)
				var b ledger.Booking
				err := tryTwice(func() error {
					return pgx.BeginFunc(t.Context(), s.db, func(tx pgx.Tx) (err error) {
						b, err = l.BookTx(t.Context(), tx, batch)
						return err
					})
				})
				m.check(rt, batch, b, err)
			case "rollback":
				batch, stop := drawBatch(rt, run), errors.New("stop")
				err := tryTwice(func() error {
					return pgx.BeginFunc(t.Context(), s.db, func(tx pgx.Tx) error {
						if _, err := l.BookTx(t.Context(), tx, batch); err != nil {
							return err
						}
						return stop
					})
				})
				if !errors.Is(err, stop) {
					rt.Fatal(err)
				}
			case "erase":
				user := drawUser(rt, run)
				if _, err := l.EraseUser(t.Context(), user); err != nil {
					rt.Fatal(err)
				}
				m.erase(user)
			case "delete":
				port := drawPort(rt, run)
				if _, err := l.DeletePort(t.Context(), port, "ops"); err != nil && !errors.Is(err, ledger.ErrUnknownPort) {
					rt.Fatal(err)
				}
				for key := range m.rows {
					if key.port == port {
						delete(m.rows, key)
					}
				}
			}
		}
		if diff := cmp.Diff(m.rows, s.modelRows(t, rt, run)); diff != "" {
			rt.Fatalf("rows (-model +ledger):\n%s", diff)
		}
	})
	s.wantSums(t)
	s.wantVerified(t)
}

// tryTwice lets BookTx find out that the other process deleted a port.
func tryTwice(f func() error) error {
	if err := f(); err == nil {
		return nil
	}
	return f()
}

func (m *model) check(rt *rapid.T, batch []ledger.Entry, b ledger.Booking, err error) {
	if err != nil {
		rt.Fatal(err)
	}
	var want []string
	for _, e := range batch {
		want = append(want, m.book(e))
	}
	if diff := cmp.Diff(want, fates(b)); diff != "" {
		rt.Fatalf("outcomes (-model +ledger):\n%s", diff)
	}
	days := map[string]ledger.PortDay{}
	for _, d := range b.Days {
		days[fmt.Sprint(d.PortID, d.Day)] = d
	}
	if diff := cmp.Diff(m.days(batch), days); diff != "" || len(days) != len(b.Days) {
		rt.Fatalf("%d days (-model +ledger):\n%s", len(b.Days), diff)
	}
}

func (m *model) erase(user string) {
	m.erased[user] = true
	for key, u := range m.rows {
		if u.UserID == user {
			u.UserID = ""
			m.rows[key] = u
		}
	}
}

// Few values of everything, so that calls meet.
func drawPort(rt *rapid.T, run int) string {
	return fmt.Sprintf("run%d-%s", run, rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "port"))
}

func drawUser(rt *rapid.T, run int) string {
	return fmt.Sprintf("run%d-%s", run, rapid.SampledFrom([]string{"anna", "ben"}).Draw(rt, "user"))
}

func drawBatch(rt *rapid.T, run int) []ledger.Entry {
	return rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) ledger.Entry {
		at := noon.AddDate(0, 0, -rapid.SampledFrom([]int{0, 1, 23, 54}).Draw(rt, "days ago"))
		id := events.NewUUIDv7(at)
		binary.BigEndian.PutUint64(id[8:], 1<<63|rapid.Uint64Range(0, 4).Draw(rt, "call"))
		id[7] = 0
		id[6] = 0x70
		u := events.Usage{
			PortID: drawPort(rt, run), Feature: rapid.SampledFrom([]string{"ocr", "summary"}).Draw(rt, "feature"), Provider: "anthropic", Model: "claude",
			InputTokens: rapid.SampledFrom([]int64{10, 10, 10, 11}).Draw(rt, "input"), ReservationID: rapid.SampledFrom([]string{"", "r1"}).Draw(rt, "reservation"),
			MeasuredBy: events.MeasuredByProvider, Status: events.StatusOK,
		}
		if rapid.IntRange(0, 9).Draw(rt, "has a user") < 9 {
			u.UserID = drawUser(rt, run)
		}
		return ledger.Entry{ID: id, At: events.UUIDv7Time(id), Usage: u}
	}), 1, 15).Draw(rt, "batch")
}

// modelRows reads what the ledger has of this run's ports.
func (s store) modelRows(t *testing.T, rt *rapid.T, run int) map[modelKey]events.Usage {
	rows, err := s.db.Query(t.Context(), `select id::text, port_id, coalesce(user_id, ''), feature, provider, model, input_tokens, output_tokens, measured_by, status
		from ai_usage_ledger where port_id like $1`, fmt.Sprintf("run%d-%%", run))
	if err != nil {
		rt.Fatal(err)
	}
	all := map[modelKey]events.Usage{}
	var id string
	var u events.Usage
	_, err = pgx.ForEachRow(rows, []any{&id, &u.PortID, &u.UserID, &u.Feature, &u.Provider, &u.Model, &u.InputTokens, &u.OutputTokens, &u.MeasuredBy, &u.Status}, func() error {
		all[modelKey{u.PortID, id}] = u
		return nil
	})
	if err != nil {
		rt.Fatal(err)
	}
	return all
}
