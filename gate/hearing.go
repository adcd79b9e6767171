package gate

import (
	"sync"
	"time"

	"github.com/tidegate/tidegate/events"
)

const (
	// silence is how long a consumer may not be heard before it counts as vanished, and how
	// long none at all before the gate looks for itself.
	silence   = 3 * events.HeartbeatEvery
	maxVoices = 1000
)

// hearing knows up to when every commit of every consumer was told, and so how far as_of
// may go between two readings of the totals. The rule: each consumer's notices say up to
// when its own commits are told; all commits are told up to the least of what the
// consumers said last. A consumer that ends says so in its last notice and counts no more.
// One that is not heard for [silence] may have died between a commit and its notice: it
// holds as_of back until a reading that began after that is done. So does an unknown one
// that is assumed wherever somebody may not have been heard: when the gate begins to
// listen, and after it was cut off. While a notice is missing, nothing is told until a
// reading that began after that is done.
type hearing struct {
	mu     sync.Mutex
	voices map[string]voice // by consumer
	heard  time.Time        // any of them

	missed uint64 // counts the times at which a notice was found to be missing
	mended uint64 // those of them that readings have mended
	wake   chan struct{}
}

type voice struct {
	seq   uint64    // the number of its last notice
	told  time.Time // what that said
	heard time.Time
}

// unknown is the name of the consumer that may be there and was not heard.
const unknown = ""

// begin assumes that consumers are there of which nothing is known: the gate began to
// listen, or was cut off for a while.
func (h *hearing) begin(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.assume(now)
}

func (h *hearing) assume(now time.Time) {
	if h.voices == nil {
		h.voices = map[string]voice{}
	}
	h.voices[unknown] = voice{heard: now}
}

// note takes note of a notice and returns up to when every commit was told; zero if that
// is not known.
func (h *hearing) note(n events.TotalsNotice, now time.Time) (told time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n.From == unknown { // an operator's notice, not one of a numbered series
		return told
	}
	h.heard = now
	v, known := h.voices[n.From]
	switch {
	case known && n.Seq <= v.seq:
		return told // told before
	case !known && len(h.voices) >= maxVoices:
		h.assume(now)
		return told
	// The first notice of a consumer that is not its first was preceded by some
	// that this gate may have missed.
	case n.Seq > v.seq+1:
		h.miss()
	}
	if n.Last {
		delete(h.voices, n.From)
	} else {
		if h.voices == nil {
			h.voices = map[string]voice{}
		}
		h.voices[n.From] = voice{seq: n.Seq, told: n.At, heard: now}
	}
	if h.missed != h.mended {
		return told
	}
	told = n.At
	for _, v := range h.voices {
		if v.told.Before(told) {
			told = v.told
		}
	}
	return told
}

// missedSomething has the totals read again.
func (h *hearing) missedSomething() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.miss()
}

func (h *hearing) miss() {
	h.missed++
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// reading is a reading of all totals: when it began, and what was missed before.
type reading struct {
	began  time.Time
	missed uint64
}

func (h *hearing) beginReading(now time.Time) reading {
	h.mu.Lock()
	defer h.mu.Unlock()
	return reading{now, h.missed}
}

// endReading mends what was missed before the reading began, and forgets who had
// vanished by then.
func (h *hearing) endReading(r reading) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mended = r.missed
	for from, v := range h.voices {
		if v.vanished(r.began) {
			delete(h.voices, from)
		}
	}
}

func (v voice) vanished(now time.Time) bool { return now.Sub(v.heard) > silence }

// silent: nobody is heard, or somebody not any more.
func (h *hearing) silent(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, v := range h.voices {
		if v.vanished(now) {
			return true
		}
	}
	return now.Sub(h.heard) > silence
}
