package layout

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Who operates Tidegate finds every metric in docs/operating.md, and none that is not there.
func TestOperatingNamesEveryMetric(t *testing.T) {
	page, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	var told, made []string
	for _, m := range regexp.MustCompile("`(tidegate_\\w+)`").FindAllSubmatch(page, -1) {
		told = append(told, string(m[1]))
	}
	name := regexp.MustCompile(`(?:Name: |count\(|of\()"(tidegate_\w+[a-z])"`)
	err = filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range name.FindAllSubmatch(text, -1) {
			made = append(made, string(m[1]))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(made) < 20 {
		t.Fatalf("found only %d metrics: are they still made as this test reads them?", len(made))
	}
	for _, m := range made {
		if !slices.Contains(told, m) {
			t.Errorf("docs/operating.md does not name %s", m)
		}
	}
	for _, m := range told {
		if !slices.Contains(made, m) {
			t.Errorf("docs/operating.md names %s, which there is not", m)
		}
	}
}
