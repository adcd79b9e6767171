package bus

import (
	"sync"
	"time"
)

const (
	// Silence is how long a consumer may not be heard before it counts as vanished, and how
	// long none at all before the gate looks for itself.
	Silence   = 3 * HeartbeatEvery
	maxVoices = 1000
)

// Hearing is the gate's side of [Totals]: it knows up to when every commit of every consumer was told, and so how far as_of
// may go between two readings of the totals. The rule: each consumer's notices say up to
// when its own commits are told; all commits are told up to the least of what the
// consumers said last. A consumer that ends says so in its last notice and counts no more.
// One that is not heard for [Silence] may have died between a commit and its notice: it
// holds as_of back until a reading that began after that is done. So does an unknown one
// that is assumed wherever somebody may not have been heard: when the gate begins to
// listen, and after it was cut off. While a notice is missing, nothing is told until a
// reading that began after that is done.
type Hearing struct {
	// Wake gets a value when something was missed, so that the totals are to be read again.
	Wake <-chan struct{}
	wake chan<- struct{}

	mu     sync.Mutex
	voices map[string]voice // by consumer
	heard  time.Time        // any of them

	missed uint64 // counts the times at which a notice was found to be missing
	mended uint64 // those of them that readings have mended
}

type voice struct {
	seq   uint64    // the number of its last notice
	told  time.Time // what that said
	heard time.Time
}

// unknown is the name of the consumer that may be there and was not heard.
const unknown = ""

// NewHearing returns one that has heard nobody.
func NewHearing() *Hearing {
	wake := make(chan struct{}, 1)
	return &Hearing{Wake: wake, wake: wake, voices: map[string]voice{}}
}

// Begin assumes that consumers are there of which nothing is known: the gate began to
// listen, or was cut off for a while.
func (h *Hearing) Begin(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.assume(now)
}

func (h *Hearing) assume(now time.Time) {
	h.voices[unknown] = voice{heard: now}
}

// Note takes note of a message and returns up to when every commit was told; zero if that
// is not known.
func (h *Hearing) Note(n Totals, now time.Time) (told time.Time) {
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

// Missed has the totals read again.
func (h *Hearing) Missed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.miss()
}

func (h *Hearing) miss() {
	h.missed++
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// Reading is a reading of all totals: when it began, and what was missed before.
type Reading struct {
	began  time.Time
	missed uint64
}

// BeginReading says that a reading begins now.
func (h *Hearing) BeginReading(now time.Time) Reading {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Reading{now, h.missed}
}

// EndReading mends what was missed before the reading began, and forgets who had
// vanished by then.
func (h *Hearing) EndReading(r Reading) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mended = r.missed
	for from, v := range h.voices {
		if v.vanished(r.began) {
			delete(h.voices, from)
		}
	}
}

func (v voice) vanished(now time.Time) bool { return now.Sub(v.heard) > Silence }

// Silent reports that nobody is heard, or somebody not any more.
func (h *Hearing) Silent(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, v := range h.voices {
		if v.vanished(now) {
			return true
		}
	}
	return now.Sub(h.heard) > Silence
}
