package layout

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/internal/testenv"
)

// What a newcomer copies from a page works: a test asks for each block of these pages, and runs it.
// A block of `text` shows what is printed, and is not run.
func TestEverySnippetIsRun(t *testing.T) {
	const root = "../.."
	pages := []string{"README.md", "docs/cli.md", "docs/http.md", "docs/meter.md", "docs/proxy.md"}
	for _, pattern := range []string{"docs/integrations/*.md", "clients/*/README.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(found) < 2 {
			t.Fatalf("%s: %q, %v", pattern, found, err)
		}
		for _, page := range found {
			pages = append(pages, strings.TrimPrefix(page, root+"/"))
		}
	}
	run := snippetsRun(t, root)
	for _, page := range pages {
		text, err := os.ReadFile(filepath.Join(root, page))
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range testenv.Fence.FindAllStringSubmatch(string(text), -1) {
			switch language := block[1]; {
			case language == "":
				t.Errorf("%s has a block without a language; text is for what nobody runs:\n%s", page, block[2])
			case language != "text" && !run[page+" "+language]:
				t.Errorf("no test runs the %s of %s: let one ask testenv.Snippets for it", language, page)
			}
		}
	}
}

// snippetsRun are the pages and languages for which tests ask.
func snippetsRun(t *testing.T, root string) map[string]bool {
	t.Helper()
	run := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case d != nil && d.IsDir() && slices.Contains([]string{"node_modules", "bin", "data", ".git"}, d.Name()): // data may be another user's
			return fs.SkipDir
		case err != nil || !strings.HasSuffix(path, "_test.go"):
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), "testenv.Snippets(") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, text, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			name, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || name.Sel.Name != "Snippets" || len(call.Args) != 3 {
				return true
			}
			page, language := literal(call.Args[1]), literal(call.Args[2])
			if page == "" || language == "" {
				t.Errorf("%s asks for snippets without naming page and language as literals", path)
			}
			run[page+" "+language] = true
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return run
}

// literal is the text of a literal, "" of anything else.
func literal(e ast.Expr) string {
	text := ""
	if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
		text, _ = strconv.Unquote(l.Value)
	}
	return text
}
