package ledger_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tidegate/tidegate/ledger"
)

// However far apart the clocks are and however long readings take, the gate never reckons
// the database's clock further off than the fastest reading so far allows.
func TestTheDatabasesClockIsReckonedAsWellAsTheFastestReadingTellsIt(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var c ledger.Clock
		ahead := time.Duration(rapid.Int64Range(-int64(time.Hour), int64(time.Hour)).Draw(t, "ahead"))
		own, fastest := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), time.Hour
		for range rapid.IntRange(1, 20).Draw(t, "readings") {
			own = own.Add(250 * time.Millisecond)
			there := time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "there"))
			back := time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "back"))
			c.Hear(own, own.Add(there+back), own.Add(there+ahead))
			own, fastest = own.Add(there+back), min(fastest, there+back)
			if off := c.At(own).Sub(own.Add(ahead)).Abs(); off > fastest {
				t.Fatalf("%s off although a reading took %s", off, fastest)
			}
		}
	})
}

// A clock that is set is followed at the next reading, either way.
func TestTheDatabasesClockIsFollowedWhenItIsSet(t *testing.T) {
	t.Parallel()
	var c ledger.Clock
	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	if got := c.At(noon); !got.Equal(noon) {
		t.Errorf("before the first reading: %s", got)
	}
	own := noon
	for _, ahead := range []time.Duration{0, time.Hour, -3 * time.Second, 0} {
		own = own.Add(time.Second)
		if told, known := c.Hear(own, own, own.Add(ahead)); !known || told != ahead {
			t.Errorf("told to be %s ahead, want %s", told, ahead)
		}
		if got := c.At(own.Add(time.Minute)); !got.Equal(own.Add(time.Minute + ahead)) {
			t.Errorf("a minute later, %s ahead: %s", ahead, got)
		}
	}
	if told, known := c.Hear(own, own.Add(-time.Second), own.Add(time.Hour)); known || !c.At(own).Equal(own) {
		t.Errorf("set back while it was read: told to be %s ahead, and %s", told, c.At(own))
	}
}
