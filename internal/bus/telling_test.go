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

// After a consumer booked again what a ledger lacked, gates look at what it has now.
func TestGatesReadAgain(t *testing.T) {
	t.Parallel()
	nc := testenv.Connect(t, testenv.NATS(t))
	told, err := nc.SubscribeSync(bus.SubjectTotals)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	telling, hearing := bus.NewTelling(nc, func() time.Time { return now }), bus.NewHearing()
	woken := func() bool {
		t.Helper()
		telling.Heartbeat()
		msg, err := told.NextMsg(10 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		n, err := bus.Decode[bus.Totals](msg.Data, now)
		if err != nil {
			t.Fatal(err)
		}
		hearing.Note(n, now)
		select {
		case <-hearing.Wake:
			return true
		default:
			return false
		}
	}
	for range 2 { // each reading of the counters tells the gates
		if woken() {
			t.Error("gates read again without a reason")
		}
	}
	telling.ReadAgain()
	if !woken() {
		t.Error("gates do not read again")
	}
}
