package demo

import (
	"math/rand/v2"
	"testing"
)

// However the calls fall, they end at the hard cap and not just below it, so that
// a newcomer sees hard_cap_reached and its alert.
func TestJobs_ReachTheHardCap(t *testing.T) {
	const hard = 90_000
	for range 200 {
		used, calls := int64(0), 0
		for ; used < hard && calls < 2000; calls++ {
			j := jobs[rand.N(len(jobs))]
			if used+j.estimate() > hard {
				continue
			}
			u := j.do("p1", "")
			if err := u.Validate(); err != nil {
				t.Fatalf("%+v: %v", u, err)
			}
			used += u.TotalTokens()
		}
		if used < hard || used > hard+2000 {
			t.Fatalf("%d of %d tokens used after %d calls", used, hard, calls)
		}
	}
}
