package ledger_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

func TestVerifyCountsWhatItRead(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	all := manyCalls(60, 4)
	s.book(t, all...)
	var input, output int64
	for _, e := range all {
		input += e.Usage.InputTokens
		output += e.Usage.OutputTokens
	}
	got, err := s.Verify(t.Context(), noon, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := ledger.Verification{Rows: 60, InputTokens: input, OutputTokens: output, Ports: 4,
		Since: time.Date(2019, 11, 1, 0, 0, 0, 0, time.UTC), Differences: []ledger.Difference{}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("verification (-want +got):\n%s", diff)
	}
}

// Each planted lie is found, where it is and with what it should be.
func TestVerifyFindsDifferences(t *testing.T) {
	t.Parallel()
	figures := func(want, got [7]int64) (all []ledger.Difference) {
		for i, what := range []string{"cache_read_input_tokens", "cache_write_input_tokens", "input_tokens", "output_tokens",
			"reasoning_output_tokens", "requests", "total_tokens"} {
			all = append(all, ledger.Difference{Where: "totals", Key: "p1 2026-11-23 ocr anthropic claude", Want: want[i], Got: got[i], What: what})
		}
		return all
	}
	one, two := [7]int64{40, 20, 100, 10, 5, 1, 110}, [7]int64{80, 40, 200, 20, 10, 2, 220}
	inTotals := func(what string, want, got int64) ledger.Difference {
		return ledger.Difference{Where: "totals", Key: "p1 2026-11-23 ocr anthropic claude", Want: want, Got: got, What: what}
	}
	inDays := func(what string, want, got int64) ledger.Difference {
		return ledger.Difference{Where: "port_days", Key: "p1 2026-11-23", Want: want, Got: got, What: what}
	}
	for _, c := range []struct {
		name, lie string
		want      []ledger.Difference
	}{
		{"nothing", "select 1", []ledger.Difference{}},
		{"requests of the totals", "update ai_usage_totals set requests = 3 where port_id = 'p1'",
			[]ledger.Difference{inTotals("requests", 2, 3), inDays("requests", 3, 2)}},
		{"input of the totals", "update ai_usage_totals set input_tokens = 199 where port_id = 'p1'", []ledger.Difference{inTotals("input_tokens", 200, 199)}},
		{"output of the totals", "update ai_usage_totals set output_tokens = 0 where port_id = 'p1'", []ledger.Difference{inTotals("output_tokens", 20, 0)}},
		{"total of the totals", "update ai_usage_totals set total_tokens = 221 where port_id = 'p1'",
			[]ledger.Difference{inTotals("total_tokens", 220, 221), inDays("total_tokens", 221, 220)}},
		{"cache read", "update ai_usage_totals set cache_read_input_tokens = 1 where port_id = 'p1'", []ledger.Difference{inTotals("cache_read_input_tokens", 80, 1)}},
		{"cache write", "update ai_usage_totals set cache_write_input_tokens = 1 where port_id = 'p1'", []ledger.Difference{inTotals("cache_write_input_tokens", 40, 1)}},
		{"reasoning", "update ai_usage_totals set reasoning_output_tokens = 1 where port_id = 'p1'", []ledger.Difference{inTotals("reasoning_output_tokens", 10, 1)}},
		{"one of two rows is gone", "delete from ai_usage_ledger where port_id = 'p1' and request_id = 'first'", figures(one, two)},
		{"both rows are gone", "delete from ai_usage_ledger where port_id = 'p1'", figures([7]int64{}, two)},
		{"a row too many", `insert into ai_usage_ledger (created_at, id, input_tokens, output_tokens, total_tokens, cache_read_input_tokens,
			cache_write_input_tokens, reasoning_output_tokens, port_id, feature, provider, model)
			values ('2026-11-23 13:00Z', gen_random_uuid(), -100, -10, -110, -40, -20, -5, 'p1', 'ocr', 'anthropic', 'claude')`,
			slices.Concat(figures([7]int64{40, 20, 100, 10, 5, 3, 110}, two))},
		{"the totals row is gone", "delete from ai_usage_totals where port_id = 'p1'",
			slices.Concat(figures(two, [7]int64{}), []ledger.Difference{inDays("requests", 0, 2), inDays("total_tokens", 0, 220)})},
		{"requests of the day", "update ai_usage_port_days set requests = 1 where port_id = 'p1'", []ledger.Difference{inDays("requests", 2, 1)}},
		{"total of the day", "update ai_usage_port_days set total_tokens = 0 where port_id = 'p1'", []ledger.Difference{inDays("total_tokens", 220, 0)}},
		{"the day is gone", "delete from ai_usage_port_days where port_id = 'p1'",
			[]ledger.Difference{inDays("requests", 2, 0), inDays("total_tokens", 220, 0)}},
		{"a day too many", "insert into ai_usage_port_days values ('p1', '2026-11-22', 1, 5)", []ledger.Difference{
			{Where: "port_days", Key: "p1 2026-11-22", Want: 0, Got: 1, What: "requests"}, {Where: "port_days", Key: "p1 2026-11-22", Want: 0, Got: 5, What: "total_tokens"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			s.book(t, call("p1", noon, func(u *events.Usage) { u.RequestID = "first" }), call("p1", noon), call("p2", noon))
			exec(t, s.db, c.lie)
			v, err := s.Verify(t.Context(), noon, nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, v.Differences); diff != "" {
				t.Errorf("differences (-want +got):\n%s", diff)
			}
		})
	}
}

func TestVerifyListsTheFirstHundred(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	var all []ledger.Entry
	for i := range 130 {
		all = append(all, call(fmt.Sprintf("p%03d", i), noon))
	}
	s.book(t, all...)
	exec(t, s.db, "update ai_usage_totals set input_tokens = 0")
	exec(t, s.db, "update ai_usage_port_days set requests = 9")
	v, err := s.Verify(t.Context(), noon, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Differences) != 100 || v.Differences[99].Key != "p099 2026-11-23 ocr anthropic claude" {
		t.Errorf("%d differences, the last is %+v", len(v.Differences), v.Differences[len(v.Differences)-1])
	}
}

// What two transactions read, some blocks at a time, is all of it and nothing twice.
func TestVerifyInStretches(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.VerifyInStretchesOf(1)
	s.book(t, manyCalls(1_000, 100)...)
	var done, all int64
	verify := func() ledger.Verification {
		t.Helper()
		v, err := s.Verify(t.Context(), noon, func(d, a int64) { done, all = d, a })
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if v := verify(); v.Rows != 1_000 || len(v.Differences) > 0 || done != all || all < 10*8192 {
		t.Errorf("%+v; %d of %d bytes were read", v, done, all)
	}
	exec(t, s.db, "update ai_usage_totals set output_tokens = output_tokens + 1 where port_id = (select max(id) from ports)")
	exec(t, s.db, "update ai_usage_port_days set requests = requests + 1 where port_id = (select min(id) from ports)")
	if v := verify(); len(v.Differences) < 2 || v.Differences[0].What != "output_tokens" {
		t.Errorf("%+v, want both lies", v.Differences)
	}
}

// A verification sees one moment, while others book.
func TestVerifyWhileOthersBook(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.book(t, manyCalls(300, 10)...)
	var verified atomic.Bool
	var writers sync.WaitGroup
	for range 2 {
		l := open(t, s.url)
		writers.Go(func() {
			for !verified.Load() {
				if _, err := l.Book(t.Context(), manyCalls(10, 4)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 10 {
		s.wantVerified(t)
	}
	verified.Store(true)
	writers.Wait()
}
