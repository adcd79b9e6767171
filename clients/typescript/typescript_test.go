package typescript_test

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tidegate/tidegate/internal/testenv"
)

// stage is a copy of what is in the repository, where packages may be installed and built.
type stage struct {
	testing.TB // of the test that is on it
	*world
	root string // laid out as the repository
	env  []string
}

func newStage(w *world, folders ...string) *stage {
	w.Helper()
	s := &stage{TB: w.TB, world: w, root: w.TempDir()}
	s.env = append(os.Environ(), w.env()...)
	s.env = append(s.env, "npm_config_audit=false", "npm_config_fund=false", "npm_config_prefer_offline=true", "npm_config_update_notifier=false")
	for _, folder := range folders {
		from := os.DirFS(filepath.Join("../..", folder))
		err := fs.WalkDir(from, ".", func(name string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil || entry.Name() == "node_modules" || entry.Name() == "dist":
				return cmp.Or(err, fs.SkipDir)
			case !entry.IsDir() && filepath.Ext(name) != ".tgz":
				s.write(folder+"/"+name, string(testenv.Must(fs.ReadFile(from, name))))
			}
			return nil
		})
		if err != nil {
			w.Fatal(err)
		}
	}
	return s
}

// of is the stage for a part of the test, which others run beside.
func (s *stage) of(t *testing.T) *stage {
	own := *s
	own.TB = t
	return &own
}

func (s *stage) write(name, text string) {
	s.Helper()
	path := filepath.Join(s.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		s.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.Fatal(err)
	}
}

// run runs a program in a folder of the stage, and returns what it prints.
func (s *stage) run(folder string, args ...string) string {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Env = filepath.Join(s.root, folder), s.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.Fatalf("%q in %s: %v\n%s", args, folder, err, out)
	}
	return string(out)
}

const folder = "clients/typescript"

// The package is built, packed, and installed into empty projects, where it does what its tests say and its pages show.
func TestTypeScript(t *testing.T) {
	s := newStage(newWorld(t), folder, "examples/node")
	if err := os.Symlink(testenv.NodeModules(s, "."), filepath.Join(s.root, folder, "node_modules")); err != nil {
		s.Fatal(err)
	}
	s.install()
	s.makeApp()
	for name, test := range map[string]func(*stage){"alone": testAlone, "pages": testPages, "package": testPackage, "example": testExample, "start": testStart} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of the time they wait
			test(s.of(t))
		})
	}
}

// alone is a project that has nothing but the package.
const alone = "alone"

// install installs the package into an empty project, as the page says.
func (s *stage) install() {
	s.Helper()
	s.write(alone+"/package.json", `{"private":true,"type":"module"}`)
	commands := strings.Join(testenv.Snippets(s, "docs/integrations/typescript.md", "sh"), "")
	for shown, here := range map[string]string{"(cd clients/": "(cd ../clients/", " && npm ci": "", "../tidegate/": "../"} { // what builds it is installed
		if !strings.Contains(commands, shown) {
			s.Fatalf("the page does not say %q:\n%s", shown, commands)
		}
		commands = strings.Replace(commands, shown, here, 1)
	}
	s.run(alone, "bash", "-ec", commands)
}

// testAlone wants of the project with nothing but the package strict types, nothing that it depends on, and nothing but what every
// JavaScript runtime has.
func testAlone(s *stage) {
	s.Helper()
	s.write(alone+"/main.ts", `import { open, RefusedError, type Usage, type Verdict } from "tidegate";
const tidegate = open({ url: "http://127.0.0.1:8080", token: "tg_1", port: "p1", whenUnavailable: "fail-closed" });
const usage: Usage = { feature: "ocr", provider: "openai", model: "gpt-5-mini", input_tokens: 1, user_id: undefined };
const taken: boolean = tidegate.report(usage);
// @ts-expect-error: a report names what it is for
tidegate.report({ input_tokens: 1 });
// @ts-expect-error: there is no default
open({ url: "", token: "", port: "p1" });
// @ts-expect-error: a misspelt field would ask for nothing
await tidegate.check({ estimated_token: 1 });
const verdict: Verdict = await tidegate.check({ estimated_tokens: 1 });
if (verdict.reason === "gate_unavailable") { const status: number | undefined = verdict.error.status; }
else { const used: number = verdict.used_tokens; }
if (!verdict.allowed) throw new RefusedError(verdict, {});
const hold = await tidegate.reserve({ estimated_tokens: 1 });
const most: number | undefined = hold.granted_tokens;
hold.settle({ input_tokens: 1 });
console.log(taken, most, await hold.release(), await tidegate.close());
`)
	s.run(alone, "node", "../"+folder+"/node_modules/typescript/bin/tsc", "--strict", "--noEmit", "--target", "es2022", "--module", "nodenext", "main.ts")
	if installed := testenv.Must(filepath.Glob(filepath.Join(s.root, alone, "node_modules/[^.]*"))); len(installed) != 1 {
		s.Errorf("the package brings along %q", installed)
	}
	imports := regexp.MustCompile(`(?m)(?:from|import)\s*\(?\s*"([^"]+)"`)
	files := testenv.Must(filepath.Glob(filepath.Join(s.root, alone, "node_modules/tidegate/dist/*.js")))
	for _, file := range files {
		for _, m := range imports.FindAllStringSubmatch(string(testenv.Must(os.ReadFile(file))), -1) {
			if name := m[1]; !strings.HasPrefix(name, "./") && (name != "@nats-io/transport-node" || filepath.Base(file) != "nats.js") {
				s.Errorf("%s imports %s", filepath.Base(file), name)
			}
		}
	}
	if len(files) < 8 {
		s.Errorf("found only %d files in the package", len(files))
	}
}

// app is a project that has the package, and finds beside itself what that may be used with.
const app = folder + "/app"

func (s *stage) makeApp() {
	s.Helper()
	s.write(app+"/package.json", `{"private":true,"type":"module"}`)
	s.write(app+"/tsconfig.json", `{"compilerOptions":{"strict":true,"module":"nodenext","target":"es2022","types":["node"],"skipLibCheck":true},"include":["*.ts"]}`)
	for from, to := range map[string]string{alone + "/node_modules": app + "/node_modules", folder + "/test": app + "/test"} {
		if err := os.CopyFS(filepath.Join(s.root, to), os.DirFS(filepath.Join(s.root, from))); err != nil {
			s.Fatal(err)
		}
	}
}

// testPackage runs what is in test, with the package as it is installed.
func testPackage(s *stage) {
	s.Helper()
	tests := testenv.Must(filepath.Glob(filepath.Join(s.root, app, "test/*.test.mjs")))
	s.run(app, append([]string{"env", "NODE_OPTIONS=--experimental-vm-modules --no-warnings", "node", "--test", "--test-concurrency=4"}, tests...)...) // most of the time they wait
}

// testPages compiles each program in the pages about the package, strictly, and runs it.
func testPages(s *stage) {
	s.Helper()
	var names []string
	for page, programs := range map[string][]string{
		"readme":     testenv.Snippets(s, "README.md", "ts"),
		"package":    testenv.Snippets(s, "clients/typescript/README.md", "ts"),
		"typescript": testenv.Snippets(s, "docs/integrations/typescript.md", "ts"),
		"ai-sdk":     testenv.Snippets(s, "docs/integrations/ai-sdk.md", "ts"),
	} {
		for i, program := range programs {
			name := page + "-" + string(rune('1'+i))
			s.write(app+"/"+name+".ts", strings.Replace(program, "http://127.0.0.1:8080", s.edgeURL, 1))
			names = append(names, name)
		}
	}
	s.run(app, "node", "../node_modules/typescript/bin/tsc")
	token := s.token("p1") // that in the environment is for every port
	s.env = append(slices.Clone(s.env), "OPENAI_BASE_URL="+s.provider()+"/v1", "OPENAI_API_KEY=sk-1", "TIDEGATE_URL="+s.edgeURL, "TIDEGATE_TOKEN="+token, "TOKEN="+token)
	// One after the other, each to its end.
	s.run(app, "node", "--input-type=module", "--eval", `for (const name of "`+strings.Join(names, " ")+`".split(" ")) await import("./" + name + ".js")`)
	var got []string
	for _, c := range s.settled("p1", 8) {
		got = append(got, fmt.Sprint(c.Feature, " ", c.User, " ", c.Model, " ", c.Input, " ", c.Output, " ", c.CacheRead, " ", c.Reasoning))
	}
	slices.Sort(got)
	want := []string{
		"chat  gpt-5-mini-2025-08-07 20 14 8 10",
		"embedding  text-embedding-3-small 812 0 0 0",
		"ocr  gpt-5-mini 1532 33 0 0",
		"ocr  gpt-5-mini 1532 33 0 0",
		"search  text-embedding-3-small 11 0 0 0",
		"summary  gpt-5-mini 1400 260 0 0",
		"summary ada gpt-5-mini 1400 260 1024 0",
		"summary ada gpt-5-mini-2025-08-07 20 14 8 10",
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		s.Errorf("booked (-want +got):\n%s", diff)
	}
}

// settled waits until so many calls of a port are booked, and nothing is held.
func (s *stage) settled(port string, n int) []call {
	s.Helper()
	testenv.Eventually(s, fmt.Sprintf("%d calls of %s are booked, and nothing is held", n, port), func() bool {
		rows, held, err := s.counts(s.Context(), port, false)
		if err != nil {
			s.Fatal(err)
		}
		return rows >= n && held == 0
	})
	return testenv.Must(s.booked(s.Context(), port))
}
