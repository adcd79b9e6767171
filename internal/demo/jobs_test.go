package demo

import (
	"math/rand/v2"
	"testing"
)

// However the calls fall, they end exactly at the hard cap, so that a newcomer
// sees hard_cap_reached, its alert, and not a token more.
func TestJobs_EndAtTheHardCap(t *testing.T) {
	const hard = 90_000
	dice := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	for range 200 {
		left, calls := int64(hard), 0
		for ; left > 0 && calls < 2000; calls++ {
			j := jobs[dice.IntN(len(jobs))]
			granted := min(j.most(), left)
			u := j.do(dice, granted)
			u.PortID, u.Feature = "p1", j.feature
			if err := u.Validate(); err != nil {
				t.Fatalf("%+v: %v", u, err)
			}
			if u.TotalTokens() > granted {
				t.Fatalf("%s took %d tokens of %d", j.feature, u.TotalTokens(), granted)
			}
			left -= u.TotalTokens()
		}
		if left != 0 {
			t.Fatalf("%d of %d tokens are left after %d calls", left, hard, calls)
		}
	}
}
