package replay_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/internal/replay"
)

const good = "2023-11-16 18:17:03.9799600,4808,10"

func TestRun_ReadsWhatRealTracesHold(t *testing.T) {
	for name, text := range map[string]string{
		"no last newline":        trace("2023-11-16 18:17:03.9799600,4808,10", "2023-11-16 18:17:04.0319600,0,0"),
		"last newline":           trace("2023-11-16 18:17:03.9799600,4808,10", "2023-11-16 18:17:04.0319600,0,0\n"),
		"CRLF":                   strings.ReplaceAll(trace("2023-11-16 18:17:03.9799600,4808,10", "2023-11-16 18:17:04.0319600,0,0"), "\n", "\r\n"),
		"byte order mark":        "\ufeff" + trace("2023-11-16 18:17:03.9799600,4808,10", "2023-11-16 18:17:04.0319600,0,0"),
		"blank lines at the end": trace("2023-11-16 18:17:03.9799600,4808,10", "2023-11-16 18:17:04.0319600,0,0\n\r\n\n"),
		"quotes and spaces":      "\"TIMESTAMP\", ContextTokens ,GeneratedTokens\n" + "\"2023-11-16 18:17:03.9799600\", 4808 ,10\n2023-11-16 18:17:04.0319600,\"0\",0",
		"a zone, fewer decimals": trace("2023-11-16 18:17:03.979960+00:00,4808,10", "2023-11-16 20:17:04.03196+02:00,0,0"),
		"whole seconds":          trace("2023-11-16 18:17:03,4808,10", "2023-11-16 18:17:03.052+00:00,0,0"),
	} {
		t.Run(name, func(t *testing.T) {
			var p paper
			sum, err := replay.Run(t.Context(), &p, replay.Config{File: write(t, text)})
			if err != nil {
				t.Fatal(err)
			}
			if sum.Rows != 2 || sum.InputTokens != 4808 || sum.OutputTokens != 10 || sum.TotalTokens != 4818 {
				t.Errorf("summary %+v: want 2 rows of 4808 and 10 tokens", sum)
			}
			if apart := p.usages[1].OccurredAt.Sub(p.usages[0].OccurredAt).Milliseconds(); apart != 52 {
				t.Errorf("the rows are %d ms apart, want 52", apart)
			}
		})
	}
}

// A bad file is refused whole, with the place, the value, the rule and the remedy.
func TestRun_RefusesABadFileBeforeItPublishes(t *testing.T) {
	const remedy = "; mend or remove the line, nothing was published"
	for name, c := range map[string]struct{ text, want string }{
		"empty":           {"", "FILE is empty: its first line must be TIMESTAMP,ContextTokens,GeneratedTokens" + remedy},
		"only blanks":     {"\n \r\n", "FILE is empty: its first line must be TIMESTAMP,ContextTokens,GeneratedTokens" + remedy},
		"no rows":         {header, "FILE has no rows below its header: there is nothing to replay"},
		"no header":       {good, `FILE:1: the header is "2023-11-16 18:17:03.9799600,4808,10": must be TIMESTAMP,ContextTokens,GeneratedTokens, in UTF-8` + remedy},
		"other header":    {"Timestamp,Model,Request tokens\n" + good, `FILE:1: the header is "Timestamp,Model,Request tokens": must be TIMESTAMP,ContextTokens,GeneratedTokens, in UTF-8` + remedy},
		"UTF-16":          {"\xff\xfeT\x00I\x00", `FILE:1: the header is "\xff\xfeT\x00I\x00": must be TIMESTAMP,ContextTokens,GeneratedTokens, in UTF-8` + remedy},
		"two columns":     {trace(good, "2023-11-16 18:17:04,1"), `FILE:3: "2023-11-16 18:17:04,1" has 2 columns: must be the three TIMESTAMP,ContextTokens,GeneratedTokens` + remedy},
		"four columns":    {trace(good, good+",1"), `FILE:3: "2023-11-16 18:17:03.9799600,4808,10,1" has 4 columns: must be the three TIMESTAMP,ContextTokens,GeneratedTokens` + remedy},
		"a word":          {trace(good, "2023-11-16 18:17:04,many,1"), `FILE:3: ContextTokens = "many": must be a whole number from 0 to 1099511627776` + remedy},
		"a fraction":      {trace(good, "2023-11-16 18:17:04,1,2.5"), `FILE:3: GeneratedTokens = "2.5": must be a whole number from 0 to 1099511627776` + remedy},
		"nothing":         {trace(good, "2023-11-16 18:17:04,,2"), `FILE:3: ContextTokens = "": must be a whole number from 0 to 1099511627776` + remedy},
		"negative":        {trace("2023-11-16 18:17:04,1,-2"), `FILE:2: GeneratedTokens = "-2": must be a whole number from 0 to 1099511627776` + remedy},
		"too many tokens": {trace("2023-11-16 18:17:04,1099511627777,2"), `FILE:2: ContextTokens = "1099511627777": must be a whole number from 0 to 1099511627776` + remedy},
		"beyond 64 bits":  {trace("2023-11-16 18:17:04,99999999999999999999,2"), `FILE:2: ContextTokens = "99999999999999999999": must be a whole number from 0 to 1099511627776` + remedy},
		"no such day":     {trace("2023-02-29 18:17:04,1,2"), `FILE:2: TIMESTAMP = "2023-02-29 18:17:04": must be a UTC time like 2023-11-16 18:17:03.9799600` + remedy},
		"epoch seconds":   {trace("1700158623,1,2"), `FILE:2: TIMESTAMP = "1700158623": must be a UTC time like 2023-11-16 18:17:03.9799600` + remedy},
		"too early":       {trace("0001-01-01 00:00:00,1,2"), `FILE:2: TIMESTAMP = "0001-01-01 00:00:00": must lie between the years 1970 and 2261` + remedy},
		"too late":        {trace("2262-01-01 00:00:00,1,2"), `FILE:2: TIMESTAMP = "2262-01-01 00:00:00": must lie between the years 1970 and 2261` + remedy},
		"after blanks":    {trace("", "", good, "", "x,1,2"), `FILE:6: TIMESTAMP = "x": must be a UTC time like 2023-11-16 18:17:03.9799600` + remedy},
		"a wide value":    {trace("7" + strings.Repeat("ä", 50) + ",1,2"), `FILE:2: TIMESTAMP = "7` + strings.Repeat("ä", 29) + `…": must be a UTC time like 2023-11-16 18:17:03.9799600` + remedy},
		"a long value":    {trace(strings.Repeat("7", 3000) + ",1,2"), `FILE:2: TIMESTAMP = "` + strings.Repeat("7", 60) + `…": must be a UTC time like 2023-11-16 18:17:03.9799600` + remedy},
		"a long line":     {trace(good, strings.Repeat("7", 1<<20)), `FILE:3: the line is longer than 4096 bytes: is this a trace in CSV, with one call a line?` + remedy},
		"bad at the end":  {trace(append(slices.Repeat([]string{good}, 3000), "x")...), `FILE:3002: "x" has 1 columns: must be the three TIMESTAMP,ContextTokens,GeneratedTokens` + remedy},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, c.text)
			var p paper
			_, err := replay.Run(t.Context(), &p, replay.Config{File: path})
			if err == nil {
				t.Fatal("no error")
			}
			want := "replay: " + strings.ReplaceAll(c.want, "FILE", path)
			if diff := cmp.Diff(want, err.Error()); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if p.calls != 0 {
				t.Errorf("published %d rows of a bad file", len(p.usages))
			}
		})
	}
}

func TestRun_RefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"":                         "Config.File is required",
		filepath.Join(dir, "none"): "no such file",
		dir:                        "is a directory: a trace is read twice",
		pipe:                       "is a pipe: a trace is read twice",
		os.DevNull:                 "is a device: a trace is read twice",
	} {
		var p paper
		_, err := replay.Run(t.Context(), &p, replay.Config{File: path})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("file %q: error %v, want one with %q", path, err, want)
		}
	}
}
