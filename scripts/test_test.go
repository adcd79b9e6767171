package scripts

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// goTest runs test.sh on packages of this module's that are there for that: files are
// what is in them, by package.
func goTest(t *testing.T, files map[string]string, args ...string) (text string, code int) {
	t.Helper()
	dir, err := os.MkdirTemp(".", "_test") // within the module, which names gotestsum, and no part of ./...
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for name, body := range files {
		path := filepath.Join(dir, name, "p_test.go")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("package p\n\n"+body), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "./"+filepath.Dir(path))
	}
	out, err := exec.Command("./test.sh", append([]string{"-vet=off"}, args...)...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	} else if exit != nil {
		code = exit.ExitCode()
	}
	return string(out), code
}

func TestTestsAreSummedUp(t *testing.T) {
	const imports = "import \"testing\"\n\n"
	for _, c := range []struct {
		name  string
		files map[string]string
		args  []string
		fails bool
		want  []string
		not   []string
	}{
		{
			name: "all passed",
			files: map[string]string{
				"p": imports + `func TestA(t *testing.T) { t.Log("chatter"); t.Run("sub", func(*testing.T) {}) }`,
				"q": "import (\n\t\"testing\"\n\t\"time\"\n)\n\nfunc TestSlow(t *testing.T) { t.Run(\"part\", func(*testing.T) { time.Sleep(1200 * time.Millisecond) }) }\n",
			},
			want: []string{"DONE 4 tests in ", "s  TestSlow  "},
			not:  []string{"chatter", "failure", "TestSlow/part", "TestA"},
		},
		{
			name: "all that fails",
			files: map[string]string{
				"bad": imports + `
					func TestGood(t *testing.T) { t.Log("chatter") }
					func TestBad(t *testing.T) { t.Error("the reason") }`,
				"build": imports + `func TestA(*testing.T) { undefined() }`,
				"early": imports + `func TestEarly(*testing.T) { go panic("out of the blue"); select {} }`,
				"leak":  "import (\n\t\"fmt\"\n\t\"os\"\n\t\"testing\"\n)\n\nfunc TestMain(m *testing.M) { m.Run(); fmt.Println(\"a leak\"); os.Exit(1) }\nfunc TestA(*testing.T) {}\n",
			},
			fails: true,
			want:  []string{"TestBad", "the reason", "undefined: undefined", "TestEarly", "out of the blue", "a leak", "DONE 4 tests, "},
			not:   []string{"chatter"},
		},
		{
			name:  "one fails after its tests",
			files: map[string]string{"p": "import (\n\t\"os\"\n\t\"testing\"\n)\n\nfunc TestMain(m *testing.M) { m.Run(); os.Exit(1) }\nfunc TestA(*testing.T) {}\n"},
			fails: true,
			want:  []string{"DONE 1 tests"},
		},
		{
			name:  "one was skipped",
			files: map[string]string{"p": imports + `func TestA(*testing.T) {}; func TestOdd(t *testing.T) { t.Skip("no mood") }`},
			fails: true,
			want:  []string{"TestOdd", "no mood", "DONE 2 tests, 1 skipped in ", "a test was skipped\n"},
		},
		{
			name:  "none ran",
			files: map[string]string{"p": imports + `func TestA(*testing.T) {}`},
			args:  []string{"-run", "TestB"},
			fails: true,
			want:  []string{"DONE 0 tests in ", "no test has passed\n"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			text, code := goTest(t, c.files, c.args...)
			if code != 0 != c.fails {
				t.Errorf("exit code %d", code)
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
