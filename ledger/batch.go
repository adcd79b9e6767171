package ledger

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/reservation/hold"
)

// batch is the working state of one booking. Everything in it is in one order,
// by port, then id: two transactions that touch the same rows take their locks
// in the same order, and Postgres writes neighbours together.
type batch struct {
	entries []Entry
	pending []int // indexes of the entries to write, in that order
	repeats []int // indexes of entries whose id an earlier one of the batch has
	known   int   // how many of pending had a row before
	limits  limited
	began   time.Time // the transaction, by the database's clock
	booking Booking
}

func newBatch(entries []Entry) *batch {
	b := &batch{entries: entries, pending: make([]int, len(entries))}
	b.booking.Outcomes = make([]Outcome, len(entries))
	for i := range b.pending {
		b.pending[i] = i
	}
	slices.SortFunc(b.pending, func(i, j int) int {
		if c := compareKeys(&entries[i], &entries[j]); c != 0 {
			return c
		}
		return i - j // the first of an id stays the first
	})
	b.setRepeatsAside()
	return b
}

func compareKeys(a, b *Entry) int {
	if c := strings.Compare(a.Usage.PortID, b.Usage.PortID); c != 0 {
		return c
	}
	return bytes.Compare(a.ID[:], b.ID[:])
}

// setRepeatsAside keeps the first entry of each id: the others are compared with
// its row once it has one.
func (b *batch) setRepeatsAside() {
	kept := b.pending[:0]
	for _, i := range b.pending {
		if len(kept) > 0 && compareKeys(&b.entries[kept[len(kept)-1]], &b.entries[i]) == 0 {
			b.repeats = append(b.repeats, i)
			continue
		}
		kept = append(kept, i)
	}
	b.pending = kept
}

func (b *batch) settleKnown(i int, same bool) {
	if same {
		b.booking.Outcomes[i] = Outcome{Fate: Duplicate}
		return
	}
	b.reject(i, events.ReasonIDConflict, "id", b.entries[i].ID.String(), "is booked already with other content; give every call its own id")
}

func (b *batch) reject(i int, reason events.Reason, field, value, rule string) {
	b.booking.Outcomes[i] = Outcome{Fate: Rejected, Reason: &events.FieldError{Reason: reason, Field: field, Value: value, Rule: rule}}
}

// PortDay is a port's total of one UTC day, absolute.
type PortDay struct {
	PortID      string
	Day         Day
	Requests    int64
	TotalTokens int64
}

// Day is a UTC day, counted from 1970-01-01.
type Day int32

// DayOf returns the UTC day that contains t.
func DayOf(t time.Time) Day {
	s := t.Unix()
	if s < 0 {
		s -= 86399
	}
	return Day(s / 86400)
}

// Time returns the first moment of the day.
func (d Day) Time() time.Time { return time.Unix(int64(d)*86400, 0).UTC() }

// totals is what entries add to one row of ai_usage_totals.
type totals struct {
	port, feature, provider, model string
	day                            Day

	requests, input, output, cacheRead, cacheWrite, reasoning int64
}

// rollUp sums entries by the key of ai_usage_totals, in key order. indexes are in
// the order of pending, so that only what shares a port and a day has to be sorted.
func (b *batch) rollUp(indexes []int) []totals {
	order := slices.Clone(indexes)
	for start, end := 0, 0; start < len(order); start = end {
		first := &b.entries[order[start]]
		for end < len(order) && samePortDay(first, &b.entries[order[end]]) {
			end++
		}
		slices.SortFunc(order[start:end], func(i, j int) int { return compareKinds(&b.entries[i].Usage, &b.entries[j].Usage) })
	}
	all := make([]totals, 0, len(order))
	var last *Entry
	for _, i := range order {
		e := &b.entries[i]
		u := &e.Usage
		if last == nil || !samePortDay(last, e) || compareKinds(&last.Usage, u) != 0 {
			all = append(all, totals{port: u.PortID, feature: u.Feature, provider: u.Provider, model: u.Model, day: DayOf(e.At)})
			last = e
		}
		t := &all[len(all)-1]
		t.requests++
		t.input += u.InputTokens
		t.output += u.OutputTokens
		t.cacheRead += u.Details.CacheReadInputTokens
		t.cacheWrite += u.Details.CacheWriteInputTokens
		t.reasoning += u.Details.ReasoningOutputTokens
	}
	return all
}

func samePortDay(a, b *Entry) bool {
	return a.Usage.PortID == b.Usage.PortID && DayOf(a.At) == DayOf(b.At)
}

// compareKinds orders calls of one port and day as the key of ai_usage_totals does.
func compareKinds(a, b *events.Usage) int {
	if c := strings.Compare(a.Feature, b.Feature); c != 0 {
		return c
	}
	if c := strings.Compare(a.Provider, b.Provider); c != 0 {
		return c
	}
	return strings.Compare(a.Model, b.Model)
}

// settled are the holds that the entries name.
func (b *batch) settled(indexes []int) (holds []hold.ID) {
	for _, i := range indexes {
		if u := &b.entries[i].Usage; u.ReservationID != "" {
			holds = append(holds, hold.ID{PortID: u.PortID, ReservationID: u.ReservationID})
		}
	}
	return holds
}
