package ledger_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

// bad rows that Postgres refuses, each for its own reason. Validation on the
// wire catches nearly all of them; the ledger must not rely on that.
var bad = map[string]struct {
	change func(*events.Usage)
	state  string
}{
	"NUL in a text":          {func(u *events.Usage) { u.RequestID = "req\x00" }, "22021"},
	"not UTF-8":              {func(u *events.Usage) { u.Model = "claude\xff" }, "22021"},
	"input + output too big": {func(u *events.Usage) { u.InputTokens, u.OutputTokens = math.MaxInt64, 1 }, "22003"},
	"total over bigint":      {func(u *events.Usage) { u.PortID, u.InputTokens = "p-full", 2000 }, "22003"},
	"illegal port":           {func(u *events.Usage) { u.PortID = "no port" }, "23514"},
}

func TestBadRowsAreRefusedAlone(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"new", "known ids expected"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			s.fill(t, "p-full", math.MaxInt64-1000)
			good := manyCalls(150, 5)
			if way != "new" {
				s.book(t, good[0])
				s.book(t, good[0]) // from here on known ids are expected
			}
			batch, names := slices.Clone(good), map[int]string{}
			at := 7
			for name, b := range bad {
				batch = slices.Insert(batch, at, call("p00", noon, b.change))
				names[at] = name
				at += 29
			}
			b := s.book(t, batch...)
			for i, o := range b.Outcomes {
				name, isBad := names[i]
				switch {
				case !isBad && o.Fate == ledger.Rejected:
					t.Errorf("entry %d is good and was rejected: %v", i, o.Reason)
				case isBad && (o.Fate != ledger.Rejected || o.Reason.Reason != events.ReasonUnbookable || !strings.Contains(o.Reason.Rule, bad[name].state)):
					t.Errorf("%s: %+v, want it unbookable with SQLSTATE %s", name, o, bad[name].state)
				}
			}
			exec(t, s.db, "delete from ports where id = 'p-full'")
			s.wantRows(t, good...)
			// What was refused stays refused, what was booked stays booked.
			again := fates(s.book(t, batch...))
			want := slices.Repeat([]string{"duplicate"}, len(batch))
			for i, name := range names {
				want[i] = "unbookable"
				if name == "total over bigint" {
					want[i] = "booked" // the port is new and empty now
				}
			}
			if !slices.Equal(again, want) {
				t.Errorf("the second time: %v", again)
			}
		})
	}
}

// fill makes a port whose totals are nearly at the end of bigint.
func (s store) fill(t testing.TB, port string, tokens int64) {
	t.Helper()
	e := call(port, noon, func(u *events.Usage) { u.InputTokens, u.OutputTokens, u.Details = 0, 0, events.Details{} })
	s.book(t, e)
	exec(t, s.db, "update ai_usage_totals set input_tokens = $2, total_tokens = $2 where port_id = $1", port, tokens)
	exec(t, s.db, "update ai_usage_port_days set total_tokens = $2 where port_id = $1", port, tokens)
}

// Days of a batch that had to be split are those of its last transaction.
func TestDaysOfASplitBatch(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	batch := []ledger.Entry{call("p1", noon), call("p1", noon, bad["NUL in a text"].change), call("p1", noon), call("p1", noon)}
	last := map[string]ledger.PortDay{}
	for _, d := range s.book(t, batch...).Days {
		last[d.PortID] = d
	}
	if got, want := last["p1"], (ledger.PortDay{PortID: "p1", Day: ledger.DayOf(noon), Requests: 3, TotalTokens: 330}); got != want {
		t.Errorf("the last of days is %+v, want %+v", got, want)
	}
	s.wantRows(t, batch[0], batch[2], batch[3])
}

func TestUnknownPorts(t *testing.T) {
	t.Parallel()
	s := newStore(t, func(c *ledger.Config) { c.KnownPortsOnly = true })
	exec(t, s.db, "insert into ports (id) values ('p1'), ('p3')")
	a, unknown, b := call("p1", noon), call("p2", noon), call("p3", noon)
	batch := []ledger.Entry{a, unknown, b}
	for _, known := range []string{"booked", "duplicate"} {
		got := s.book(t, append(batch, unknown, b)...)
		wantFates(t, got, known, "unknown_port", known, "unknown_port", "duplicate")
		if r := got.Outcomes[1].Reason; r.Field != "port_id" || r.Value != "p2" {
			t.Errorf("the refusal says %v", r)
		}
	}
	s.wantRows(t, a, b)
	// Registering the port is enough: nothing must be restarted.
	exec(t, s.db, "insert into ports (id) values ('p2')")
	wantFates(t, s.book(t, batch...), "duplicate", "booked", "duplicate")
	s.wantRows(t, batch...)
	wantFates(t, s.book(t, call("p9", noon)), "unknown_port")
}

// Another process deletes a port that this one believes to know.
func TestStaleKnowledgeOfPorts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		knownOnly bool
		want      string
	}{{"registered again", false, "booked"}, {"known ports only", true, "unknown_port"}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t, func(cfg *ledger.Config) { cfg.KnownPortsOnly = c.knownOnly })
			exec(t, s.db, "insert into ports (id) values ('p1'), ('p2')")
			s.book(t, call("p1", noon), call("p2", noon))
			if _, err := open(t, s.url).DeletePort(t.Context(), "p1", "ops"); err != nil {
				t.Fatal(err)
			}
			one, two := call("p1", noon), call("p2", noon)
			wantFates(t, s.book(t, one, two), c.want, "booked")
			if got := query[struct{ N int }](t, s.db, "select count(*)::int from ai_usage_ledger where port_id = 'p1'"); (got[0].N == 1) != (c.want == "booked") {
				t.Errorf("%d rows of the deleted port", got[0].N)
			}
			s.wantSums(t)
		})
	}
}
