package events_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/events"
)

// What is told within Tidegate is bounded in every field.
func TestInternalMessagesAreBounded(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	today := int32(now.Unix() / 86400)
	year9000 := time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC)
	tooMany := strings.Split(strings.Repeat("p,", events.MaxNoticePorts)+"p", ",")
	hard, soft := int64(1), int64(2)

	totals := func(change func(*events.TotalsNotice)) error {
		n := events.TotalsNotice{From: "c", Seq: 1, At: now, Ports: []string{"p"}, Days: []int32{today}, Tokens: []int64{1}, Deleted: []string{"q"}}
		change(&n)
		return n.Validate(now)
	}
	holds := func(change func(*events.HoldsNotice)) error {
		n := events.HoldsNotice{Ports: []string{"p"}, Tokens: []int64{1}, At: []int64{now.UnixMicro()}, Recall: []string{"q"}}
		change(&n)
		return n.Validate(now)
	}
	budget := func(change func(*events.BudgetNotice)) error {
		n := events.BudgetNotice{PortID: "p", Budget: events.Budget{Period: events.PeriodMonth, Version: 1, UpdatedAt: now}}
		change(&n)
		return n.Validate(now)
	}
	request := func(change func(*events.GateUsedRequest)) error {
		r := events.GateUsedRequest{Ports: []string{"p"}, Start: today - 27, End: today + 3}
		change(&r)
		return r.Validate(now)
	}
	used := func(change func(*events.GateUsed)) error {
		u := events.GateUsed{Gate: "g", Tokens: []int64{1}, AsOf: now}
		change(&u)
		return u.Validate(1)
	}
	type T = events.TotalsNotice
	type H = events.HoldsNotice
	type B = events.BudgetNotice
	type R = events.GateUsedRequest
	type U = events.GateUsed
	for name, err := range map[string]error{
		"totals": totals(func(*T) {}), "of a day that is just over": totals(func(n *T) { n.Days[0]-- }), "of tomorrow": totals(func(n *T) { n.Days[0]++ }),
		"a heartbeat": totals(func(n *T) { *n = T{From: "c", Seq: 2, At: now} }), "a deletion": totals(func(n *T) { *n = T{Deleted: []string{"p"}} }),
		"holds": holds(func(*H) {}), "a recall": holds(func(n *H) { *n = H{Recall: []string{"p"}} }),
		"a budget": budget(func(*B) {}), "a request": request(func(*R) {}), "an answer": used(func(*U) {}),
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
		"a budget of no port":                  budget(func(n *B) { n.PortID = "" }),
		"a budget of a version that overflows": budget(func(n *B) { n.Budget.Version = math.MaxInt32 + 1 }),
		"a budget of a negative version":       budget(func(n *B) { n.Budget.Version = -1 }),
		"a budget of the future":               budget(func(n *B) { n.Budget.UpdatedAt = year9000 }),
		"a budget of no period":                budget(func(n *B) { n.Budget.Period = "year" }),
		"a soft cap above the hard one":        budget(func(n *B) { n.Budget.SoftCapTokens, n.Budget.HardCapTokens = &soft, &hard }),
		"a request for no port":                request(func(r *R) { r.Ports[0] = ">" }),
		"a request for too many ports":         request(func(r *R) { r.Ports = tooMany }),
		"a request that ends before it starts": request(func(r *R) { r.End = r.Start - 1 }),
		"a request from before 1970":           request(func(r *R) { r.Start = math.MinInt32 }),
		"a request up to the end of time":      request(func(r *R) { r.End = math.MaxInt32 }),
		"an answer of nobody":                  used(func(u *U) { u.Gate = "" }),
		"an answer of a long name":             used(func(u *U) { u.Gate = strings.Repeat("x", 65) }),
		"an answer of too few":                 used(func(u *U) { u.Tokens = nil }),
		"a negative answer":                    used(func(u *U) { u.Tokens[0] = -1 }),
	} {
		if err == nil {
			t.Errorf("%s: not refused", name)
		}
	}
}
