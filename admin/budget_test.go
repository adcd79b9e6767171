package admin_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/bus"
	"github.com/tidegate/tidegate/internal/reservation"
	"github.com/tidegate/tidegate/internal/reservation/hold"
)

type budget struct {
	PortID          string    `json:"port_id"`
	Enabled         bool      `json:"enabled"`
	SoftCapTokens   *int64    `json:"soft_cap_tokens"`
	HardCapTokens   *int64    `json:"hard_cap_tokens"`
	Period          string    `json:"period"`
	Version         int64     `json:"version"`
	UpdatedAt       time.Time `json:"updated_at"`
	UpdatedBy       string    `json:"updated_by"`
	UsedTokens      int64     `json:"used_tokens"`
	HeldTokens      int64     `json:"held_tokens"`
	RemainingTokens *int64    `json:"remaining_tokens"`
	ProjectedTokens *int64    `json:"projected_tokens"`
	SoftCapReached  bool      `json:"soft_cap_reached"`
	HardCapReached  bool      `json:"hard_cap_reached"`
	PeriodStart     time.Time `json:"period_start"`
	ResetsAt        time.Time `json:"resets_at"`
	AsOf            time.Time `json:"as_of"`
}

const monthly = `{"enabled":true,"soft_cap_tokens":200,"hard_cap_tokens":300,"period":"month"}`

func TestBudgetOfAPortThatHasNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.do(request{method: "GET", path: budgetPath, token: w.all})
	a.want(w, http.StatusOK)
	if a.Header.Get("ETag") != `"0"` || a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Content-Type") != "application/json" {
		t.Errorf("headers: %v", a.Header)
	}
	var got budget
	a.into(w, &got)
	if time.Since(got.AsOf).Abs() > time.Minute {
		t.Errorf("as of %s", got.AsOf)
	}
	got.AsOf = time.Time{}
	want := budget{PortID: "p1", Period: "month", ProjectedTokens: new(int64), PeriodStart: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), ResetsAt: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !strings.Contains(a.text, `"updated_at":null`) || !strings.Contains(a.text, `"remaining_tokens":null`) {
		t.Errorf("what is not there should be null: %s", a.text)
	}
}

func TestPutStoresAnnouncesAndAudits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	heard, err := w.nats.SubscribeSync(bus.SubjectBudgets)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.nats.Flush(); err != nil {
		t.Fatal(err)
	}
	w.usage("p1", noon.AddDate(0, 0, -3))
	w.usage("p1", noon)
	w.usage("p1", noon.AddDate(0, -1, 0)) // last month
	w.usage("p2", noon)
	a := w.put(monthly, `"0"`)
	a.want(w, http.StatusOK)
	if a.Header.Get("ETag") != `"1"` {
		t.Errorf("ETag %s", a.Header.Get("ETag"))
	}
	var got budget
	a.into(w, &got)
	want := budget{PortID: "p1", Enabled: true, SoftCapTokens: new(int64(200)), HardCapTokens: new(int64(300)), Period: "month", Version: 1, UpdatedBy: got.UpdatedBy,
		UsedTokens: 220, RemainingTokens: new(int64(80)), ProjectedTokens: new(int64(293)), SoftCapReached: true, // 220 in 22.5 of 30 days
		PeriodStart: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), ResetsAt: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC), UpdatedAt: got.UpdatedAt, AsOf: got.AsOf}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !strings.HasPrefix(got.UpdatedBy, "all (token:") || time.Since(got.UpdatedAt).Abs() > time.Minute {
		t.Errorf("updated by %q at %s", got.UpdatedBy, got.UpdatedAt)
	}
	again := get[budget](w, budgetPath)
	again.AsOf = got.AsOf
	if diff := gocmp.Diff(got, again); diff != "" {
		t.Errorf("GET after PUT differs (-put +get):\n%s", diff)
	}

	msg, err := heard.NextMsg(5 * time.Second)
	if err != nil {
		t.Fatalf("the gates were not told: %v", err)
	}
	if notice, err := bus.Decode[bus.Budget](msg.Data, time.Now()); err != nil || notice.PortID != "p1" || notice.Budget.Version != 1 || *notice.Budget.HardCapTokens != 300 {
		t.Errorf("the gates heard %s", msg.Data)
	}

	log := get[struct {
		Changes []struct {
			PortID    string          `json:"port_id"`
			Key       string          `json:"key"`
			OldValue  json.RawMessage `json:"old_value"`
			NewValue  json.RawMessage `json:"new_value"`
			ChangedBy string          `json:"changed_by"`
		}
	}](w, "/api/v1/ports/p1/audit")
	if len(log.Changes) != 1 || log.Changes[0].ChangedBy != got.UpdatedBy || log.Changes[0].PortID != "p1" || log.Changes[0].Key != "ai.budget" ||
		string(log.Changes[0].OldValue) != "null" || !strings.Contains(string(log.Changes[0].NewValue), "300") {
		t.Errorf("the audit log says %+v", log)
	}
}

// Of many who save at once, having read the same version, one does.
func TestOneOfManyWritersWins(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put(monthly, `"0"`).want(w, http.StatusOK)
	var saving sync.WaitGroup
	statuses := make([]int, 8)
	for i := range statuses {
		saving.Go(func() {
			statuses[i] = w.put(fmt.Sprintf(`{"enabled":true,"soft_cap_tokens":null,"hard_cap_tokens":%d,"period":"month"}`, 1000+i), `"1"`).StatusCode
		})
	}
	saving.Wait()
	winner := -1
	for i, status := range statuses {
		switch {
		case status == http.StatusOK && winner < 0:
			winner = i
		case status != http.StatusPreconditionFailed:
			t.Errorf("writer %d got %d", i, status)
		}
	}
	got := get[budget](w, budgetPath)
	if winner < 0 || got.Version != 2 || *got.HardCapTokens != int64(1000+winner) {
		t.Errorf("the winner is %d, and the budget %+v", winner, got)
	}
}

func TestIfMatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, none := range []string{"", "*"} {
		if a := w.put(monthly, none); a.StatusCode != http.StatusPreconditionRequired {
			t.Errorf("If-Match %q: %d %s", none, a.StatusCode, a.text)
		}
	}
	for _, stale := range []string{`"1"`, "7"} {
		if a := w.put(monthly, stale); a.StatusCode != http.StatusPreconditionFailed {
			t.Errorf("If-Match %q: %d %s", stale, a.StatusCode, a.text)
		}
	}
	for _, odd := range []string{`"abc"`, `"-1"`, `"0", "1"`, `"99999999999999999999"`} {
		w.put(monthly, odd).wantField(w, "If-Match", fmt.Sprintf("%q", odd), "one ETag")
	}
	if got := get[budget](w, budgetPath); got.Version != 0 {
		t.Errorf("something was stored: %+v", got)
	}
	for i, good := range []string{`0`, `W/"1"`, `"2"`} {
		w.put(monthly, good).want(w, http.StatusOK)
		if got := get[budget](w, budgetPath); got.Version != int64(i+1) {
			t.Errorf("after %s the version is %d", good, got.Version)
		}
	}
}

// Extra tokens are stored and answered, stay when they are left out, and go with 0 or the hard cap.
func TestPutExtraTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.usage("p1", noon)
	w.usage("p1", noon)
	w.usage("p1", noon)
	until := noon.Add(time.Hour)
	put := func(version int, rest string, extra *int64, remaining int64) {
		t.Helper()
		w.put(`{"enabled":true,"soft_cap_tokens":null,"hard_cap_tokens":300,"period":"month"`+rest+`}`, fmt.Sprintf("%q", strconv.Itoa(version))).want(w, http.StatusOK)
		type extras struct {
			ExtraTokens *int64    `json:"extra_tokens"`
			ExtraUntil  time.Time `json:"extra_until"`
		}
		want := extras{extra, time.Time{}}
		if extra != nil {
			want.ExtraUntil = until
		}
		if got := get[extras](w, budgetPath); !gocmp.Equal(got, want) {
			t.Errorf("after %s: %+v", rest, got)
		}
		if got := get[budget](w, budgetPath); *got.RemainingTokens != remaining || got.HardCapReached != (remaining == 0) || *got.HardCapTokens != 300 {
			t.Errorf("after %s: %+v", rest, got)
		}
		list := get[struct {
			Ports []struct{ Budget extras }
		}](w, "/api/v1/ports")
		if !gocmp.Equal(list.Ports[0].Budget, want) {
			t.Errorf("after %s, in the list: %+v", rest, list)
		}
	}
	given := `,"extra_tokens":100,"extra_until":"` + until.Format(time.RFC3339) + `"`
	put(0, given, new(int64(100)), 70)
	put(1, "", new(int64(100)), 70)
	put(2, `,"extra_tokens":0`, nil, 0)
	put(3, given, new(int64(100)), 70)
	w.put(`{"enabled":true,"soft_cap_tokens":null,"hard_cap_tokens":null,"period":"month"}`, `"4"`).want(w, http.StatusOK)
	put(5, "", nil, 0)
	for rest, field := range map[string]string{
		`,"extra_tokens":-1,"extra_until":"2026-12-01T00:00:00Z"`: "extra_tokens",
		`,"extra_tokens":"5"`:                         "extra_tokens",
		`,"extra_tokens":5`:                           "extra_until",
		`,"extra_tokens":5,"extra_until":"tomorrow"`:  "extra_until",
		`,"extra_until":"2026-12-01T00:00:00Z"`:       "extra_until",
		`,"extra_tokens":5,"extra_untill":"tomorrow"`: "extra_untill",
	} {
		a := w.put(`{"enabled":true,"soft_cap_tokens":null,"hard_cap_tokens":300,"period":"month"`+rest+`}`, `"6"`)
		if a.StatusCode != http.StatusUnprocessableEntity || len(a.problem.Errors) != 1 || a.problem.Errors[0].Field != field {
			t.Errorf("%s: %d, %s", rest, a.StatusCode, a.text)
		}
	}
}

func TestInvalidBudgetsNameTheirFields(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const caps = "whole number from 0 to 9007199254740991, or null"
	for body, want := range map[string][3]string{
		`{"enabled":true,"soft_cap_tokens":null,"hard_cap_tokens":-1,"period":"month"}`:                          {"hard_cap_tokens", "-1", caps},
		`{"enabled":true,"soft_cap_tokens":-5,"hard_cap_tokens":null,"period":"month"}`:                          {"soft_cap_tokens", "-5", caps},
		`{"enabled":true,"soft_cap_tokens":null,"hard_cap_tokens":9007199254740992,"period":"month"}`:            {"hard_cap_tokens", "9007199254740992", caps},
		`{"enabled":true,"soft_cap_tokens":null,"hard_cap_tokens":99999999999999999999999,"period":"month"}`:     {"hard_cap_tokens", "99999999999999999999999", caps},
		`{"enabled":true,"soft_cap_tokens":null,"hard_cap_tokens":1.5,"period":"month"}`:                         {"hard_cap_tokens", "1.5", caps},
		`{"enabled":true,"soft_cap_tokens":null,"hard_cap_tokens":"1000","period":"month"}`:                      {"hard_cap_tokens", `"1000"`, caps},
		`{"enabled":true,"soft_cap_tokens":301,"hard_cap_tokens":300,"period":"month"}`:                          {"soft_cap_tokens", "301", "at most hard_cap_tokens (300)"},
		`{"enabled":true,"soft_cap_tokens":1,"hard_cap_tokens":300,"period":"year"}`:                             {"period", `"year"`, "day, week or month"},
		`{"enabled":true,"soft_cap_tokens":1,"hard_cap_tokens":300,"period":""}`:                                 {"period", `""`, "day, week or month"},
		`{"enabled":true,"soft_cap_tokens":1,"hard_cap_tokens":300,"period":3}`:                                  {"period", "3", "day, week or month"},
		`{"enabled":true,"soft_cap_tokens":1,"hard_cap_tokens":300}`:                                             {"period", "", "is required"},
		`{"enabled":true,"soft_cap_tokens":1,"period":"month"}`:                                                  {"hard_cap_tokens", "", "is required: must be a whole number"},
		`{"soft_cap_tokens":1,"hard_cap_tokens":300,"period":"month"}`:                                           {"enabled", "", "is required"},
		`{"enabled":null,"soft_cap_tokens":1,"hard_cap_tokens":300,"period":"month"}`:                            {"enabled", "null", "true or false"},
		`{"enabled":"yes","soft_cap_tokens":1,"hard_cap_tokens":300,"period":"month"}`:                           {"enabled", `"yes"`, "true or false"},
		`{"enabled":true,"soft_cap_tokens":1,"hard_cap_tokens":300,"period":"month","hard_cap":5}`:               {"hard_cap", "5", "is no setting; there are: enabled"},
		`{"enabled":true,"soft_cap_tokens":1,"hard_cap_tokens":300,"period":"month","version":5}`:                {"version", "5", "is no setting"},
		`{"enabled":true,"soft_cap_tokens":1,"hard_cap_tokens":300,"period":"month","Enabled":false}`:            {"Enabled", "false", "is no setting"},
		`{"enabled":true,"soft_cap_tokens":1,"hard_cap_tokens":300,"period":"` + strings.Repeat("x", 999) + `"}`: {"period", `"` + strings.Repeat("x", 79) + "…", "day, week or month"},
		`{"enabled":true,"soft_cap_tokens":1,"hard_cap_tokens":300,"period":"` + strings.Repeat("ä", 99) + `"}`:  {"period", `"` + strings.Repeat("ä", 39) + "…", "day, week or month"},
	} {
		w.put(body, `"0"`).wantField(w, want[0], want[1], want[2])
	}
	a := w.put(`{"enabled":1,"soft_cap_tokens":-1,"period":"year","x":null}`, `"0"`)
	var fields []string
	for _, e := range a.problem.Errors {
		fields = append(fields, e.Field)
	}
	if diff := gocmp.Diff([]string{"enabled", "soft_cap_tokens", "hard_cap_tokens", "period", "x"}, fields); diff != "" || a.StatusCode != 422 {
		t.Errorf("all that is wrong at once: %d, (-want +got):\n%s", a.StatusCode, diff)
	}
	for _, body := range []string{"", "null", "[]", "7", `"x"`, "{", `{"enabled":true}{"enabled":true}`, `{"enabled":true,"enabled":false}`, "{\"enabled\":\"\xff\"}"} {
		if a := w.put(body, `"0"`); a.StatusCode != http.StatusBadRequest || !strings.Contains(a.problem.Detail, "must be one JSON object") {
			t.Errorf("%q: %d %s", body, a.StatusCode, a.text)
		}
	}
	for _, kind := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1", "multipart/form-data; boundary=x"} {
		a := w.do(request{method: "PUT", path: budgetPath, token: w.all, body: monthly, header: []string{"If-Match", `"0"`, "Content-Type", kind}})
		if a.StatusCode != http.StatusUnsupportedMediaType {
			t.Errorf("content type %q: %d %s", kind, a.StatusCode, a.text)
		}
	}
	if got := get[budget](w, budgetPath); got.Version != 0 {
		t.Errorf("something was stored: %+v", got)
	}
	w.do(request{method: "PUT", path: budgetPath, token: w.all, body: monthly, header: []string{"If-Match", `"0"`, "Content-Type", "application/json; charset=UTF-8"}}).want(w, 200)
}

func TestCapsAtTheEdges(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.usage("p1", noon)
	for i, c := range []struct {
		body       string
		soft, hard bool
		remaining  string
	}{
		{`{"enabled":true,"soft_cap_tokens":null,"hard_cap_tokens":null,"period":"month"}`, false, false, "null"},
		{`{"enabled":true,"soft_cap_tokens":0,"hard_cap_tokens":0,"period":"month"}`, true, true, "0"},
		{`{"enabled":true,"soft_cap_tokens":110,"hard_cap_tokens":111,"period":"month"}`, true, false, "1"},
		{`{"enabled":true,"soft_cap_tokens":111,"hard_cap_tokens":9007199254740991,"period":"month"}`, false, false, "9007199254740881"},
		{`{"enabled":true,"soft_cap_tokens":110,"hard_cap_tokens":110,"period":"month"}`, true, true, "0"},
		{`{"enabled":false,"soft_cap_tokens":110,"hard_cap_tokens":110,"period":"month"}`, false, false, "0"},
	} {
		a := w.put(c.body, fmt.Sprintf("%q", fmt.Sprint(i)))
		a.want(w, http.StatusOK)
		var got budget
		a.into(w, &got)
		if got.SoftCapReached != c.soft || got.HardCapReached != c.hard || !strings.Contains(a.text, `"remaining_tokens":`+c.remaining+",") {
			t.Errorf("%s: %s", c.body, a.text)
		}
	}
}

// The period is the clock's; a hold counts in it.
func TestPeriodsAndHolds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.usage("p1", noon.AddDate(0, 0, -1))
	w.usage("p1", noon)
	w.put(`{"enabled":true,"soft_cap_tokens":null,"hard_cap_tokens":1000,"period":"day"}`, `"0"`).want(w, 200)
	if got := get[budget](w, budgetPath); got.UsedTokens != 110 || !got.ResetsAt.Equal(time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)) || *got.ProjectedTokens != 220 {
		t.Errorf("by the day: %+v", got)
	}
	w.clock.set(time.Date(2026, 11, 23, 0, 14, 0, 0, time.UTC))
	if got := get[budget](w, budgetPath); got.ProjectedTokens != nil || got.UsedTokens != 110 {
		t.Errorf("a day's first quarter of an hour foretells nothing: %+v", got)
	}
	w.clock.set(noon.AddDate(0, 0, 1))
	if got := get[budget](w, budgetPath); got.UsedTokens != 0 || *got.RemainingTokens != 1000 {
		t.Errorf("a day later: %+v", got)
	}
	w.clock.set(time.Now())
	hold := []events.ReserveRequest{{PortID: "p1", EstimatedTokens: 400}}
	if _, err := w.ledger.Reservations.Hold(t.Context(), hold, nil); err != nil {
		t.Fatal(err)
	}
	if got := get[budget](w, budgetPath); got.HeldTokens != 400 || *got.RemainingTokens != 600 {
		t.Errorf("with a hold of 400: %+v", got)
	}
}

// Who stores a budget is answered when no gate goes by the old one any more.
func TestAPutWaitsForLeases(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put(monthly, `"0"`).want(w, http.StatusOK)
	reserved, err := w.ledger.Reservations.Hold(t.Context(), nil, []reservation.Want{{PortID: "p1", Kind: hold.Kind{TTL: time.Minute}, For: 5 * time.Second, Tokens: 10, Least: 1, Holds: 1}})
	if err != nil || len(reserved.Leases) != 1 {
		t.Fatalf("%+v, %v; want a lease", reserved, err)
	}
	var sealed atomic.Bool
	var group sync.WaitGroup
	group.Go(func() { // as a gate that is slow to hear
		time.Sleep(300 * time.Millisecond)
		sealed.Store(true)
		if _, err := w.ledger.Reservations.Return(t.Context(), []hold.Returned{{PortID: "p1", ID: reserved.Leases[0].ID}}); err != nil {
			t.Error(err)
		}
	})
	w.put(monthly, `"1"`).want(w, http.StatusOK)
	if !sealed.Load() {
		t.Error("answered while a gate may still make holds by the old budget")
	}
	group.Wait()
}
