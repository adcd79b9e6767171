package dev

import (
	"log/slog"
	"strings"
	"testing"
)

func TestPGLogTellsWhatNobodyElseDoes(t *testing.T) {
	for line, want := range map[string]string{
		"checkpointer|ERROR:  could not write to file: No space left on device": "level=WARN",
		"postmaster|WARNING:  odd":                      "level=WARN",
		"client backend|ERROR:  duplicate key value":    "level=DEBUG",
		"client backend|FATAL:  terminating connection": "level=DEBUG",
		"client backend|PANIC:  could not write":        "level=ERROR",
		"postmaster|LOG:  starting":                     "level=DEBUG",
		"Segmentation fault":                            "level=DEBUG",
	} {
		var out strings.Builder
		l := newPGLog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
		for _, part := range strings.SplitAfter(line+"\n", "o") { // writes do not end where lines do
			if _, err := l.Write([]byte(part)); err != nil {
				t.Fatal(err)
			}
		}
		_, text, _ := strings.Cut(line, ":")
		if text == "" {
			text = line
		}
		if got := out.String(); !strings.Contains(got, want) || !strings.Contains(got, strings.TrimSpace(text)) || strings.Count(got, "\n") != 1 {
			t.Errorf("%q is logged as %q, want %s", line, got, want)
		}
		if !strings.Contains(l.lastWords(), line) {
			t.Errorf("the last words are %q", l.lastWords())
		}
	}
}
