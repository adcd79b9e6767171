package bus_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/internal/bus"
)

// sent is what comes of decoding what was encoded: an error, or the same.
func sent[M bus.Message](t *testing.T, m M, now time.Time) error {
	t.Helper()
	body, err := bus.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	got, err := bus.Decode[M](body, now)
	if diff := cmp.Diff(m, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-told +heard):\n%s", diff)
	}
	return err
}

// A message of another version is ignored as a whole; one that says none is of the first,
// and a field that is not known yet does no harm.
func TestVersions(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	for body, ok := range map[string]bool{
		`{"v":1,"deleted":["p"]}`: true, `{"deleted":["p"]}`: true, `{"deleted":["p"],"colour":"red"}`: true,
		`{"v":0,"deleted":["p"]}`: false, `{"v":2,"deleted":["p"]}`: false, `{"v":"1","deleted":["p"]}`: false, `[]`: false, ``: false,
	} {
		n, err := bus.Decode[bus.Totals]([]byte(body), now)
		if (err == nil) != ok || ok && len(n.Deleted) != 1 {
			t.Errorf("%s: %+v, %v", body, n, err)
		}
	}
	body, err := bus.Encode(bus.Totals{From: "c", Seq: 7, At: now})
	if want := `{"v":1,"from":"c","seq":7,"at":"2026-11-28T12:00:00Z","last":false}`; string(body) != want {
		t.Errorf("%s, %v; want %s", body, err, want)
	}
}

// What is told within Tidegate is bounded in every field.
func TestInternalMessagesAreBounded(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	today := int32(now.Unix() / 86400)
	year9000 := time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC)
	tooMany := strings.Split(strings.Repeat("p,", bus.MaxPorts)+"p", ",")
	hard, soft := int64(1), int64(2)

	totals := func(change func(*bus.Totals)) error {
		n := bus.Totals{From: "c", Seq: 1, At: now, Ports: []string{"p"}, Days: []int32{today}, Tokens: []int64{1}, Deleted: []string{"q"}}
		change(&n)
		return sent(t, n, now)
	}
	holds := func(change func(*bus.Holds)) error {
		n := bus.Holds{Ports: []string{"p"}, Tokens: []int64{1}, At: []int64{now.UnixMicro()}, Recall: []string{"q"}}
		change(&n)
		return sent(t, n, now)
	}
	stored := func(change func(*bus.Budget)) error {
		n := bus.Budget{PortID: "p", Budget: budget.Budget{Period: budget.Month, Version: 1, UpdatedAt: now}}
		change(&n)
		return sent(t, n, now)
	}
	request := func(change func(*bus.UsedRequest)) error {
		r := bus.UsedRequest{Ports: []string{"p"}, Start: today - 27, End: today + 3}
		change(&r)
		return sent(t, r, now)
	}
	used := func(change func(*bus.Used)) error {
		u := bus.Used{Gate: "g", Tokens: []int64{1}, AsOf: now}
		change(&u)
		return sent(t, u, now)
	}
	type T = bus.Totals
	type H = bus.Holds
	type B = bus.Budget
	type R = bus.UsedRequest
	type U = bus.Used
	for name, err := range map[string]error{
		"totals": totals(func(*T) {}), "of a day that is just over": totals(func(n *T) { n.Days[0]-- }), "of tomorrow": totals(func(n *T) { n.Days[0]++ }),
		"a heartbeat": totals(func(n *T) { *n = T{From: "c", Seq: 2, At: now} }), "a deletion": totals(func(n *T) { *n = T{Deleted: []string{"p"}} }),
		"holds": holds(func(*H) {}), "a recall": holds(func(n *H) { *n = H{Recall: []string{"p"}} }),
		"a budget": stored(func(*B) {}), "the default budget": stored(func(n *B) { n.PortID = budget.DefaultPort }), "a request": request(func(*R) {}), "an answer": used(func(*U) {}),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, err := range map[string]error{
		"totals of a day that allocates 16 GiB": totals(func(n *T) { n.Days[0] = math.MaxInt32 }),
		"totals of a day before 1970":           totals(func(n *T) { n.Days[0] = -1 }),
		"negative totals":                       totals(func(n *T) { n.Tokens[0] = -1 }),
		"totals beyond all sums":                totals(func(n *T) { n.Tokens[0] = math.MaxInt64 }),
		"totals without a day":                  totals(func(n *T) { n.Days = nil }),
		"totals without tokens":                 totals(func(n *T) { n.Tokens = nil }),
		"totals of no port":                     totals(func(n *T) { n.Ports[0] = "a.b" }),
		"totals of too many ports": totals(func(n *T) {
			n.Ports, n.Days, n.Tokens = tooMany, make([]int32, len(tooMany)), make([]int64, len(tooMany))
		}),
		"totals of nobody":      totals(func(n *T) { n.From = "" }),
		"totals of a long name": totals(func(n *T) { n.From = strings.Repeat("x", 65) }),
		"totals of the future":  totals(func(n *T) { n.At = year9000 }),
		"a deletion of no port": totals(func(n *T) { n.Deleted[0] = "" }),
		"too many deletions":    totals(func(n *T) { n.Deleted = tooMany }),
		"holds of the future":   holds(func(n *H) { n.At[0] = year9000.UnixMicro() }),
		"holds before 1970":     holds(func(n *H) { n.At[0] = -1 }),
		"negative holds":        holds(func(n *H) { n.Tokens[0] = -1 }),
		"holds beyond all sums": holds(func(n *H) { n.Tokens[0] = math.MaxInt64 }),
		"holds of no port":      holds(func(n *H) { n.Ports[0] = strings.Repeat("x", 65) }),
		"holds without a time":  holds(func(n *H) { n.At = nil }),
		"holds without tokens":  holds(func(n *H) { n.Tokens = nil }),
		"too many holds": holds(func(n *H) {
			n.Ports, n.At, n.Tokens = tooMany, make([]int64, len(tooMany)), make([]int64, len(tooMany))
		}),
		"a recall of no port":                  holds(func(n *H) { n.Recall[0] = "*" }),
		"too many recalls":                     holds(func(n *H) { n.Recall = tooMany }),
		"a budget of no port":                  stored(func(n *B) { n.PortID = "" }),
		"a budget of a version that overflows": stored(func(n *B) { n.Budget.Version = math.MaxInt32 + 1 }),
		"a budget of a negative version":       stored(func(n *B) { n.Budget.Version = -1 }),
		"a budget of the future":               stored(func(n *B) { n.Budget.UpdatedAt = year9000 }),
		"a budget of no period":                stored(func(n *B) { n.Budget.Period = "year" }),
		"a soft cap above the hard one":        stored(func(n *B) { n.Budget.SoftCapTokens, n.Budget.HardCapTokens = &soft, &hard }),
		"a request for no port":                request(func(r *R) { r.Ports[0] = ">" }),
		"a request for too many ports":         request(func(r *R) { r.Ports = tooMany }),
		"a request that ends before it starts": request(func(r *R) { r.End = r.Start - 1 }),
		"a request from before 1970":           request(func(r *R) { r.Start = math.MinInt32 }),
		"a request up to the end of time":      request(func(r *R) { r.End = math.MaxInt32 }),
		"an answer of nobody":                  used(func(u *U) { u.Gate = "" }),
		"an answer of a long name":             used(func(u *U) { u.Gate = strings.Repeat("x", 65) }),
		"a negative answer":                    used(func(u *U) { u.Tokens[0] = -1 }),
		"an answer about too many ports":       used(func(u *U) { u.Tokens = make([]int64, len(tooMany)) }),
		"an answer of the future":              used(func(u *U) { u.AsOf = year9000 }),
	} {
		if err == nil {
			t.Errorf("%s: not refused", name)
		}
	}
}
