package ledger_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

func TestBookWritesEveryColumn(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	entries := []ledger.Entry{
		call("p2", noon),
		call("p1", noon.AddDate(0, -3, 0)),
		call("p1", noon, func(u *events.Usage) { u.UserID, u.RequestID, u.ResponseID = "", "", "" }),
		call("p1", noon.Add(time.Millisecond), func(u *events.Usage) {
			u.Feature, u.Provider, u.Model, u.UserID = "résumé", "büro", "模型-1", strings.Repeat("ü", 128)
			u.InputTokens, u.OutputTokens = events.MaxTokens, events.MaxTokens
			u.Details = events.Details{CacheReadInputTokens: 1, CacheWriteInputTokens: 2, ReasoningOutputTokens: 3}
			u.MeasuredBy, u.Status = events.MeasuredByEstimate, events.StatusError
		}),
		call("p1", noon, func(u *events.Usage) { u.InputTokens, u.OutputTokens, u.Details = 0, 0, events.Details{} }),
	}
	wantFates(t, s.book(t, entries...), "booked", "booked", "booked", "booked", "booked")
	s.wantRows(t, entries...)
	if got := one[int](t, s.db, "select count(*)::int from ports"); got != 2 {
		t.Errorf("%d ports are registered, want the 2 that were named", got)
	}
}

// The idempotent statement must write exactly what COPY writes.
func TestBothWaysOfBookingWriteTheSame(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	known := call("p1", noon)
	s.book(t, known)
	entries := []ledger.Entry{known}
	for i := range 20 {
		entries = append(entries, call([]string{"p1", "p2", "p3"}[i%3], noon.AddDate(0, 0, -i), func(u *events.Usage) {
			if i%2 == 0 {
				u.UserID, u.RequestID, u.ResponseID = "", "", ""
			}
			u.Model = "modèle " + strings.Repeat("x", i)
		}))
	}
	b := s.book(t, entries...)
	wantFates(t, b, append([]string{"duplicate"}, slices.Repeat([]string{"booked"}, 20)...)...)
	s.wantRows(t, entries...)
}

func TestBookNothing(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	if b := s.book(t); len(b.Outcomes) != 0 || len(b.Days) != 0 {
		t.Errorf("got %+v", b)
	}
	s.wantRows(t)
}

func TestRedeliveryChangesNothing(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	entries := []ledger.Entry{call("p1", noon), call("p2", noon), call("p1", noon.AddDate(0, 0, -1))}
	first := s.book(t, entries...)
	for range 3 { // the first of these meets COPY, the others know better
		again := s.book(t, entries...)
		wantFates(t, again, "duplicate", "duplicate", "duplicate")
		if diff := cmp.Diff(first.Days, again.Days); diff != "" {
			t.Errorf("days of a redelivery (-first +again):\n%s", diff)
		}
	}
	s.wantRows(t, entries...)
}

func TestSameIDOfTwoPortsIsTwoEvents(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	mine := call("p1", noon)
	theirs := altered(mine, func(u *events.Usage) { u.PortID = "p2" })
	wantFates(t, s.book(t, mine, theirs), "booked", "booked")
	s.wantRows(t, mine, theirs)
}

func TestSameIDTwiceInOneBatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(*events.Usage)
		want   string
	}{
		{"same content", func(*events.Usage) {}, "duplicate"},
		{"only the reservation differs", func(u *events.Usage) { u.ReservationID = "r2" }, "duplicate"},
		{"only the reported time differs", func(u *events.Usage) { u.OccurredAt = noon.Add(time.Minute) }, "duplicate"},
		{"other content", func(u *events.Usage) { u.OutputTokens++ }, "id_conflict"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			e, other := call("p1", noon), call("p1", noon)
			batch := []ledger.Entry{e, other, altered(e, c.change)}
			wantFates(t, s.book(t, batch...), "booked", "booked", c.want)
			s.wantRows(t, e, other)
			// The whole batch comes again: its first entry is known now as well.
			wantFates(t, s.book(t, batch...), "duplicate", "duplicate", c.want)
			s.wantRows(t, e, other)
		})
	}
}

// Each field that the ledger stores, changed alone, makes an id_conflict, within
// a batch and against a stored row alike.
func TestEveryFieldCanConflict(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	for name, change := range map[string]func(*events.Usage){
		"feature":     func(u *events.Usage) { u.Feature = "summary" },
		"provider":    func(u *events.Usage) { u.Provider = "openai" },
		"model":       func(u *events.Usage) { u.Model = "gpt" },
		"user":        func(u *events.Usage) { u.UserID = "u2" },
		"no user":     func(u *events.Usage) { u.UserID = "" },
		"run":         func(u *events.Usage) { u.RunID = "run-2" },
		"no run":      func(u *events.Usage) { u.RunID = "" },
		"request":     func(u *events.Usage) { u.RequestID = "req_2" },
		"no request":  func(u *events.Usage) { u.RequestID = "" },
		"response":    func(u *events.Usage) { u.ResponseID = "msg_2" },
		"no response": func(u *events.Usage) { u.ResponseID = "" },
		"input":       func(u *events.Usage) { u.InputTokens++ },
		"output":      func(u *events.Usage) { u.OutputTokens++ },
		"same total":  func(u *events.Usage) { u.InputTokens++; u.OutputTokens-- },
		"cache read":  func(u *events.Usage) { u.Details.CacheReadInputTokens++ },
		"cache write": func(u *events.Usage) { u.Details.CacheWriteInputTokens++ },
		"reasoning":   func(u *events.Usage) { u.Details.ReasoningOutputTokens++ },
		"measured by": func(u *events.Usage) { u.MeasuredBy = events.MeasuredByPartial },
		"status":      func(u *events.Usage) { u.Status = events.StatusPartial },
	} {
		e := call("p-"+strings.ReplaceAll(name, " ", "-"), noon)
		other := altered(e, change)
		s.book(t, e)
		b := s.book(t, other, e, other)
		if got := fates(b); !slices.Equal(got, []string{"id_conflict", "duplicate", "id_conflict"}) {
			t.Errorf("%s: against the stored row: %v, want the same content a duplicate, the other a conflict", name, got)
		}
		reason := b.Outcomes[0].Reason
		if reason == nil || reason.Field != "id" || reason.Value != e.ID.String() || reason.Rule == "" {
			t.Errorf("%s: the refusal says %+v", name, reason)
		}
		fresh := call("p1", noon)
		if got := fates(s.book(t, fresh, altered(fresh, change))); got[0] != "booked" || got[1] != "id_conflict" {
			t.Errorf("%s: within a batch: %v, want booked and id_conflict", name, got)
		}
	}
	s.wantSums(t)
}

// The reservation and the reported time are not stored: they cannot conflict.
func TestFieldsThatAreNotStoredDoNotConflict(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	e := call("p1", noon)
	s.book(t, e)
	wantFates(t, s.book(t, altered(e, func(u *events.Usage) { u.ReservationID, u.OccurredAt = "r9", noon.Add(time.Second) })), "duplicate")
	wantFates(t, s.book(t, altered(e, func(u *events.Usage) { u.ID = strings.ToUpper(u.ID) })), "duplicate")
	s.wantRows(t, e)
}

func TestNewAndKnownTogether(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	known, conflicting := call("p1", noon), call("p2", noon)
	s.book(t, known, conflicting)
	fresh := []ledger.Entry{call("p1", noon), call("p2", noon), call("p3", noon)}
	b := s.book(t, fresh[0], known, fresh[1], altered(conflicting, func(u *events.Usage) { u.InputTokens = 1 << 30 }), fresh[2], fresh[2])
	wantFates(t, b, "booked", "duplicate", "booked", "id_conflict", "booked", "duplicate")
	s.wantRows(t, known, conflicting, fresh[0], fresh[1], fresh[2])
}

func TestDaysAreAbsolute(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	today, yesterday := ledger.DayOf(noon), ledger.DayOf(noon)-1
	a, b, c := call("p1", noon), call("p1", noon.AddDate(0, 0, -1)), call("p2", noon)
	for _, step := range []struct {
		name    string
		entries []ledger.Entry
		want    []ledger.PortDay
	}{
		{"the first", []ledger.Entry{a}, []ledger.PortDay{{"p1", today, 1, 110}}},
		{"one known, two new", []ledger.Entry{c, a, b}, []ledger.PortDay{{"p1", yesterday, 1, 110}, {"p1", today, 1, 110}, {"p2", today, 1, 110}}},
		{"one more, known ids expected", []ledger.Entry{call("p1", noon)}, []ledger.PortDay{{"p1", today, 2, 220}}},
		{"one more, none expected", []ledger.Entry{call("p1", noon)}, []ledger.PortDay{{"p1", today, 3, 330}}},
		{"known alone", []ledger.Entry{a}, []ledger.PortDay{{"p1", today, 3, 330}}},
		{"a conflict alone", []ledger.Entry{altered(c, func(u *events.Usage) { u.InputTokens = 0 })}, []ledger.PortDay{{"p2", today, 1, 110}}},
	} {
		got := s.book(t, step.entries...).Days
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("%s: days (-want +got):\n%s", step.name, diff)
		}
	}
}

func TestDayOf(t *testing.T) {
	t.Parallel()
	for at, want := range map[string]ledger.Day{
		"1970-01-01T00:00:00Z": 0, "1970-01-01T23:59:59.999Z": 0, "1970-01-02T00:00:00Z": 1,
		"1969-12-31T23:59:59.999Z": -1, "1969-12-31T00:00:00Z": -1, "1969-12-30T23:59:59Z": -2,
		"2026-11-23T00:30:00+02:00": ledger.DayOf(noon) - 1, "2028-02-29T12:00:00Z": 21243,
	} {
		parsed, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		got := ledger.DayOf(parsed)
		if got != want {
			t.Errorf("DayOf(%s) = %d, want %d", at, got, want)
		}
		if start := got.Time(); parsed.Before(start) || !parsed.Before(start.AddDate(0, 0, 1)) {
			t.Errorf("%s is not within day %d, which starts at %s", at, got, start)
		}
	}
}
