package ledger_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/ledger"
)

// manyCalls is n calls of few ports, features and days, so that writers meet on
// the same totals.
func manyCalls(n, ports int) []ledger.Entry {
	all := make([]ledger.Entry, n)
	for i := range all {
		at := noon.AddDate(0, 0, -(i % 3)).Add(time.Duration(i) * time.Millisecond)
		all[i] = call(fmt.Sprintf("p%02d", i%ports), at, func(u *events.Usage) {
			u.Feature = []string{"ocr", "summary", "embedding"}[i%3]
			u.Model = []string{"claude", "gpt"}[i%2]
			u.InputTokens = int64(100 + i)
		})
	}
	return all
}

// Eight writers, some in other processes, book the same calls in batches that
// overlap in every way. No call of Book may fail.
func TestWritersThatOverlap(t *testing.T) {
	t.Parallel()
	const writers = 8
	s := newStore(t)
	all := manyCalls(600, 7)
	ledgers := []*ledger.Ledger{s.Ledger, open(t, s.url), open(t, s.url)}

	type seen struct{ booked, duplicate, other int }
	var mu sync.Mutex
	perEntry := map[string]*seen{}
	highest := map[ledger.PortDay]ledger.PortDay{}

	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(w), 1))
			mine := slices.Clone(all)
			random.Shuffle(len(mine), func(i, j int) { mine[i], mine[j] = mine[j], mine[i] })
			for batch := range slices.Chunk(mine, 40+20*w) {
				b, err := ledgers[w%len(ledgers)].Book(t.Context(), batch)
				if err != nil {
					t.Errorf("writer %d: %v", w, err)
					return
				}
				mu.Lock()
				for i, o := range b.Outcomes {
					key := batch[i].ID.String()
					if perEntry[key] == nil {
						perEntry[key] = &seen{}
					}
					switch o.Fate {
					case ledger.Booked:
						perEntry[key].booked++
					case ledger.Duplicate:
						perEntry[key].duplicate++
					default:
						perEntry[key].other++
					}
				}
				for _, d := range b.Days {
					key := ledger.PortDay{PortID: d.PortID, Day: d.Day}
					if d.TotalTokens > highest[key].TotalTokens {
						highest[key] = d
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for id, n := range perEntry {
		if *n != (seen{booked: 1, duplicate: writers - 1}) {
			t.Errorf("%s: %+v, want it booked once and a duplicate %d times", id, *n, writers-1)
		}
	}
	s.wantRows(t, all...)
	s.wantNoDeadlocks(t)
	// Who reads all answers knows the final totals: some answer carried each.
	for _, d := range query[portDay](t, s.db, "select port_id, day::text, requests, total_tokens from ai_usage_port_days") {
		day, err := time.Parse(time.DateOnly, d.Day)
		if err != nil {
			t.Fatal(err)
		}
		key := ledger.PortDay{PortID: d.Port, Day: ledger.DayOf(day)}
		if got := highest[key]; got.TotalTokens != d.Total || got.Requests != d.Requests {
			t.Errorf("%s %s: the highest answer was %+v, the table says %+v", d.Port, d.Day, got, d)
		}
	}
}

// Writers whose calls differ, but not their ports: every batch takes the fast way,
// and all of them wait for each other at the same totals.
func TestWritersOfTheSamePorts(t *testing.T) {
	t.Parallel()
	const writers = 8
	s := newStore(t)
	var all []ledger.Entry
	var wg sync.WaitGroup
	for w := range writers {
		mine := manyCalls(240, 6)
		all = append(all, mine...)
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(w), 2))
			random.Shuffle(len(mine), func(i, j int) { mine[i], mine[j] = mine[j], mine[i] })
			for batch := range slices.Chunk(mine, 60) {
				if _, err := s.Book(t.Context(), batch); err != nil {
					t.Errorf("writer %d: %v", w, err)
				}
			}
		})
	}
	wg.Wait()
	s.wantRows(t, all...)
	s.wantNoDeadlocks(t)
}
