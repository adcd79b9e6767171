package meter

import (
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Stats are counts since a [Transport] began.
type Stats struct {
	Recorded     uint64 // usage events handed to the recorder
	Estimated    uint64 // of those, the ones whose provider reported no usage
	Partial      uint64 // of those, the ones whose reply was cut short
	Unreadable   uint64 // replies whose usage made no sense; they are recorded as if it were not there
	Unattributed uint64 // calls without a legal port: not recorded
	Refused      uint64 // calls that the gate refused, streams that it stopped, and what Unmetered: Refuse did
	Passed       uint64 // calls to AI services that nobody metered: see [Unmetered]
	GateErrors   uint64 // questions to the gate that failed; its policy decided
	Failures     uint64 // panics of the recorder, the gate, Detect or meter itself; the call was not harmed
}

type counters struct {
	recorded, estimated, partial, unreadable, unattributed, refused, passed, gateErrors, failures atomic.Uint64
}

// logEvery is how often Transport repeats a complaint.
const logEvery = 10 * time.Second

type complaints struct {
	unreadable, unattributed, gateErrors, failures rate.Sometimes
}

// Stats returns the counts so far.
func (t *Transport) Stats() Stats {
	if t == nil {
		return Stats{}
	}
	c := &t.counters
	return Stats{
		Recorded: c.recorded.Load(), Estimated: c.estimated.Load(), Partial: c.partial.Load(),
		Unreadable: c.unreadable.Load(), Unattributed: c.unattributed.Load(), Refused: c.refused.Load(), Passed: c.passed.Load(),
		GateErrors: c.gateErrors.Load(), Failures: c.failures.Load(),
	}
}

// guard runs f and turns a panic in it into a count and a log line: metering must
// not bring down the service that it meters.
func (t *Transport) guard(what string, f func()) {
	defer func() {
		if p := recover(); p != nil {
			t.counters.failures.Add(1)
			t.log.failures.Do(func() { t.cfg.Logger.Error("meter: panic, the call goes on unharmed", "in", what, "panic", p) })
		}
	}()
	f()
}
