package gate

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"github.com/tidegate/tidegate/ledger"
)

// However far apart the clocks are and however long readings take, the gate never reckons
// the database's clock further off than the fastest reading so far allows.
func TestTheDatabasesClockIsReckonedAsWellAsTheFastestReadingTellsIt(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var c clock
		ahead := time.Duration(rapid.Int64Range(-int64(time.Hour), int64(time.Hour)).Draw(t, "ahead"))
		own, fastest := noon, time.Hour
		for range rapid.IntRange(1, 20).Draw(t, "readings") {
			own = own.Add(250 * time.Millisecond)
			there := time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "there"))
			back := time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "back"))
			c.hear(own, own.Add(there+back), own.Add(there+ahead))
			own, fastest = own.Add(there+back), min(fastest, there+back)
			if off := c.at(own).Sub(own.Add(ahead)).Abs(); off > fastest {
				t.Fatalf("%s off although a reading took %s", off, fastest)
			}
		}
	})
}

// A clock that is set is followed at the next reading, either way.
func TestTheDatabasesClockIsFollowedWhenItIsSet(t *testing.T) {
	t.Parallel()
	var c clock
	if got := c.at(noon); !got.Equal(noon) {
		t.Errorf("before the first reading: %s", got)
	}
	own := noon
	for _, ahead := range []time.Duration{0, time.Hour, -3 * time.Second, 0} {
		own = own.Add(time.Second)
		if told := c.hear(own, own, own.Add(ahead)); told != ahead {
			t.Errorf("told to be %s ahead, want %s", told, ahead)
		}
		if got := c.at(own.Add(time.Minute)); !got.Equal(own.Add(time.Minute + ahead)) {
			t.Errorf("a minute later, %s ahead: %s", ahead, got)
		}
	}
}

func TestAWrongClockIsToldOnceAMinute(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	g := &Gate{memory: newMemory(), log: slog.New(slog.NewTextHandler(&log, nil))}
	registry := prometheus.NewRegistry()
	g.metrics = newMetrics(registry, g)
	for _, c := range []struct {
		after, ahead time.Duration
		warnings     int
	}{
		{0, time.Second, 0},
		{time.Second, -1100 * time.Millisecond, 1},
		{2 * time.Second, 1100 * time.Millisecond, 1},
		{61 * time.Second, 3 * time.Second, 2},
		{200 * time.Second, 0, 2},
	} {
		own := noon.Add(c.after)
		g.followClock(own, own, own.Add(c.ahead))
		if got := strings.Count(log.String(), "level=WARN"); got != c.warnings {
			t.Errorf("%s ahead, %s after noon: %d warnings, want %d\n%s", c.ahead, c.after, got, c.warnings, &log)
		}
		if got := gauge(t, registry, "tidegate_gate_clock_behind_seconds"); got != c.ahead.Seconds() {
			t.Errorf("%s ahead: the metric says %v", c.ahead, got)
		}
	}
	g.followClock(noon.Add(time.Hour), noon, noon) // set back in the middle of a reading: that says nothing
	if got := g.clock.at(noon.Add(200 * time.Second)); !got.Equal(noon.Add(200 * time.Second)) {
		t.Errorf("a reading in whose middle the clock was set counts: %s", got)
	}
}

// What a lease makes in memory belongs to the period of its slice, and to no other.
func TestNoHoldIsMadeFromASliceOfAnotherDay(t *testing.T) {
	t.Parallel()
	for today, want := range map[ledger.Day]bool{ledger.DayOf(noon) - 1: false, ledger.DayOf(noon): true, ledger.DayOf(noon) + 1: false} {
		s := newLeases(hot)
		install(s, granted("p", long, 100, 10), noon)
		if _, ok, _ := s.take(ask("p", long, 1), 1, today, noon); ok != want {
			t.Errorf("on day %d: %v", today-ledger.DayOf(noon), ok)
		}
	}
}

// Holds of a period that is over are not held against the next one.
func TestHoldsOfThePeriodBeforeDoNotCount(t *testing.T) {
	t.Parallel()
	m := newMemory()
	midnight := noon.Truncate(24 * time.Hour)
	day := int64(100)
	m.applyBudget("p", dayBudget(day))
	m.readHeld(map[string]ledger.Standing{"p": {PortID: "p", Held: 60, At: midnight.Add(-time.Millisecond)}}, midnight.Add(-time.Millisecond))
	for after, want := range map[time.Duration]int64{-time.Microsecond: 60, 0: 0} {
		if _, _, held, _ := m.lookup("p", midnight.Add(after)); held != want {
			t.Errorf("%s after midnight: %d held, want %d", after, held, want)
		}
	}
}

func gauge(t testing.TB, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}
