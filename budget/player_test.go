package budget_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tidegate/tidegate/budget"
)

// A player that is told sums wherever these decide makes of the calls of a period what
// Decide makes of them one by one. Package ledger tries it on rows.
func TestPlayerIsDecide(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SampledFrom([][]int64{{0, 1}, {0, 7, 100}, {1, 1000}, {0}}).Draw(t, "sizes")
		calls := rapid.SliceOfN(rapid.SampledFrom(sizes), 0, 40).Draw(t, "calls")
		caps := rapid.Custom(func(t *rapid.T) *int64 {
			if rapid.Bool().Draw(t, "none") {
				return nil
			}
			some := calls[:rapid.IntRange(0, len(calls)).Draw(t, "reached by")] // often exactly
			var sum int64
			for _, tokens := range some {
				sum += tokens
			}
			return new(sum + max(rapid.Int64Range(-9, 9).Draw(t, "off"), -sum)/7)
		})
		b := budget.Budget{Period: budget.Month, SoftCapTokens: caps.Draw(t, "soft"), HardCapTokens: caps.Draw(t, "hard")}
		player := budget.NewPlayer(b, start, start.AddDate(0, 1, 0))
		want := budget.Simulation{From: start, To: start.AddDate(0, 1, 0)}
		b.Enabled = true
		at := start
		for len(calls) > 0 {
			some := calls[:rapid.IntRange(1, len(calls)).Draw(t, "at once")]
			calls = calls[len(some):]
			var sum int64
			for i, tokens := range some {
				sum += tokens
				want.Calls++
				switch d := decide(b, want.UsedTokens, 0, tokens, start); {
				case !d.Allowed:
					want.RefusedCalls++
					want.RefusedTokens += tokens
					if want.FirstRefusedAt.IsZero() {
						want.FirstRefusedAt = at.Add(time.Duration(i))
					}
				case d.SoftCapWarning:
					want.WarnedCalls++
					if want.FirstWarnedAt.IsZero() {
						want.FirstWarnedAt = at.Add(time.Duration(i))
					}
					fallthrough
				default:
					want.UsedTokens += tokens
				}
			}
			player.Count(int64(len(some)), sum)
			if !player.PlaySum(int64(len(some)), sum) {
				for i, tokens := range some {
					if tokens <= player.Worth() {
						player.Play(at.Add(time.Duration(i)), tokens)
					}
				}
			}
			at = at.Add(time.Hour)
		}
		if diff := cmp.Diff(want, player.Result()); diff != "" {
			t.Fatalf("(-decided +played):\n%s", diff)
		}
	})
}
