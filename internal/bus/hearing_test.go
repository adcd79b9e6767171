package bus

import (
	"testing"
	"time"
)

// ear hears notices at times that a test names in seconds.
type ear struct {
	*testing.T
	*Hearing
	start time.Time
}

func newEar(t *testing.T) *ear {
	return &ear{T: t, Hearing: NewHearing(), start: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)}
}

func (e *ear) at(seconds float64) time.Time {
	return e.start.Add(time.Duration(seconds * float64(time.Second)))
}

// notice is heard at the time that it names; told is the second up to which all is
// told then, -1 if that is not known.
func (e *ear) notice(from string, seq uint64, at, told float64) {
	e.Helper()
	e.hear(Totals{From: from, Seq: seq, At: e.at(at)}, at, told)
}

func (e *ear) hear(n Totals, at, told float64) {
	e.Helper()
	got := -1.0
	if when := e.Note(n, e.at(at)); !when.IsZero() {
		got = when.Sub(e.start).Seconds()
	}
	if got != told {
		e.Errorf("notice %d of %s at %g s: told up to %g s, want %g", n.Seq, n.From, at, got, told)
	}
}

func (e *ear) read(began float64) { e.EndReading(e.BeginReading(e.at(began))) }

func TestAllIsToldUpToTheLeastOfWhatConsumersSaid(t *testing.T) {
	t.Parallel()
	e := newEar(t)
	e.notice("a", 1, 1, 1)
	e.notice("b", 1, 1.5, 1)
	e.notice("a", 2, 2, 1.5)
	e.notice("a", 3, 3, 1.5) // b has not said more
	e.notice("b", 2, 3.2, 3)
	e.hear(Totals{From: "b", Seq: 2, At: e.at(9)}, 3.3, -1) // heard before
	e.hear(Totals{Deleted: []string{"p"}}, 3.4, -1)         // an operator's
	e.hear(Totals{From: "a", Seq: 4, At: e.at(3.5), Last: true}, 3.5, 3.2)
	e.notice("b", 3, 4.2, 4.2) // a has ended
	e.hear(Totals{From: "b", Seq: 4, At: e.at(5), Last: true}, 5, 5)
}

// A consumer that dies between a commit and its notice holds everything back until the
// totals were read again, whoever comes after it.
func TestAVanishedConsumerHoldsAllBack(t *testing.T) {
	t.Parallel()
	e := newEar(t)
	e.notice("a", 1, 1, 1)
	e.notice("b", 1, 1, 1)
	e.notice("b", 2, 2, 1) // a is dead
	e.notice("c", 1, 2.5, 1)
	e.read(3.9) // a may just be slow
	e.notice("b", 3, 4, 1)
	e.notice("c", 2, 4, 1)
	if e.Silent(e.at(4)) || !e.Silent(e.at(4.1)) {
		t.Error("a was heard at 1 s: it has vanished after 4 s")
	}
	early := e.BeginReading(e.at(3.95))
	late := e.BeginReading(e.at(4.1))
	e.EndReading(early)
	e.notice("b", 4, 4.5, 1)
	e.EndReading(late)
	e.notice("c", 3, 4.6, 4.5)
}

func TestAGateAssumesThatItHasNotHeardAll(t *testing.T) {
	t.Parallel()
	e := newEar(t)
	e.Begin(e.at(0))
	e.read(0)
	e.notice("a", 1, 0.5, -1) // who died just before may have committed after the reading
	e.read(1)
	e.notice("a", 2, 2, -1)
	e.read(3.1)
	e.notice("a", 3, 3.2, 3.2)
	e.Begin(e.at(3.5)) // cut off for a while
	e.notice("a", 4, 4, -1)
}

func TestAMissedNoticeIsMendedByAReadingThatIsDone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		seqs []uint64
		gap  bool
	}{
		{"from the first on", []uint64{1, 2, 3}, false},
		{"one is missing", []uint64{1, 3, 4}, true},
		{"joined late", []uint64{7, 8}, true},
		{"late ones fill no gap", []uint64{1, 3, 2, 4}, true},
	} {
		e := newEar(t)
		var told time.Time
		for i, seq := range c.seqs {
			told = e.Note(Totals{From: "c", Seq: seq, At: e.at(float64(i))}, e.at(float64(i)))
		}
		if told.IsZero() != c.gap {
			t.Errorf("%s: told up to %s, want a gap: %v", c.name, told, c.gap)
		}
		last := c.seqs[len(c.seqs)-1]
		r := e.BeginReading(e.at(10))
		if told = e.Note(Totals{From: "c", Seq: last + 1, At: e.at(11)}, e.at(11)); told.IsZero() != c.gap {
			t.Errorf("%s: told up to %s while the reading has only begun", c.name, told)
		}
		e.EndReading(r)
		if told = e.Note(Totals{From: "c", Seq: last + 2, At: e.at(12)}, e.at(12)); !told.Equal(e.at(12)) {
			t.Errorf("%s: told up to %s after the reading, want 12 s", c.name, told)
		}
	}
}

func TestHearingIsBounded(t *testing.T) {
	t.Parallel()
	e := newEar(t)
	for i := range 10 * maxVoices {
		e.Note(Totals{From: string(rune('a'+i%26)) + e.at(float64(i)).String(), Seq: 1, At: e.at(0)}, e.at(1))
	}
	if n := len(e.voices); n > maxVoices+1 {
		t.Errorf("%d consumers are remembered, want at most %d", n, maxVoices+1)
	}
	e.notice("real", 1, 2, -1) // nobody knows it, so nothing is told
	e.read(9)
	e.notice("real", 2, 9.5, -1)
	e.read(10)
	e.notice("real", 3, 10, 10)
}
