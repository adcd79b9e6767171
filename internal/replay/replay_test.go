package replay_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tidegate/tidegate/events"
	"github.com/tidegate/tidegate/internal/replay"
)

var start = time.Date(2025, 11, 1, 9, 30, 0, 123e6, time.UTC)

func TestRun_PublishesEveryRowInOrder(t *testing.T) {
	file := write(t, trace(
		"2023-11-16 18:17:03.9799600,4808,10",
		"2023-11-16 18:17:03.9799600,1,2",
		"2023-11-16 18:17:04.0309599,0,0",
		"2023-11-16 19:17:03.9799600,1099511627776,1099511627776",
	))
	var p paper
	sum, err := replay.Run(t.Context(), &p, replay.Config{File: file, Start: start, Ports: 1, Users: 1, Features: []replay.Feature{{Name: "ocr", Provider: "openai", Model: "gpt-5"}}})
	if err != nil {
		t.Fatal(err)
	}
	usage := func(after time.Duration, in, out int64) events.Usage {
		return events.Usage{
			OccurredAt: start.Add(after), PortID: "p1", UserID: "p1-u1", Feature: "ocr", Provider: "openai", Model: "gpt-5",
			InputTokens: in, OutputTokens: out, MeasuredBy: events.MeasuredByProvider, Status: events.StatusOK,
		}
	}
	want := []events.Usage{
		usage(0, 4808, 10), usage(0, 1, 2), usage(50*time.Millisecond, 0, 0), usage(time.Hour, 1<<40, 1<<40),
	}
	if diff := cmp.Diff(want, p.usages, cmpopts.IgnoreFields(events.Usage{}, "ID")); diff != "" {
		t.Errorf("published (-want +got):\n%s", diff)
	}
	for i, u := range p.usages {
		id, ok := events.ParseUUIDv7(u.ID)
		if !ok || !events.UUIDv7Time(id).Equal(u.OccurredAt) || !strings.HasSuffix(u.ID, fmt.Sprintf("%08x", i+2)) {
			t.Errorf("row %d: id %s: want a UUIDv7 of %s that ends in the line number", i, u.ID, u.OccurredAt)
		}
	}
	wantSum := replay.Summary{
		File: file, Seed: 1, Start: start, Rows: 4, Published: 4, Acknowledged: 4,
		InputTokens: 4809 + 1<<40, OutputTokens: 12 + 1<<40, TotalTokens: 4821 + 1<<41,
		FirstAt: start, LastAt: start.Add(time.Hour),
		Ports: []replay.Port{{PortID: "p1", Rows: 4, InputTokens: 4809 + 1<<40, OutputTokens: 12 + 1<<40, TotalTokens: 4821 + 1<<41}},
	}
	if diff := cmp.Diff(wantSum, sum, cmpopts.IgnoreUnexported(replay.Summary{}), cmpopts.IgnoreFields(replay.Summary{}, "ElapsedSeconds", "RowsPerSecond")); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}
	if sum.ElapsedSeconds <= 0 || sum.RowsPerSecond <= 0 {
		t.Errorf("elapsed %g s, %g rows/s: want both above 0", sum.ElapsedSeconds, sum.RowsPerSecond)
	}
}

// These ids are a promise: an upgrade of Tidegate must not change them, or a
// replay that was begun before it would be booked twice.
func TestRun_IDsStayTheSameBetweenVersions(t *testing.T) {
	file := write(t, trace("2023-11-16 18:17:03.9799600,4808,10", "2023-11-16 18:17:04.0319600,3180,8"))
	var p paper
	if _, err := replay.Run(t.Context(), &p, replay.Config{File: file, Seed: 7, Start: start}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, u := range p.usages {
		got = append(got, strings.Join([]string{u.ID, u.PortID, u.UserID, u.Feature, u.Model}, " "))
	}
	want := []string{
		"019a3ec0-963b-7743-ab6a-d05800000002 p5 p5-u21 search_answer gpt-5",
		"019a3ec0-966f-7780-a284-af7200000003 p1 p1-u5 summary gpt-5-mini",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ids and assignment (-want +got):\n%s", diff)
	}
}

// Rows out of order stay in the file's order; the earliest is at the start, and
// without a start the latest is now.
func TestRun_TimesOutOfOrder(t *testing.T) {
	file := write(t, trace("2023-11-16 18:00:01,1,1", "2023-11-16 18:00:09,2,2", "2023-11-16 18:00:00,3,3", "2023-11-16 18:00:05,4,4"))
	seconds := []time.Duration{1, 9, 0, 5}

	var p paper
	sum, err := replay.Run(t.Context(), &p, replay.Config{File: file, Start: start})
	if err != nil {
		t.Fatal(err)
	}
	if last := start.Add(9 * time.Second); !sum.FirstAt.Equal(start) || !sum.LastAt.Equal(last) {
		t.Errorf("from %s to %s, want from %s to %s", sum.FirstAt, sum.LastAt, start, last)
	}
	for i, u := range p.usages {
		if want := start.Add(seconds[i] * time.Second); !u.OccurredAt.Equal(want) || u.InputTokens != int64(i+1) {
			t.Errorf("row %d: %d tokens at %s, want %d at %s", i, u.InputTokens, u.OccurredAt, i+1, want)
		}
	}

	p = paper{}
	before := time.Now()
	sum, err = replay.Run(t.Context(), &p, replay.Config{File: file})
	if err != nil {
		t.Fatal(err)
	}
	if last := p.usages[1].OccurredAt; last.Before(before.Add(-2*time.Millisecond)) || last.After(time.Now()) {
		t.Errorf("the latest row is at %s, now is %s", last, before)
	}
	var again paper
	if _, err := replay.Run(t.Context(), &again, replay.Config{File: file, Start: sum.Start}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p.usages, again.usages); diff != "" {
		t.Errorf("again with the summary's start (-first +again):\n%s", diff)
	}
}

func TestRun_TellsProgress(t *testing.T) {
	file := write(t, trace(slices.Repeat([]string{good}, 25)...))
	var told []string
	cfg := replay.Config{File: file, BatchSize: 10, Progress: func(done, total int) { told = append(told, fmt.Sprint(done, "/", total)) }}
	if _, err := replay.Run(t.Context(), &paper{}, cfg); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"0/25", "10/25", "20/25", "25/25"}, told); diff != "" {
		t.Errorf("progress (-want +got):\n%s", diff)
	}
}

// Whoever is stopped half-way learns how far it came, and resumes with what the
// error says without booking a row twice.
func TestRun_StoppedHalfWayCanBeResumed(t *testing.T) {
	file := write(t, trace(slices.Repeat([]string{good}, 25)...))
	ctx, cancel := context.WithCancel(t.Context())
	p := &paper{before: func(call int) error {
		if call == 3 {
			cancel()
			return ctx.Err()
		}
		return nil
	}}
	sum, err := replay.Run(ctx, p, replay.Config{File: file, BatchSize: 10, Start: start})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want context.Canceled", err)
	}
	want := "replay: stopped after 20 of 25 rows were acknowledged (and perhaps some of the next 5): context canceled; " +
		"to go on, replay the file again with --seed 1 --start 2025-11-01T09:30:00.123Z: the rows have the same ids then and none is booked twice"
	if err.Error() != want {
		t.Errorf("error\n%s\nwant\n%s", err, want)
	}
	if sum.Rows != 25 || sum.Published != 25 || sum.Acknowledged != 20 || sum.InputTokens != 20*4808 {
		t.Errorf("summary %+v: want 25 rows, 25 published, 20 acknowledged", sum)
	}
	whole := &paper{}
	if _, err := replay.Run(t.Context(), whole, replay.Config{File: file, Start: sum.Start, Seed: sum.Seed}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(ids(p.usages), ids(whole.usages)[:20]); diff != "" {
		t.Errorf("ids of the first 20 rows (-stopped +resumed):\n%s", diff)
	}

	_, err = replay.Run(ctx, &paper{}, replay.Config{File: file})
	if want := "replay: stopped before anything was published: context canceled"; err == nil || err.Error() != want {
		t.Errorf("with a context that has ended: error %v, want %s", err, want)
	}
}

func TestRun_NoticesThatTheFileChanges(t *testing.T) {
	for name, change := range map[string]func(*os.File) error{
		"longer": func(f *os.File) error {
			_, err := f.WriteAt([]byte("\n"+good), int64(len(trace(slices.Repeat([]string{good}, 500)...))))
			return err
		},
		"shorter": func(f *os.File) error { return f.Truncate(int64(len(header)) + 400*36) },
		"garbled": func(f *os.File) error { _, err := f.WriteAt([]byte("x"), int64(len(header))+400*36); return err },
	} {
		t.Run(name, func(t *testing.T) {
			f, err := os.OpenFile(write(t, trace(slices.Repeat([]string{good}, 500)...)), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			p := &paper{before: func(call int) error {
				if call == 1 {
					return change(f)
				}
				return nil
			}}
			sum, err := replay.Run(t.Context(), p, replay.Config{File: f.Name(), BatchSize: 10})
			if err == nil || !strings.Contains(err.Error(), "the file was changed while it was replayed") {
				t.Errorf("error %v, after %d rows", err, sum.Acknowledged)
			}
			if sum.Acknowledged != len(p.usages) || sum.Acknowledged > 500 {
				t.Errorf("%d acknowledged, %d published, of 500 that were checked", sum.Acknowledged, len(p.usages))
			}
		})
	}
}

func TestRun_RefusesSettings(t *testing.T) {
	file := write(t, trace("2023-11-16 18:00:00,1,1", "2023-11-16 19:00:00,2,2"))
	centuries := write(t, trace("1970-01-01 00:00:00,1,1", "2261-12-31 00:00:00,2,2"))
	ahead := time.Now().Add(-time.Hour + 6*time.Minute)
	for name, c := range map[string]struct {
		cfg  replay.Config
		want string
	}{
		"negative seed":      {replay.Config{Seed: -1}, "seed -1: must be 1 to 4398046511103"},
		"seed too large":     {replay.Config{Seed: replay.MaxSeed + 1}, "seed 4398046511104: must be 1 to 4398046511103"},
		"negative speed":     {replay.Config{Speed: -1}, "speed -1: must be from 0"},
		"no speed":           {replay.Config{Speed: nan()}, "speed NaN: must be from 0"},
		"negative ports":     {replay.Config{Ports: -1}, "-1 ports of 0 users: each must be 1 to 1000000"},
		"too many users":     {replay.Config{Users: 1_000_001}, "0 ports of 1000001 users: each must be 1 to 1000000"},
		"negative batch":     {replay.Config{BatchSize: -1}, "batch size -1: must not be negative"},
		"a feature unnamed":  {replay.Config{Features: []replay.Feature{{Provider: "openai", Model: "gpt-5"}}}, `feature "" of openai gpt-5: invalid_field: feature = "": is required`},
		"start before 1970":  {replay.Config{Start: time.Unix(-1, 0)}, "must not be before 1970"},
		"centuries till now": {replay.Config{File: centuries}, "must not be before 1970"},
		"rows in the future": {replay.Config{Start: ahead}, "would publish rows up to 6m0s before they happen"},
		"sixty times faster": {replay.Config{Start: time.Now(), Speed: 60}, "would publish rows up to 59m0s before they happen"},
		"starts tomorrow":    {replay.Config{Start: time.Now().Add(24 * time.Hour), Speed: 1}, "would publish rows up to 24h0m0s before they happen"},
		"starts in 3000":     {replay.Config{Start: time.Date(3000, 1, 1, 0, 0, 0, 0, time.UTC), Speed: 60}, "Tidegate books nothing that is more than 5m0s ahead: start earlier"},
		"ends far from now":  {replay.Config{File: centuries, Start: time.Now()}, "before they happen"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.cfg.File == "" {
				c.cfg.File = file
			}
			var p paper
			_, err := replay.Run(t.Context(), &p, c.cfg)
			if err == nil || !strings.HasPrefix(err.Error(), "replay: ") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			if p.calls != 0 {
				t.Error("something was published")
			}
		})
	}
}

func nan() float64 {
	zero := 0.0
	return zero / zero
}
