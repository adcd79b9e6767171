package events_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/internal/testenv"
)

// The Go that the documents show is compiled, and checked by staticcheck, as part of an
// Example. Opening takes at most 8 lines with its error, and closes.
func TestDocs_GoIsCompiled(t *testing.T) {
	compiled := ""
	for _, name := range []string{"example_open_test.go", "example_limits_test.go", "../meter/example_open_test.go"} {
		compiled += code(t, name)
	}
	for _, shown := range slices.Concat(
		testenv.Snippets(t, "README.md", "go"),
		testenv.Snippets(t, "docs/integrations/go.md", "go"),
		testenv.Snippets(t, "docs/wire.md", "go"),
		testenv.Snippets(t, "docs/limits.md", "go"),
		testenv.Snippets(t, "docs/meter.md", "go"),
	) {
		if !strings.Contains(compiled, unindented(shown)) {
			t.Errorf("this is shown and not compiled:\n%s", shown)
		}
		if opening, _, opens := strings.Cut(shown, "Close()"); strings.Contains(shown, "events.Open(") && (!opens || strings.Count(opening, "\n") > 7) {
			t.Errorf("it opens without Close, or in too many lines:\n%s", shown)
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
