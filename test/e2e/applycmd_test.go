package e2e

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/testenv"
)

// Budgets of a file are stored where they differ, all or nothing as far as can be known before,
// and a second time nothing is.
func TestBudgetApply(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.cli(0, "budget", "set", "p1", "--soft", "500k", "--hard", "1M")
	s.cli(0, "budget", "limits", "set", "p1", "old", "--window", "day", "--hard", "10")
	s.cli(0, "budget", "limits", "set", "p1", "ocr", "--match", "feature=ocr", "--window", "day", "--hard", "200000")
	s.cli(0, "budget", "set", "other", "--hard", "1")
	file := writeFile(t, `{
 "p2": {"period": "week", "hard_cap_tokens": 7000},
 "p1": {"hard_cap_tokens": 2000000, "limits": [
  {"name": "each-user", "per": "user_id", "window": "hour", "unit": "weighted", "weights": {"output": 4}, "hard": 25000},
  {"name": "ocr", "match": {"feature": "ocr"}, "window": "day", "unit": "tokens", "soft": 1000, "hard": 300000}]}
}`)
	const p1 = `p1:
  ~ hard_cap_tokens: 1,000,000 → 2,000,000
  ~ soft_cap_tokens: 500,000 → none
  + limit each-user: match any, per user_id, window hour, unit weighted input=1 cache_read=1 cache_write=1 output=4, soft none, hard 25,000
  ~ limit ocr: hard: 200,000 → 300,000
  ~ limit ocr: soft: none → 1,000
  - limit old: match any, per none, window day, unit tokens, soft none, hard 10
`
	const p2 = `p2:
  ~ enabled: false → true
  ~ hard_cap_tokens: none → 7,000
  ~ period: month → week
`
	wantText := func(what, got, want string) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: want (-), got (+):\n%s", what, diff)
		}
	}
	wantText("--dry-run", s.cli(0, "budget", "apply", file, "--dry-run"), p1+p2)
	if b, c := s.stored("p1"), s.stored("p2"); b.Version != 3 || c.Version != 0 {
		t.Fatalf("--dry-run stores something: %+v, %+v", b, c)
	}
	wantText("apply", s.cli(0, "budget", "apply", file), p1+"  stored as version 4\n"+p2+"  stored as version 1\n")
	b := s.stored("p1")
	if !b.Enabled || *b.HardCapTokens != 2_000_000 || b.SoftCapTokens != nil || len(b.Limits) != 2 || b.Limits[0].Name != "each-user" || *b.Limits[1].Hard != 300_000 || !strings.HasPrefix(b.UpdatedBy, "cli:") {
		t.Errorf("stored: %+v", b)
	}
	if c, other := s.stored("p2"), s.stored("other"); c.Period != events.PeriodWeek || *c.HardCapTokens != 7000 || other.Version != 1 {
		t.Errorf("stored: %+v, %+v", c, other)
	}
	wantText("apply again", s.cli(0, "budget", "apply", file), "p1: nothing to change\np2: nothing to change\n")
	if again := s.stored("p1"); again.Version != b.Version {
		t.Errorf("nothing was to change, and version %d became %d", b.Version, again.Version)
	}
}

// A file in which something is wrong changes nothing, and the message says where.
func TestBudgetApplyRefuses(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.cli(0, "budget", "set", "p2", "--hard", "5")
	long := strings.Repeat("m", 200)
	var limits []string
	for i := range 50 {
		limits = append(limits, fmt.Sprintf(`{"name":"a%d","match":{"model":"%s","feature":"%s"},"window":"day","hard":1}`, i, long, long))
	}
	for text, want := range map[string]string{
		`{"p1":{"hard_cap_tokens":1},"p2":{"limits":[{"name":"a","window":"day","hard":1},{"name":"b","window":"year","hard":1}]}}`: `p2: invalid_field: limits[1] (b).window = "year": must be hour`,
		`{"p1":{"hard_cap_tokens":1},"p2":{"limits":[{"name":"a","window":"day","hrad":1}]}}`:                                       "p2: limits[0].hrad: there is no such field",
		`{"p1":{"hard_cap_tokens":1},"p 2":{}}`:                                            "p 2: invalid_field: port_id",
		`{"p1":{"hard_cap_tokens":1},"p2":{"version":7}}`:                                  "p2: version: it is of version 7 and version 1 is stored",
		`{"p1":{"hard_cap_tokens":1},"p2":{"port_id":"p1"}}`:                               "p2: port_id: names the port p1",
		`{"p1":{"hard_cap_tokens":1},"p1":{}}`:                                             "p1: is there twice",
		`{"p1":{"hard_cap_tokens":"1M"},"p2":{"soft_cap_tokens":9,"hard_cap_tokens":8}}`:   "p1: hard_cap_tokens: must be a whole number\np2: invalid_field: soft_cap_tokens = 9",
		`{"p1":{"hard_cap_tokens":1},"p2":{"limits":[` + strings.Join(limits, ",") + `]}}`: "p2: limits: are ",
		`{"enabled":true,"p1":{"hard_cap_tokens":1}}`:                                      "enabled: must be a JSON object",
	} {
		if out := s.cli(1, "budget", "apply", writeFile(t, text)); !strings.Contains(out, want) {
			t.Errorf("%s\nprints %s\nwant %s", text, out, want)
		}
		if b := s.stored("p1"); b.Version != 0 {
			t.Fatalf("%s\nis stored in part: %+v", text, b)
		}
	}
}

// Machines read the same, and pipe it in.
func TestBudgetApplyForMachines(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	s.cli(0, "budget", "limits", "set", "p1", "a", "--window", "day", "--hard", "10")
	s.cli(0, "budget", "limits", "set", "p1", "b", "--window", "day", "--hard", "10")
	apply := func(text string, args ...string) (all []struct {
		PortID  string `json:"port_id"`
		Changes []struct {
			Limit, Field string
			Old, New     any
		}
		Stored  bool
		Version int64
	}) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), testenv.Binary(t, "cmd/tidegate"), append([]string{"budget", "apply", "-", "--json", "--nats-url", s.nats.ClientURL()}, args...)...)
		cmd.Stdin = strings.NewReader(text)
		out := testenv.Must(cmd.Output())
		if err := json.Unmarshal(out, &all); err != nil || len(all) != 1 {
			t.Fatalf("%v\n%s", err, out)
		}
		return all
	}
	got := apply(`{"p1":{"limits":[{"name":"b","window":"day","hard":10},{"name":"a","window":"day","hard":11}]}}`, "--dry-run")[0]
	if len(got.Changes) != 2 || got.Changes[0].Limit != "a" || got.Changes[0].Field != "hard" || got.Changes[0].Old != 10.0 || got.Changes[0].New != 11.0 ||
		got.Changes[1].Field != "limits" || got.Stored || got.Version != 2 {
		t.Errorf("%+v", got)
	}
	got = apply(`{"p1":{"version":2,"limits":[]}}`)[0]
	if len(got.Changes) != 2 || got.Changes[0].New != nil || !got.Stored || got.Version != 3 || len(s.stored("p1").Limits) != 0 {
		t.Errorf("%+v, and stored is %+v", got, s.stored("p1"))
	}
	got = apply(`{"p1":{"version":2,"limits":[]}}`)[0] // the version is older than what it made
	if got.Changes == nil || len(got.Changes) != 0 || got.Stored || got.Version != 3 {
		t.Errorf("again: %+v", got)
	}
}

// Whoever is overtaken overwrites nothing, and is told what is stored already.
func TestBudgetApplyOvertaken(t *testing.T) {
	t.Parallel()
	s := start(t, options{noRoles: true})
	answer := func(base string, with func(port string) *nats.Msg) {
		_ = testenv.Must(s.nc.Subscribe(base+".*", func(m *nats.Msg) {
			port, _ := events.SubjectPort(base, m.Subject)
			_ = m.RespondMsg(with(port))
		}))
	}
	var mu sync.Mutex
	asked := map[string]int64{}
	answer(events.SubjectBudgetGet, func(string) *nats.Msg {
		return &nats.Msg{Data: []byte(`{"enabled":true,"soft_cap_tokens":null,"hard_cap_tokens":1,"period":"month","version":6}`)}
	})
	answer(events.SubjectBudgetSet, func(port string) *nats.Msg {
		mu.Lock()
		defer mu.Unlock()
		if asked[port]++; port == "p2" {
			return &nats.Msg{Header: nats.Header{"Nats-Service-Error-Code": {"409"}, "Nats-Service-Error": {"conflict"}}, Data: []byte(`{}`)}
		}
		return &nats.Msg{Data: []byte(`{"enabled":true,"soft_cap_tokens":null,"hard_cap_tokens":2,"period":"month","version":7}`)}
	})
	if err := s.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	out := s.cli(1, "budget", "apply", writeFile(t, `{"p1":{"hard_cap_tokens":2},"p2":{"hard_cap_tokens":2},"p3":{"hard_cap_tokens":2}}`))
	for _, want := range []string{"p1:\n  ~ hard_cap_tokens: 1 → 2\n  stored as version 7\n", "p2: somebody else stored another budget than version 6 meanwhile\n  stored before it: p1; run"} {
		if !strings.Contains(out, want) {
			t.Errorf("apply does not say %q:\n%s", want, out)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if diff := cmp.Diff(map[string]int64{"p1": 1, "p2": 1}, asked); diff != "" {
		t.Errorf("how often each was to be stored: want (-), got (+):\n%s", diff)
	}
}
