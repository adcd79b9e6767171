package replay_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tidegate/tidegate/consumer/arrival"
	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/replay"
)

// Whatever the trace and the settings are: every row is published once, valid,
// in order, with its tokens and its distance to the others; a second run is the
// same, however it is batched, and one with another seed, start or file shares no id.
func TestRun_IsDeterministic(t *testing.T) {
	file := filepath.Join(t.TempDir(), "trace.csv")
	rapid.Check(t, func(t *rapid.T) {
		type row struct {
			ns, in, out int64
		}
		first := time.Date(2023, 11, 16, 18, 0, 0, 0, time.UTC)
		rows := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) row {
			return row{
				// Few different times: ids of the same millisecond must differ too.
				rapid.OneOf(rapid.Int64Range(0, 3_000_000), rapid.Int64Range(0, int64(time.Hour))).Draw(t, "ns") / 100 * 100,
				rapid.OneOf(rapid.Int64Range(0, 1), rapid.Int64Range(0, events.MaxTokens-1)).Draw(t, "in"),
				rapid.OneOf(rapid.Int64Range(0, 1), rapid.Int64Range(0, events.MaxTokens)).Draw(t, "out"),
			}
		}), 1, 60).Draw(t, "rows")
		save := func() {
			var b strings.Builder
			b.WriteString(header)
			for _, r := range rows {
				fmt.Fprintf(&b, "%s,%d,%d\r\n", first.Add(time.Duration(r.ns)).Format("2006-01-02 15:04:05.0000000"), r.in, r.out)
			}
			if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		replayed := func(cfg replay.Config) ([]events.Usage, replay.Summary) {
			cfg.File = file
			var p paper
			sum, err := replay.Run(t.Context(), &p, cfg)
			if err != nil {
				t.Fatal(err)
			}
			return p.usages, sum
		}
		cfg := replay.Config{
			Seed: rapid.Int64Range(1, replay.MaxSeed).Draw(t, "seed"), Ports: rapid.IntRange(1, 20).Draw(t, "ports"),
			Start:     start.Add(-time.Duration(rapid.Int64Range(0, 1e9).Draw(t, "earlier"))),
			BatchSize: rapid.IntRange(1, 70).Draw(t, "batch"),
		}
		save()
		usages, sum := replayed(cfg)
		if len(usages) != len(rows) || sum.Acknowledged != len(rows) {
			t.Fatalf("%d rows published, %d acknowledged, want %d", len(usages), sum.Acknowledged, len(rows))
		}
		earliest := slices.MinFunc(rows, func(a, b row) int { return int(a.ns - b.ns) }).ns
		var in, out int64
		for i, u := range usages {
			at := cfg.Start.Truncate(time.Millisecond).Add(time.Duration(rows[i].ns - earliest)).Truncate(time.Millisecond)
			if !u.OccurredAt.Equal(at) || u.InputTokens != rows[i].in || u.OutputTokens != rows[i].out {
				t.Fatalf("row %d: %+v at %s, want %+v at %s", i, u, u.OccurredAt, rows[i], at)
			}
			if err := u.Validate(); err != nil {
				t.Fatalf("row %d: %v", i, err)
			}
			if id, when, err := arrival.Identify(u, arrival.Arrival{Time: at}, at); err != nil || id.String() != u.ID || !when.Equal(at) {
				t.Fatalf("row %d: the ledger makes %s at %s of %+v, error %v", i, id, when, u, err)
			}
			in, out = in+u.InputTokens, out+u.OutputTokens
		}
		if sum.InputTokens != in || sum.OutputTokens != out {
			t.Fatalf("summary says %d and %d tokens, the rows have %d and %d", sum.InputTokens, sum.OutputTokens, in, out)
		}
		var ports replay.Port
		for _, p := range sum.Ports {
			ports.Rows += p.Rows
			ports.InputTokens += p.InputTokens
			ports.OutputTokens += p.OutputTokens
			ports.TotalTokens += p.TotalTokens
		}
		if want := (replay.Port{Rows: len(rows), InputTokens: in, OutputTokens: out, TotalTokens: in + out}); ports != want {
			t.Fatalf("the ports' sums are %+v, want %+v", ports, want)
		}

		again := cfg
		again.BatchSize = 1000
		same, _ := replayed(again)
		if diff := cmp.Diff(usages, same); diff != "" {
			t.Fatalf("a second run (-first +second):\n%s", diff)
		}
		again.Ports = 21
		otherPorts, _ := replayed(again)
		if diff := cmp.Diff(ids(usages), ids(otherPorts)); diff != "" {
			t.Fatalf("ids with another number of ports (-first +second):\n%s", diff)
		}

		seen := map[string]string{}
		note := func(run string, usages []events.Usage) {
			for i, u := range usages {
				this := fmt.Sprintf("row %d of %s", i, run)
				if other, known := seen[u.ID]; known {
					t.Fatalf("%s and %s have the same id %s", other, this, u.ID)
				}
				seen[u.ID] = this
			}
		}
		note("the replay", usages)
		other := cfg
		other.Seed = cfg.Seed%replay.MaxSeed + 1
		otherSeed, _ := replayed(other)
		note("another seed", otherSeed)
		other = cfg
		other.Start = cfg.Start.Add(-time.Duration(1+rapid.IntRange(0, 3).Draw(t, "ms")) * time.Millisecond)
		otherStart, _ := replayed(other)
		note("another start", otherStart)
		for i := range rows {
			rows[i].in ^= 1
		}
		save()
		otherFile, _ := replayed(cfg)
		note("another file", otherFile)
	})
}

// Of n ports the second gets half as many rows as the first, and so on; none is left out.
func TestRun_SharesRowsUnevenly(t *testing.T) {
	rows := slices.Repeat([]string{good}, 20_000)
	var p paper
	sum, err := replay.Run(t.Context(), &p, replay.Config{File: write(t, trace(rows...)), Seed: rand.Int64N(1000) + 1, Ports: 4, Users: 5})
	if err != nil {
		t.Fatal(err)
	}
	// Weights 12, 6, 4, 3 of 25.
	for i, want := range []float64{.48, .24, .16, .12} {
		got := sum.Ports[i]
		if share := float64(got.Rows) / 20_000; got.PortID != fmt.Sprint("p", i+1) || share < want-.02 || share > want+.02 {
			t.Errorf("port %s is number %d with %.3f of the rows, want p%d with %.2f", got.PortID, i+1, share, i+1, want)
		}
	}
	users, features := map[string]int{}, map[string]int{}
	for _, u := range p.usages {
		if !strings.HasPrefix(u.UserID, u.PortID+"-") {
			t.Fatalf("user %s of port %s", u.UserID, u.PortID)
		}
		users[u.UserID]++
		features[u.Feature+" "+u.Provider+" "+u.Model]++
	}
	if len(users) != 20 || len(features) != len(replay.Features()) {
		t.Errorf("%d users, %d features: want 20, %d", len(users), len(features), len(replay.Features()))
	}
}
