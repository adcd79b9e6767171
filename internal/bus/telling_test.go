package bus_test

import (
	"math"
	"testing"
	"time"

	"github.com/tidegate/tidegate/internal/bus"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

// A port that used more than a message may tell keeps gates from hearing of no other.
func TestTotalsOfAnyPortAreHeard(t *testing.T) {
	t.Parallel()
	nc := testenv.Connect(t, testenv.NATS(t))
	heard, err := nc.SubscribeSync(bus.SubjectTotals)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	day := ledger.DayOf(now)
	bus.NewTelling(nc, func() time.Time { return now }).Send([]ledger.PortDay{{PortID: "huge", Day: day, TotalTokens: math.MaxInt64}, {PortID: "p1", Day: day, TotalTokens: 7}}, nil)
	msg, err := heard.NextMsg(10 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	n, err := bus.Decode[bus.Totals](msg.Data, now)
	if err != nil || n.Tokens[0] != bus.MaxTokens || n.Tokens[1] != 7 {
		t.Errorf("%+v, %v", n, err)
	}
}
