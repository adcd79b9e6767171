package ledger_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

// Ports are read until none that is left can have another of the users.
func TestTopUsers(t *testing.T) {
	t.Parallel()
	for _, keptCalls := range []int64{2, 2000} { // with ports that are busy enough to have their days kept, and without
		t.Run(fmt.Sprint(keptCalls), func(t *testing.T) {
			t.Parallel()
			testTopUsers(t, keptCalls)
		})
	}
}

func testTopUsers(t *testing.T, keptCalls int64) {
	s := newStore(t)
	s.KeepDaysFrom(keptCalls)
	used := map[string]map[string]int64{
		"flat":  {"": 900, "u1": 60, "u2": 50, "u3": 40}, // the most, and nearly all of it nobody's
		"one":   {"u1": 500, "u9": 1},
		"many":  {"u1": 100, "u2": 99, "u3": 98, "u4": 97},
		"small": {"u1": 100},
		"tiny":  {"u1": 99},
	}
	var entries []ledger.Entry
	var ports []ledger.PortTokens
	for _, port := range []string{"flat", "one", "many", "small", "tiny"} {
		var sum int64
		for user, tokens := range used[port] {
			entries = append(entries, call(port, noon, func(u *events.Usage) {
				u.UserID, u.InputTokens, u.OutputTokens, u.Details = user, tokens, 0, events.Details{}
			}))
			sum += tokens
		}
		ports = append(ports, ledger.PortTokens{PortID: port, Tokens: sum})
	}
	entries = append(entries, call("small", noon.AddDate(0, -1, 0), func(u *events.Usage) { u.UserID = "before" }))
	s.book(t, entries...)
	start, end := budget.Month.Bounds(noon)
	for _, c := range []struct {
		most, mostPorts int
		atMost          time.Duration
		want            string
	}{
		{2, 9, time.Minute, "[one/u1:500 many/u1:100] of 3 ports, exact true"}, // small may not have one with more than 100
		{4, 9, time.Minute, "[one/u1:500 many/u1:100 small/u1:100 many/u2:99] of 5 ports, exact true"},
		{20, 9, time.Minute, "[one/u1:500 many/u1:100 small/u1:100 many/u2:99 tiny/u1:99 many/u3:98 many/u4:97 flat/u1:60 flat/u2:50 flat/u3:40 one/u9:1] of 5 ports, exact true"},
		{4, 2, time.Minute, "[one/u1:500 flat/u1:60 flat/u2:50 flat/u3:40] of 2 ports, exact false"},
		{4, 9, 0, "[flat/u1:60 flat/u2:50 flat/u3:40] of 1 ports, exact false"}, // there is always a first one
	} {
		got, err := s.TopUsers(t.Context(), ports, start, end, c.most, c.mostPorts, c.atMost)
		if err != nil {
			t.Fatal(err)
		}
		users := []string{}
		for _, u := range got.Users {
			users = append(users, fmt.Sprintf("%s/%s:%d", u.PortID, u.User, u.Tokens))
		}
		if diff := cmp.Diff(c.want, fmt.Sprintf("%v of %d ports, exact %t", users, got.Ports, got.Exact)); diff != "" {
			t.Errorf("%d users of %d ports (-want +got):\n%s", c.most, c.mostPorts, diff)
		}
	}
	if got, err := s.TopUsers(t.Context(), nil, start, end, 8, 8, time.Minute); err != nil || len(got.Users) != 0 || !got.Exact {
		t.Errorf("of no ports: %+v, %v", got, err)
	}
}
