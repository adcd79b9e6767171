package gate

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidegate/tidegate/internal/reservation/hold"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func TestAWrongClockIsToldOnceAMinute(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	registry := prometheus.NewRegistry()
	g := bare(Config{Now: time.Now}, registry)
	g.log = slog.New(slog.NewTextHandler(&log, nil))
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
	if got := g.clock.At(noon.Add(200 * time.Second)); !got.Equal(noon.Add(200 * time.Second)) {
		t.Errorf("a reading in whose middle the clock was set counts: %s", got)
	}
}

// Holds of a period that is over are not held against the next one.
func TestHoldsOfThePeriodBeforeDoNotCount(t *testing.T) {
	t.Parallel()
	midnight := noon.Truncate(24 * time.Hour)
	g := bare(Config{Now: func() time.Time { return noon }}, nil)
	day := int64(100)
	g.memory.applyBudget("p", dayBudget(day))
	at := midnight.Add(-time.Millisecond)
	g.reservations = g.newBroker(holds{list: []hold.Standing{{PortID: "p", Held: 60, At: at}}, at: at})
	_, _ = g.reservations.Read(t.Context())
	for after, want := range map[time.Duration]int64{-time.Microsecond: 60, 0: 0} {
		if _, count, _ := g.reservations.Known("p", midnight.Add(after)); count.Held != want {
			t.Errorf("%s after midnight: %d held, want %d", after, count.Held, want)
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
