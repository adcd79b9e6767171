package ledger_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

func TestMain(m *testing.M) {
	testenv.Checks(20)
	testenv.Main(m)
}

// noon is when most tests' calls happen: a Monday, the 23rd.
var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// store is a fresh database with one ledger on it, and a way to look past it.
type store struct {
	*ledger.Ledger
	url string
	db  *pgxpool.Pool
}

func newStore(t testing.TB, change ...func(*ledger.Config)) store {
	t.Helper()
	return openStore(t, testenv.Database(t), change...)
}

func openStore(t testing.TB, url string, change ...func(*ledger.Config)) store {
	t.Helper()
	db, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return store{Ledger: open(t, url, change...), url: url, db: db}
}

// open opens one more ledger: what another process would have.
func open(t testing.TB, url string, change ...func(*ledger.Config)) *ledger.Ledger {
	t.Helper()
	cfg := ledger.Config{URL: url}
	for _, c := range change {
		c(&cfg)
	}
	l, err := ledger.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// call is one event, its id new.
func call(port string, at time.Time, change ...func(*events.Usage)) ledger.Entry {
	id := events.NewUUIDv7(at)
	u := events.Usage{
		ID: id.String(), PortID: port, UserID: "u1", RunID: "run-1", Feature: "ocr", Provider: "anthropic", Model: "claude",
		RequestID: "req_" + id.String(), ResponseID: "msg_" + id.String(), InputTokens: 100, OutputTokens: 10,
		Details:    events.Details{CacheReadInputTokens: 40, CacheWriteInputTokens: 20, ReasoningOutputTokens: 5},
		MeasuredBy: events.MeasuredByProvider, Status: events.StatusOK,
	}
	for _, c := range change {
		c(&u)
	}
	return ledger.Entry{ID: id, At: events.UUIDv7Time(id), Usage: u}
}

// altered is the same event, told differently.
func altered(e ledger.Entry, change func(*events.Usage)) ledger.Entry {
	change(&e.Usage)
	return e
}

func (s store) book(t testing.TB, entries ...ledger.Entry) ledger.Booking {
	t.Helper()
	b, err := s.Book(t.Context(), entries)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// fates is what became of each entry: "booked", "duplicate" or the reason.
func fates(b ledger.Booking) []string {
	var all []string
	for _, o := range b.Outcomes {
		switch o.Fate {
		case ledger.Booked:
			all = append(all, "booked")
		case ledger.Duplicate:
			all = append(all, "duplicate")
		default:
			all = append(all, string(o.Reason.Reason))
		}
	}
	return all
}

func wantFates(t testing.TB, b ledger.Booking, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, fates(b)); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
}

// row is a ledger row as it stands in the table.
type row struct {
	ID                                    string
	At                                    time.Time
	Port, User, Feature, Provider, Model  string
	RequestID, ResponseID                 string
	Input, Output, Total                  int64
	CacheRead, CacheWrite, Reasoning      int64
	MeasuredBy, Status                    string
	UserIsNull, RequestNull, ResponseNull bool
}

// rowOf is the row that an entry should have.
func rowOf(e ledger.Entry) row {
	u := e.Usage
	return row{
		ID: e.ID.String(), At: e.At, Port: u.PortID, User: u.UserID, Feature: u.Feature, Provider: u.Provider, Model: u.Model,
		RequestID: u.RequestID, ResponseID: u.ResponseID, Input: u.InputTokens, Output: u.OutputTokens, Total: u.InputTokens + u.OutputTokens,
		CacheRead: u.Details.CacheReadInputTokens, CacheWrite: u.Details.CacheWriteInputTokens, Reasoning: u.Details.ReasoningOutputTokens,
		MeasuredBy: string(u.MeasuredBy), Status: string(u.Status),
		UserIsNull: u.UserID == "", RequestNull: u.RequestID == "", ResponseNull: u.ResponseID == "",
	}
}

func (s store) rows(t testing.TB) []row {
	t.Helper()
	return query[row](t, s.db, `select id::text, created_at, port_id, coalesce(user_id, ''), feature, provider, model,
		coalesce(request_id, ''), coalesce(response_id, ''), input_tokens, output_tokens, total_tokens,
		cache_read_input_tokens, cache_write_input_tokens, reasoning_output_tokens, measured_by, status,
		user_id is null, request_id is null, response_id is null
		from ai_usage_ledger`)
}

// wantRows checks that the ledger holds exactly these entries, and that both
// rollups say so too.
func (s store) wantRows(t testing.TB, entries ...ledger.Entry) {
	t.Helper()
	var want []row
	for _, e := range entries {
		want = append(want, rowOf(e))
	}
	got := s.rows(t)
	for i := range got {
		got[i].At = got[i].At.UTC()
	}
	byKey := func(a, b row) int { return strings.Compare(a.Port+" "+a.ID, b.Port+" "+b.ID) }
	slices.SortFunc(want, byKey)
	slices.SortFunc(got, byKey)
	if !slices.Equal(want, got) { // cmp takes longer over many rows than booking them took
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("ledger rows (-want +got):\n%s", diff)
		}
	}
	s.wantSums(t)
}

// total is a row of ai_usage_totals.
type total struct {
	Port, Day, Feature, Provider, Model                                       string
	Requests, Input, Output, Total, CacheRead, CacheWrite, ReasoningOutTokens int64
}

type portDay struct {
	Port, Day       string
	Requests, Total int64
}

// wantSums adds up the ledger rows here, in Go, and compares both rollups with
// that. It shares nothing with Verify.
func (s store) wantSums(t testing.TB) {
	t.Helper()
	totals, days := map[total]total{}, map[portDay]portDay{}
	for _, r := range s.rows(t) {
		day := r.At.UTC().Format(time.DateOnly)
		key := total{Port: r.Port, Day: day, Feature: r.Feature, Provider: r.Provider, Model: r.Model}
		sum, ok := totals[key]
		if !ok {
			sum = key
		}
		sum.Requests++
		sum.Input += r.Input
		sum.Output += r.Output
		sum.Total += r.Total
		sum.CacheRead += r.CacheRead
		sum.CacheWrite += r.CacheWrite
		sum.ReasoningOutTokens += r.Reasoning
		totals[key] = sum
		d, ok := days[portDay{Port: r.Port, Day: day}]
		if !ok {
			d = portDay{Port: r.Port, Day: day}
		}
		d.Requests++
		d.Total += r.Total
		days[portDay{Port: r.Port, Day: day}] = d
	}
	gotTotals, gotDays := map[total]total{}, map[portDay]portDay{}
	for _, x := range query[total](t, s.db, `select port_id, day::text, feature, provider, model, requests, input_tokens, output_tokens,
		total_tokens, cache_read_input_tokens, cache_write_input_tokens, reasoning_output_tokens from ai_usage_totals`) {
		gotTotals[total{Port: x.Port, Day: x.Day, Feature: x.Feature, Provider: x.Provider, Model: x.Model}] = x
	}
	for _, x := range query[portDay](t, s.db, "select port_id, day::text, requests, total_tokens from ai_usage_port_days") {
		gotDays[portDay{Port: x.Port, Day: x.Day}] = x
	}
	if diff := cmp.Diff(totals, gotTotals); diff != "" {
		t.Errorf("totals against the ledger (-ledger +totals):\n%s", diff)
	}
	if diff := cmp.Diff(days, gotDays); diff != "" {
		t.Errorf("days against the ledger (-ledger +port_days):\n%s", diff)
	}
}

func query[T any](t testing.TB, db *pgxpool.Pool, sql string, args ...any) []T {
	t.Helper()
	rows, err := db.Query(context.Background(), sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[T])
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func one[T any](t testing.TB, db *pgxpool.Pool, sql string, args ...any) (v T) {
	t.Helper()
	if err := db.QueryRow(context.Background(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func exec(t testing.TB, db *pgxpool.Pool, sql string, args ...any) int64 {
	t.Helper()
	tag, err := db.Exec(context.Background(), sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return tag.RowsAffected()
}
