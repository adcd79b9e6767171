package arrival_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/tidegate/tidegate/consumer/arrival"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/events/eventstest"
)

var (
	noon    = time.Date(2026, 11, 23, 12, 0, 0, 123e6, time.UTC)
	arrived = arrival.Arrival{Sequence: 42, Time: noon.Add(time.Second)}
	oldest  = noon.AddDate(-1, 0, 0)
)

type identity struct {
	ID uuid.UUID
	At time.Time
}

func identify(t *testing.T, u events.Usage, a arrival.Arrival) identity {
	t.Helper()
	if u.PortID == "" {
		u.PortID = "p1"
	}
	id, at, err := arrival.Identify(u, a, oldest)
	if err != nil {
		t.Fatal(err)
	}
	got := identity{id, at}
	if v := got.ID.Version(); v != 7 || got.ID.Variant() != uuid.RFC4122 || !events.UUIDv7Time(got.ID).Equal(got.At) {
		t.Fatalf("%s of version %d does not carry its time %s", got.ID, v, got.At)
	}
	return got
}

func TestIdentify_UUIDv7AsItStands(t *testing.T) {
	id := events.NewUUIDv7(noon)
	for _, text := range []string{id.String(), strings.ToUpper(id.String())} {
		for _, occurred := range []time.Time{{}, noon, noon.Add(time.Hour), noon.Add(-time.Hour), noon.In(time.FixedZone("", -12*3600))} {
			if got := identify(t, events.Usage{ID: text, OccurredAt: occurred}, arrived); got.ID != id || !got.At.Equal(noon) {
				t.Errorf("%s, occurred %s: %s at %s", text, occurred, got.ID, got.At)
			}
		}
	}
}

func TestIdentify_AnyOtherID(t *testing.T) {
	u := events.Usage{PortID: "p1", ID: "row-17", OccurredAt: noon.Add(456 * time.Microsecond)}
	first := identify(t, u, arrived)
	if !first.At.Equal(noon) {
		t.Errorf("at %s, want occurred_at to the millisecond", first.At)
	}
	if again := identify(t, u, arrival.Arrival{Sequence: 99, Time: noon.Add(time.Minute)}); again != first {
		t.Errorf("sent again it became %s, was %s", again.ID, first.ID)
	}
	for what, change := range map[string]func(*events.Usage){
		"another id":   func(u *events.Usage) { u.ID = "row-18" },
		"another port": func(u *events.Usage) { u.PortID = "p2" },
		"a later time": func(u *events.Usage) { u.OccurredAt = noon.Add(time.Millisecond) },
	} {
		other := u
		change(&other)
		if got := identify(t, other, arrived); got.ID == first.ID {
			t.Errorf("%s: the same identity", what)
		}
	}
	// Not UUIDv7 in the canonical form: derived, not taken.
	v4 := uuid.New().String()
	v7 := events.NewUUIDv7(noon).String()
	for _, text := range []string{v4, "{" + v7 + "}", "urn:uuid:" + v7, strings.ReplaceAll(v7, "-", ""), v7[:35] + "g", v7[:19] + "c" + v7[20:]} {
		if got := identify(t, events.Usage{ID: text, OccurredAt: noon}, arrived); got.ID.String() == text || !got.At.Equal(noon) {
			t.Errorf("%s became %s at %s", text, got.ID, got.At)
		}
	}
	// A port and an id cannot be read in two ways.
	if identify(t, events.Usage{PortID: "a", ID: "b-c", OccurredAt: noon}, arrived) == identify(t, events.Usage{PortID: "a-b", ID: "c", OccurredAt: noon}, arrived) {
		t.Error("two ports share an identity")
	}
}

func TestIdentify_NoID(t *testing.T) {
	first := identify(t, events.Usage{}, arrived)
	if !first.At.Equal(arrived.Time) {
		t.Errorf("at %s, want the arrival %s", first.At, arrived.Time)
	}
	if again := identify(t, events.Usage{}, arrived); again != first {
		t.Error("a redelivery became another event")
	}
	if timed := identify(t, events.Usage{OccurredAt: noon}, arrived); !timed.At.Equal(noon) || timed.ID == first.ID {
		t.Errorf("with occurred_at: %s at %s", timed.ID, timed.At)
	}
	for what, other := range map[string]identity{
		"another sequence": identify(t, events.Usage{}, arrival.Arrival{Sequence: 43, Time: arrived.Time}),
		"another stream":   identify(t, events.Usage{}, arrival.Arrival{Sequence: 42, Time: arrived.Time.Add(1)}),
		"another port":     identify(t, events.Usage{PortID: "p2"}, arrived),
		"another place":    identify(t, events.Usage{}, arrival.Arrival{Sequence: 42, Place: 1, Time: arrived.Time}),
	} {
		if other.ID == first.ID {
			t.Errorf("%s: the same identity", what)
		}
	}
}

func TestIdentify_Refuses(t *testing.T) {
	limit := arrived.Time.Add(events.FutureTolerance).Truncate(time.Millisecond)
	for name, c := range map[string]struct {
		u      events.Usage
		reason events.Reason
		rule   string
	}{
		"times over an hour apart":   {events.Usage{ID: events.NewUUIDv7(noon).String(), OccurredAt: noon.Add(time.Hour + 1)}, events.ReasonTimeMismatch, "over an hour"},
		"times apart, the other way": {events.Usage{ID: events.NewUUIDv7(noon).String(), OccurredAt: noon.Add(-time.Hour - 1)}, events.ReasonTimeMismatch, "over an hour"},
		"an id ahead":                {events.Usage{ID: events.NewUUIDv7(limit.Add(time.Millisecond)).String()}, events.ReasonTimeInFuture, "more than 5 minutes"},
		"a time ahead":               {events.Usage{OccurredAt: limit.Add(time.Millisecond)}, events.ReasonTimeInFuture, "more than 5 minutes"},
		"too old":                    {events.Usage{OccurredAt: oldest.Add(-time.Millisecond)}, events.ReasonTimeTooOld, "keeps events from 2025-11-23"},
		"too old an id":              {events.Usage{ID: events.NewUUIDv7(oldest.Add(-time.Millisecond)).String()}, events.ReasonTimeTooOld, "keeps events from"},
		"before 1970":                {events.Usage{OccurredAt: time.Unix(-1, 0)}, events.ReasonInvalidField, "between 1970 and 10889"},
		"the year 1":                 {events.Usage{ID: events.NewUUIDv7(noon).String(), OccurredAt: time.Time{}.Add(1)}, events.ReasonTimeMismatch, "over an hour"},
	} {
		t.Run(name, func(t *testing.T) {
			c.u.PortID = "p1"
			_, _, err := arrival.Identify(c.u, arrived, oldest)
			eventstest.WantRefusal(t, err, c.reason, "occurred_at", "", c.rule)
		})
	}
	identify(t, events.Usage{OccurredAt: limit}, arrived)
	identify(t, events.Usage{OccurredAt: oldest}, arrived)
}

// Derived ids carry the time they were made for, to the millisecond.
func TestIdentify_IDsCarryTheirTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := time.UnixMilli(rapid.Int64Range(0, 1<<48-1).Draw(t, "ms")).UTC()
		u := events.Usage{PortID: "p1", ID: rapid.StringN(0, 30, -1).Draw(t, "id"), OccurredAt: at}
		id, when, err := arrival.Identify(u, arrival.Arrival{Sequence: 7, Time: at}, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		parsed, ok := events.ParseUUIDv7(id.String())
		if !ok || parsed != id || !when.Equal(at) || !events.UUIDv7Time(id).Equal(when) {
			t.Fatalf("identity %s at %s for an event of %s", id, when, at)
		}
	})
}
