package layout

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Who follows docs/architecture.md must find what it names: each file, and each function
// in one of the files that its line names. Functions are written with brackets, `Name()`
// or `Type.Name()`, and files with their path from the root of the repository.
func TestArchitectureNamesWhatExists(t *testing.T) {
	const page = "../../docs/architecture.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	span, file, function := regexp.MustCompile("`[^`]+`"), regexp.MustCompile(`^[\w./-]+\.(go|sql|svg|md)$`), regexp.MustCompile(`^(\w+\.)?\w+\(\)$`)
	files, functions := 0, 0
	for n, line := range strings.Split(string(text), "\n") {
		var declared, named []string
		for _, s := range span.FindAllString(line, -1) {
			switch s = strings.Trim(s, "`"); {
			case file.MatchString(s):
				files++
				path := filepath.Join("../..", s)
				if _, err := os.Stat(path); err != nil {
					t.Errorf("line %d: there is no file %s", n+1, s)
				} else if strings.HasSuffix(s, ".go") {
					declared = append(declared, declaredIn(t, path)...)
				}
			case function.MatchString(s):
				named = append(named, strings.TrimSuffix(s, "()"))
			}
		}
		for _, name := range named {
			functions++
			if !slices.Contains(declared, name) {
				t.Errorf("line %d: no file that it names has a function %s", n+1, name)
			}
		}
	}
	if files < 40 || functions < 50 {
		t.Errorf("found only %d files and %d functions: are they still written as this test reads them?", files, functions)
	}
}

// declaredIn lists a file's functions as Name, and its methods as Name and Type.Name.
func declaredIn(t *testing.T, path string) (names []string) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range parsed.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		names = append(names, f.Name.Name)
		if f.Recv != nil {
			of := f.Recv.List[0].Type
			if pointer, ok := of.(*ast.StarExpr); ok {
				of = pointer.X
			}
			if of, ok := of.(*ast.Ident); ok {
				names = append(names, of.Name+"."+f.Name.Name)
			}
		}
	}
	return names
}

// A promise that names a test which is gone has none behind it.
func TestDocsNameTestsThatExist(t *testing.T) {
	root := os.DirFS("../..")
	declared, test := "", regexp.MustCompile("`((?:Test|Fuzz|Benchmark|Example)[A-Z_]\\w*)`")
	named := map[string]string{} // and where
	err := fs.WalkDir(root, ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") && !strings.HasSuffix(path, ".md") {
			return err
		}
		text, err := fs.ReadFile(root, path)
		if err != nil || strings.HasSuffix(path, ".go") {
			declared += string(text)
			return err
		}
		for _, m := range test.FindAllStringSubmatch(string(text), -1) {
			named[m[1]] = path
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, path := range named {
		if !strings.Contains(declared, "func "+name+"(") {
			t.Errorf("%s names %s, which is no test", path, name)
		}
	}
	if len(named) < 50 {
		t.Errorf("found only %d tests: are they still written as this test reads them?", len(named))
	}
}
