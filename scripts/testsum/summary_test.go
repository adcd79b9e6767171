package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// summarize runs real tests, whose source is files, and sums them up.
func summarize(t *testing.T, files map[string]string) (text string, ok bool) {
	t.Helper()
	dir := t.TempDir()
	files["go.mod"] = "module example.com/tests\n\ngo 1.26\n"
	for name, body := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "test", "-json", "-vet=off", "./...")
	cmd.Dir = dir
	stream, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	s := newSummary(&out)
	if err := s.read(stream); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the summary must know without it
	ok = s.close()
	return out.String(), ok
}

func testFile(body string) string {
	return "package p\n\nimport \"testing\"\n\n" + body
}

func TestSummary(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		ok    bool
		want  []string
		not   []string
	}{
		{
			name:  "all passed",
			files: map[string]string{"p/p_test.go": testFile(`func TestA(t *testing.T) { t.Log("chatter"); t.Run("sub", func(*testing.T) {}) }`)},
			ok:    true,
			want:  []string{"ok  ", "example.com/tests/p\n", "\n2 passed, 0 failed, 0 skipped\n"},
			not:   []string{"chatter", "FAIL"},
		},
		{
			name: "one failed",
			files: map[string]string{"p/p_test.go": testFile(`
				func TestGood(t *testing.T) { t.Log("chatter") }
				func TestBad(t *testing.T) { t.Error("the reason") }
				func TestOdd(t *testing.T) { t.Skip("no mood") }`)},
			want: []string{"FAIL ", "the reason", "skipped: TestOdd", "failed: example.com/tests/p\n", "\n1 passed, 1 failed, 1 skipped\n"},
			not:  []string{"chatter"},
		},
		{
			name:  "does not build",
			files: map[string]string{"p/p_test.go": testFile("func TestA(t *testing.T) { undefined() }")},
			want:  []string{"undefined: undefined", "\n0 passed, 1 failed, 0 skipped\n"},
		},
		{
			name: "the binary ends early",
			files: map[string]string{
				"p/p_test.go": testFile(`func TestA(t *testing.T) { go panic("out of the blue"); select {} }`),
				"q/q_test.go": testFile(`func TestB(t *testing.T) {}`),
			},
			want: []string{"out of the blue", "failed: example.com/tests/p\n", "\n1 passed, 1 failed, 0 skipped\n"},
		},
		{
			name:  "fails after its tests",
			files: map[string]string{"p/p_test.go": "package p\n\nimport (\n\t\"fmt\"\n\t\"os\"\n\t\"testing\"\n)\n\nfunc TestMain(m *testing.M) { m.Run(); fmt.Println(\"a leak\"); os.Exit(1) }\nfunc TestA(*testing.T) {}\n"},
			want:  []string{"a leak", "\n1 passed, 1 failed, 0 skipped\n"},
		},
		{
			name:  "nothing ran",
			files: map[string]string{"p/p.go": "package p\n"},
			want:  []string{"\n0 passed, 0 failed, 0 skipped\n"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			text, ok := summarize(t, c.files)
			if ok != c.ok {
				t.Errorf("ok is %t", ok)
			}
			for _, want := range c.want {
				if !strings.Contains(text, want) {
					t.Errorf("lacks %q", want)
				}
			}
			for _, not := range c.not {
				if strings.Contains(text, not) {
					t.Errorf("has %q", not)
				}
			}
			if t.Failed() {
				t.Log("\n" + text)
			}
		})
	}
}
