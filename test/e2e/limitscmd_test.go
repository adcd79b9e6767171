package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

// cli runs a client command and wants its exit code.
func (s *system) cli(want int, args ...string) string {
	s.t.Helper()
	out, code := tidegate(s.t, testenv.Binary(s.t, "cmd/tidegate"), s.nats.ClientURL(), args...)
	if code != want {
		s.t.Fatalf("tidegate %q: exit %d, want %d\n%s", args, code, want, out)
	}
	return out
}

func (s *system) cliJSON(into any, args ...string) {
	s.t.Helper()
	if out := s.cli(0, append(args, "--json")...); json.Unmarshal([]byte(out), into) != nil {
		s.t.Fatalf("tidegate %q prints\n%s", args, out)
	}
}

func (s *system) stored(port string) events.Budget {
	s.t.Helper()
	return testenv.Must(s.client.Get(s.t.Context(), port))
}

var spaces = regexp.MustCompile(` {2,}`)

// cells is a table whose columns are separated by |, however wide they are.
func cells(out string) string {
	var lines []string
	for line := range strings.Lines(out) {
		lines = append(lines, spaces.ReplaceAllString(strings.TrimSpace(line), "|"))
	}
	return strings.Join(lines, "\n")
}

func wantTable(t *testing.T, out, want string) {
	t.Helper()
	if diff := cmp.Diff(strings.TrimSpace(want), strings.TrimSpace(cells(out))); diff != "" {
		t.Errorf("want (-), got (+):\n%s\n%s", diff, out)
	}
}

// writeFile writes a file of the test's own.
func writeFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "budgets.json")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Limits are added, changed in what is named only, listed beside the port's own caps, and
// removed.
func TestLimitsCommands(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	if out := s.cli(0, "budget", "limits", "ls", "p1"); !strings.Contains(out, "p1 has no budget") {
		t.Errorf("limits of a port without a budget:\n%s", out)
	}
	if out := s.cli(1, "budget", "limits", "set", "p1", "ocr", "--hard", "5"); !strings.Contains(out, "no limit named ocr yet, and a new one needs a --window") {
		t.Errorf("a new limit without a window:\n%s", out)
	}
	if out := s.cli(1, "budget", "limits", "set", "p1", "ocr", "--window", "day"); !strings.Contains(out, "a limit without a cap limits nothing") {
		t.Errorf("a new limit without a cap:\n%s", out)
	}
	if b := s.stored("p1"); b.Version != 0 {
		t.Fatalf("what was refused is stored: %+v", b)
	}
	wantTable(t, s.cli(0, "budget", "limits", "set", "p1", "ocr", "--window", "day", "--match", "feature=ocr,pdf", "--match", "model=gpt-5*", "--soft", "1.5M", "--hard", "2,000,000"), `
limit|match|per|window|unit|soft cap|hard cap
port|any|none|month|tokens|none|none
ocr|feature=ocr,pdf model=gpt-5*|none|day|tokens|1,500,000|2,000,000`)
	s.cli(0, "budget", "set", "p1", "--hard", "10M")
	s.cli(0, "budget", "limits", "set", "p1", "users", "--window", "total", "--per", "user_id", "--unit", "weighted", "--weight", "output=4", "--weight", "cache_read=0.1", "--hard", "25k")
	wantTable(t, s.cli(0, "budget", "limits", "set", "p1", "ocr", "--match", "model=", "--soft", "none"), `
limit|match|per|window|unit|soft cap|hard cap
port|any|none|month|tokens|none|10,000,000
ocr|feature=ocr,pdf|none|day|tokens|none|2,000,000
users|any|user_id|total|weighted cache_read=0.1 output=4|none|25,000`)

	get := s.cli(0, "budget", "get", "p1")
	own, limits, _ := strings.Cut(get, "\n\n")
	if !strings.Contains(own, "10,000,000") || !strings.Contains(cells(limits), "\nusers|any|user_id|total|weighted cache_read=0.1 output=4|none|25,000") || strings.Contains(limits, "port") {
		t.Errorf("budget get prints\n%s", get)
	}
	var listed []budget.Limit
	s.cliJSON(&listed, "budget", "limits", "ls", "p1")
	if len(listed) != 3 || listed[0].Name != "port" || *listed[0].Hard != 10_000_000 || listed[2].Per != budget.PerUser || *listed[2].Weights.Output != 4000 {
		t.Errorf("limits ls --json: %+v", listed)
	}

	s.cli(0, "budget", "limits", "set", "p1", "users", "--per", "none", "--unit", "requests")
	if l := s.stored("p1").Limits[1]; l.Per != "" || l.Unit != budget.Requests || l.Weights != (budget.Weights{}) || *l.Hard != 25_000 {
		t.Errorf("stored: %+v", l)
	}
	if out := s.cli(1, "budget", "limits", "set", "p1", "port", "--hard", "5"); !strings.Contains(out, "tidegate budget set p1") {
		t.Errorf("the port's own caps as a limit:\n%s", out)
	}
	version := s.stored("p1").Version
	if out := s.cli(1, "budget", "limits", "rm", "p1", "ocr", "user"); !strings.Contains(out, "p1 has no limit named user; it has ocr, users") {
		t.Errorf("a limit that is not there is removed:\n%s", out)
	}
	if b := s.stored("p1"); b.Version != version || len(b.Limits) != 2 {
		t.Errorf("an edit that failed is stored: %+v", b)
	}
	wantTable(t, s.cli(0, "budget", "limits", "rm", "p1", "users", "ocr"), `
limit|match|per|window|unit|soft cap|hard cap
port|any|none|month|tokens|none|10,000,000`)
	s.cli(0, "budget", "set", "p1", "--no-enabled")
	if out := s.cli(0, "budget", "limits", "ls", "p1"); !strings.Contains(out, "The budget of p1 is disabled") {
		t.Errorf("a budget that does not bind:\n%s", out)
	}
}

// What get prints is stored whole again, unless another version is stored meanwhile.
func TestBudgetGetAndSetRoundTrip(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.cli(0, "budget", "set", "p1", "--soft", "5", "--hard", "10", "--period", "week", "--no-enabled")
	s.cli(0, "budget", "limits", "set", "p1", "each", "--per", "run_id", "--window", "hour", "--hard", "3")
	first := s.cli(0, "budget", "get", "p1", "--json")
	file := writeFile(t, first)
	s.cli(0, "budget", "set", "p1", "--file", file)
	var before, after events.Budget
	if err := json.Unmarshal([]byte(first), &before); err != nil {
		t.Fatal(err)
	}
	after = s.stored("p1")
	if after.Version != before.Version+1 {
		t.Errorf("version %d follows %d", after.Version, before.Version)
	}
	after.Version, after.UpdatedAt = before.Version, before.UpdatedAt
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("what was stored (-) is now (+):\n%s", diff)
	}
	if out := s.cli(1, "budget", "set", "p1", "--file", file); !strings.Contains(out, "version: it is of version 2 and version 3 is stored") {
		t.Errorf("an older version:\n%s", out)
	}
	if out := s.cli(1, "budget", "set", "p2", "--file", file); !strings.Contains(out, "port_id: it is the budget of p1") {
		t.Errorf("another port's budget:\n%s", out)
	}
	if out := s.cli(1, "budget", "set", "p1", "--file", file, "--hard", "7"); !strings.Contains(out, "--hard and --file can't be used together") {
		t.Errorf("a file and a cap:\n%s", out)
	}
	if out := s.cli(1, "budget", "set", "p1", "--file", writeFile(t, `{"limits":[{"name":"a","window":"day","hard":1,"macht":{"feature":"ocr"}}]}`)); !strings.Contains(out, "limits[0].macht: there is no such field") {
		t.Errorf("a misspelt field:\n%s", out)
	}
	if b := s.stored("p1"); b.Version != 3 {
		t.Fatalf("what was refused is stored: %+v", b)
	}

	var printed struct {
		Limits *[]events.Limit `json:"limits"`
	}
	s.cliJSON(&printed, "budget", "set", "p1", "--file", writeFile(t, `{"hard_cap_tokens":7}`))
	if b := s.stored("p1"); !b.Enabled || *b.HardCapTokens != 7 || b.SoftCapTokens != nil || b.Period != events.PeriodMonth || len(b.Limits) != 0 {
		t.Errorf("a document is the whole budget, but stored is %+v", b)
	}
	if printed.Limits == nil || len(*printed.Limits) != 0 {
		t.Errorf("that there are no limits is printed as %v", printed.Limits)
	}
}

// Extra tokens are given for a while, stay when something else is changed, bind checks and
// reservations alike, are written down, and can be taken away.
func TestExtraTokensCommands(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.cli(0, "budget", "set", "p1", "--hard", "100")
	out := s.cli(0, "budget", "set", "p1", "--extra", "50", "--until", "2h")
	if !strings.Contains(out, "50 tokens on top of the hard cap until ") {
		t.Errorf("set:\n%s", out)
	}
	s.cli(0, "budget", "set", "p1", "--soft", "80")
	b := s.stored("p1")
	if b.ExtraTokens == nil || *b.ExtraTokens != 50 || time.Until(b.ExtraUntil) < time.Hour || *b.SoftCapTokens != 80 {
		t.Errorf("stored: %+v", b)
	}
	if v := s.check("p1", 150); !v.Allowed || *v.HardCapTokens != 150 {
		t.Errorf("a check of all: %+v", v)
	}
	if v := s.check("p1", 151); v.Allowed {
		t.Errorf("a check of more: %+v", v)
	}
	if v := testenv.Must(s.client.Reserve(t.Context(), events.ReserveRequest{PortID: "p1", Feature: "f", EstimatedTokens: 120})); !v.Allowed || *v.HardCapTokens != 150 || *v.RemainingTokens != 30 {
		t.Errorf("a reservation: %+v", v)
	}

	file := writeFile(t, s.cli(0, "budget", "get", "p1", "--json"))
	s.cli(0, "budget", "set", "p1", "--file", file)
	if after := s.stored("p1"); after.ExtraTokens == nil || *after.ExtraTokens != 50 || !after.ExtraUntil.Equal(b.ExtraUntil) {
		t.Errorf("what get prints is stored as %+v", after)
	}
	s.cli(0, "budget", "set", "p1", "--extra", "0")
	if after := s.stored("p1"); after.ExtraTokens != nil || !after.ExtraUntil.IsZero() {
		t.Errorf("taken away: %+v", after)
	}
	s.cli(0, "budget", "set", "p1", "--extra", "7")
	if after := s.stored("p1"); after.ExtraTokens == nil || !after.ExtraUntil.Equal(s.check("p1", 0).ResetsAt) {
		t.Errorf("without --until they end with the period, but stored is %+v", after)
	}
	s.cli(0, "budget", "set", "p1", "--hard", "none")
	if after := s.stored("p1"); after.HardCapTokens != nil || after.ExtraTokens != nil {
		t.Errorf("they go with the hard cap, but stored is %+v", after)
	}
	s.cli(0, "budget", "set", "p1", "--hard", "90", "--extra", "7")
	s.cli(0, "budget", "set", "p1", "--file", writeFile(t, `{"hard_cap_tokens":7}`))
	if after := s.stored("p1"); after.ExtraTokens != nil {
		t.Errorf("a document is the whole budget, but stored is %+v", after)
	}
	for want, args := range map[string][]string{
		`"tomorrow" is no time: try`:                   {"--extra", "5", "--until", "tomorrow"},
		`"2020-01-01T00:00:00Z" is over`:               {"--extra", "5", "--until", "2020-01-01T00:00:00Z"},
		"extra_until = ":                               {"--until", "6h"},
		"is on top of hard_cap_tokens: give that, too": {"--hard", "none", "--extra", "5"},
	} {
		if out := s.cli(1, append([]string{"budget", "set", "p1"}, args...)...); !strings.Contains(out, want) {
			t.Errorf("%q:\n%s", args, out)
		}
	}
	changes := testenv.Must(s.ledger.Audit(t.Context(), "p1", 0, 20))
	if len(changes) != 9 || !strings.Contains(string(changes[7].NewValue), `"extra_tokens": 50`) {
		t.Errorf("the audit log has %d changes: %s", len(changes), changes[min(7, len(changes)-1)].NewValue)
	}
}

// A check says which limit it answers for and in what that counts, and explains each.
func TestCheckSaysWhichLimit(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.cli(0, "budget", "set", "p1", "--hard", "1000000")
	s.cli(0, "budget", "limits", "set", "p1", "calls", "--match", "provider=openai", "--match", "model=gpt-5*", "--match", "feature=ocr", "--match", "run_id=r", "--unit", "requests", "--window", "day", "--hard", "100")
	s.cli(0, "budget", "limits", "set", "p1", "each-user", "--per", "user_id", "--window", "total", "--unit", "weighted", "--weight", "output=4", "--soft", "100", "--hard", "2000")
	u := usage("p1", 300)
	u.UserID, u.RunID = "u 1", "r"
	s.publisher.Record(u)
	testenv.Eventually(t, "the call is booked and known to the gate", func() bool { return s.booked("p1") == 300 && s.verified() })

	out := s.cli(3, "check", "p1", "--user", "u 1", "--input", "1000", "--output", "200") // 200 + 4*100 are used, 1,000 + 4*200 are asked
	for _, want := range []string{"refused: estimate_exceeds_hard_cap\n", "  limit      each-user (u 1), weighted in total\n", "  used       600 of 2,000 ", "  remaining  1,400\n", "  resets     never\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("check does not say %q:\n%s", want, out)
		}
	}
	if out := s.cli(0, "check", "p1", "--user", "u 1", "--estimate", "1200"); !strings.HasPrefix(out, "allowed, past a soft cap\n") {
		t.Errorf("the same tokens, unweighted:\n%s", out)
	}
	if out := s.cli(0, "check", "p1", "--feature", "ocr", "--provider", "openai", "--model", "gpt-5", "--run", "r"); !strings.Contains(out, "  limit      calls, requests per day\n") {
		t.Errorf("another user:\n%s", out)
	}
	out = s.cli(3, "check", "p1", "--user", "u 1", "--feature", "ocr", "--provider", "openai", "--model", "gpt-5", "--run", "r", "--input", "1000", "--output", "200", "--explain")
	_, table, _ := strings.Cut(out, "\n\n")
	resets := regexp.MustCompile(`\|\d{4}-\d\d-\d\d 00:00:00 UTC`)
	wantTable(t, resets.ReplaceAllString(cells(table), "|midnight"), `
limit|value|answer|used|held|soft cap|hard cap|remaining|window|unit|resets
port|allows|300|0|none|1,000,000|999,700|month|tokens|midnight
calls|allows|1|0|none|100|99|day|requests|midnight
each-user|u 1|estimate_exceeds_hard_cap|600|0|100|2,000|1,400|total|weighted|never`)

	raw := s.cli(3, "check", "p1", "--user", "u 1", "--input", "1000", "--output", "200", "--explain", "--json")
	var v events.Verdict
	if !strings.Contains(raw, "\n  \"resets_at\": null,\n") {
		t.Errorf("what never resets is printed as\n%s", raw)
	}
	if err := json.Unmarshal([]byte(raw), &v); err != nil || v.Limit != "each-user" || v.LimitValue != "u 1" || v.Unit != budget.Weighted || len(v.Limits) != 2 {
		t.Errorf("%v\n%s", err, raw)
	}
	if out := s.cli(1, "check", "p1", "--estimate", "5", "--input", strconv.Itoa(3)); !strings.Contains(out, "estimated_tokens = 5: must be the sum") {
		t.Errorf("an estimate that is not the sum of its parts:\n%s", out)
	}
}

// A limit is tried on what was yesterday, stored or not, and nothing is stored.
func TestLimitsSimulateCommand(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	yesterday := time.Now().UTC().Truncate(24 * time.Hour).Add(-12 * time.Hour)
	for i, user := range []string{"ada", "ada", "bo", "ada", ""} {
		u := usage("p1", 300)
		u.ID, u.UserID = events.NewUUIDv7(yesterday.Add(time.Duration(i)*time.Second)).String(), user
		s.publisher.Record(u)
	}
	testenv.Eventually(t, "the calls are booked", func() bool {
		page, err := s.ledger.Shares(t.Context(), events.ReportRequest{PortID: "p1", By: events.ByFeature}, yesterday.Truncate(24*time.Hour), yesterday.Truncate(24*time.Hour).AddDate(0, 0, 1))
		return err == nil && page.Requests == 5
	})
	out := s.cli(0, "budget", "limits", "simulate", "p1", "each-user", "--per", "user_id", "--window", "day", "--hard", "500")
	first, table, _ := strings.Cut(out, "\n\n")
	if want := "with this limit, 2 of 5 calls that it matches from " + yesterday.Format(time.DateOnly) + " to " + yesterday.Format(time.DateOnly) + " would have been refused"; !strings.HasPrefix(first, want) ||
		!strings.Contains(first, "1 of 3 values of user_id would have had calls refused:") {
		t.Errorf("simulate says\n%s\nwant\n%s", out, want)
	}
	if !strings.HasPrefix(cells(table), "user_id|refused|tokens|first\nada|2|600|") {
		t.Errorf("simulate lists\n%s", table)
	}
	if b := s.stored("p1"); b.Version != 0 {
		t.Errorf("stored is %+v", b)
	}
	// The stored limit, with another cap.
	s.cli(0, "budget", "limits", "set", "p1", "each-user", "--per", "user_id", "--window", "day", "--hard", "5000")
	var sim budget.LimitSimulation
	s.cliJSON(&sim, "budget", "limits", "simulate", "p1", "each-user", "--unit", "requests", "--hard", "1")
	if sim.Calls != 5 || sim.RefusedCalls != 2 || sim.RefusedValues != 1 || sim.Unit != budget.Requests {
		t.Errorf("%+v", sim)
	}
	if out := s.cli(1, "budget", "limits", "simulate", "p1", "other", "--hard", "1"); !strings.Contains(out, "needs a --window") {
		t.Errorf("no window:\n%s", out)
	}
	if out := s.cli(1, "budget", "limits", "simulate", "p1", "port", "--hard", "1"); !strings.Contains(out, "tidegate budget simulate p1 tries them") {
		t.Errorf("the port's own caps:\n%s", out)
	}
}
