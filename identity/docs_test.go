package identity_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A problem's type is an address: somebody may follow it.
func TestEveryProblemIsExplained(t *testing.T) {
	docs := string(must(os.ReadFile("../docs/identity.md")))
	explained := map[string]bool{}
	for _, heading := range regexp.MustCompile(`(?m)^### ([a-z-]+)\n\d{3}\. `).FindAllStringSubmatch(docs, -1) {
		explained[heading[1]] = true
	}
	made := regexp.MustCompile(`(?:refusal\([a-zA-Z.]+, |ProblemDocs \+ )"([a-z-]+)"`)
	used := map[string]bool{}
	for _, pattern := range []string{"*.go", "safehttp/*.go"} {
		for _, file := range must(filepath.Glob(pattern)) {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			for _, name := range made.FindAllStringSubmatch(string(must(os.ReadFile(file))), -1) {
				used[name[1]] = true
				if !explained[name[1]] {
					t.Errorf("%s: docs/identity.md does not explain %s", file, name[1])
				}
			}
		}
	}
	for name := range explained {
		if !used[name] {
			t.Errorf("docs/identity.md explains %s, which no code answers", name)
		}
	}
	if len(used) < 14 {
		t.Errorf("found only %d problems: is the pattern still right?", len(used))
	}
}
