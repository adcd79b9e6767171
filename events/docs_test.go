package events_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// The Go that the documents show is compiled, and checked by staticcheck, as part of an
// Example. Opening takes at most 8 lines with its error, and closes.
func TestDocs_GoIsCompiled(t *testing.T) {
	compiled := ""
	for _, name := range []string{"example_open_test.go", "example_limits_test.go", "../meter/example_open_test.go"} {
		compiled += code(t, name)
	}
	shown := regexp.MustCompile("(?ms)^```go\n(.*?)^```")
	for name, least := range map[string]int{"../README.md": 2, "../docs/wire.md": 4, "../docs/limits.md": 1, "../docs/meter.md": 1} {
		doc, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		snippets := shown.FindAllStringSubmatch(string(doc), -1)
		if len(snippets) < least {
			t.Errorf("%s shows %d pieces of Go, want at least %d", name, len(snippets), least)
		}
		for _, s := range snippets {
			if !strings.Contains(compiled, unindented(s[1])) {
				t.Errorf("%s shows what is not compiled:\n%s", name, s[1])
			}
			if opening, _, opens := strings.Cut(s[1], "Close()"); strings.Contains(s[1], "events.Open(") && (!opens || strings.Count(opening, "\n") > 7) {
				t.Errorf("%s opens without Close, or in too many lines:\n%s", name, s[1])
			}
		}
	}
}

func code(t *testing.T, name string) string {
	t.Helper()
	file, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return unindented(string(file))
}

func unindented(text string) string {
	return regexp.MustCompile(`(?m)^[\t ]+`).ReplaceAllString(text, "")
}
