package gate

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

// What was refused is added up by port, limit and day, however much it is, and what could not be
// written comes to what was refused meanwhile.
func TestRefusalsAreAddedUp(t *testing.T) {
	t.Parallel()
	now := noon
	g := bare(Config{Now: func() time.Time { return now }}, nil)
	refuse := func(port, limit string, reason events.RefusalReason) {
		g.noteRefusal(port, &events.Verdict{Limit: limit, Reason: reason})
	}
	day := noon.Truncate(24 * time.Hour)
	for range 3 {
		refuse("p1", "port", events.ReasonHardCapReached)
	}
	refuse("p1", "each-user", events.ReasonEstimateExceedsHardCap)
	refuse("p2", "port", events.ReasonGateStale) // by no cap
	failed := g.refusals.take()
	now = noon.Add(24 * time.Hour)
	refuse("p1", "port", events.ReasonHardCapReached)
	for _, one := range failed {
		g.refusals.add(one)
	}
	got := g.refusals.take()
	slices.SortFunc(got, func(a, b ledger.Refusal) int {
		return strings.Compare(a.Limit, b.Limit)*2 + a.Day.Compare(b.Day)
	})
	want := []ledger.Refusal{{PortID: "p1", Limit: "each-user", Day: day, Refused: 1, LastAt: noon}, {PortID: "p1", Limit: "port", Day: day, Refused: 3, LastAt: noon}, {PortID: "p1", Limit: "port", Day: day.AddDate(0, 0, 1), Refused: 1, LastAt: now}}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for i := range maxRefusals + 10 {
		refuse(fmt.Sprint("p", i), "port", events.ReasonHardCapReached)
	}
	if got := g.refusals.take(); len(got) != maxRefusals {
		t.Errorf("%d limits of ports are remembered, want %d", len(got), maxRefusals)
	}
}
