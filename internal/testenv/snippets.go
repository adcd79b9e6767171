package testenv

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// Fence finds the fenced blocks of a page in Markdown: their language, and what is in them.
var Fence = regexp.MustCompile("(?ms)^```([^\n]*)\n(.*?)^```")

// Snippets are the blocks of a page in one language, in order, for the test that runs them. The
// page is named from the root of the repository. internal/layout reads these calls, and fails
// if a page has blocks for which there is none: name page and language as literals.
func Snippets(t testing.TB, page, language string) (snippets []string) {
	t.Helper()
	root, err := moduleDir()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range Fence.FindAllStringSubmatch(string(text), -1) {
		if block[1] == language {
			snippets = append(snippets, block[2])
		}
	}
	if len(snippets) == 0 {
		t.Fatalf("%s has no block of %s", page, language)
	}
	return snippets
}

// WantFields wants each field of the JSON that a page shows in what is really answered.
func WantFields(t testing.TB, shown, answered string) {
	t.Helper()
	real := map[string]bool{}
	fields(t, answered, func(path string) { real[path] = true })
	fields(t, shown, func(path string) {
		if !real[path] {
			t.Errorf("a page shows the field %s, which is not in %s", path, answered)
		}
	})
}

// fields calls each with the path of each field of a JSON document; items of a list have none of their own.
func fields(t testing.TB, text string, each func(path string)) {
	t.Helper()
	var document any
	if err := json.Unmarshal([]byte(text), &document); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var walk func(path string, value any)
	walk = func(path string, value any) {
		switch value := value.(type) {
		case map[string]any:
			for name, inner := range value {
				each(path + "." + name)
				walk(path+"."+name, inner)
			}
		case []any:
			for _, item := range value {
				walk(path, item)
			}
		}
	}
	walk("", document)
}
